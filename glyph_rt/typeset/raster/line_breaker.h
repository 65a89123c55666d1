// Text to lines: where each line of the page starts and ends in the text.
#pragma once

#include <cstdint>
#include <vector>

#include "atlas.h"

namespace glyph_rt {

// Half-open span of code points that one line draws. The line break itself and the spaces swallowed at a wrap belong to
// no span.
struct Line {
  int32_t start;
  int32_t end;
};

bool is_newline(uint32_t codepoint);    // one code point that ends a line (CR LF counts once)
bool is_invisible(uint32_t codepoint);  // takes no room and draws nothing: soft hyphen, zero-width space, BOM
bool is_space(uint32_t codepoint);      // a line may be broken behind it

// Whether a glyph is needed to draw it.
inline bool has_ink(uint32_t c) { return !is_newline(c) && !is_invisible(c) && !is_space(c); }

// The pen: shared by breaking and painting, so that both agree on every position to 1/64 px.
class Pen {
 public:
  Pen(const Atlas& atlas, int32_t tab_columns);
  int32_t advance(uint32_t codepoint, int32_t x) const;  // 26.6 px, from pen position x relative to the line's start

 private:
  const Atlas& atlas_;
  int32_t tab_stop_;  // 26.6 px
};

// Greedy line breaking: a line takes words while they fit in `width` (26.6 px). Breaks come after runs of spaces and
// tabs; a word wider than the line is split where it overflows; leading spaces of a text line are kept.
std::vector<Line> break_lines(const Pen& pen, const uint32_t* text, int32_t length, int32_t width);

}  // namespace glyph_rt
