// Text to lines to pages: where every line starts and ends in the text, and where it stands on which page.
#pragma once

#include <cstdint>
#include <vector>

#include "atlas.h"

namespace glyph_rt {

enum class Alignment : int32_t { kLeft, kCenter, kRight, kJustify };

// Why a row ends.
enum class Ending : uint8_t { kWrap, kBreak, kParagraph };

// A broken line that has no place yet: symbols [start, end), spaces at a wrap and the line break itself excluded.
struct Row {
  int64_t start;
  int64_t end;
  Fixed width;    // without stretch
  int32_t gaps;   // spaces that may be stretched
  Ending ending;
  bool first;     // of its paragraph
  bool last;      // of its paragraph, though a line break that draws nothing may follow
  bool new_page;  // a page must start here
  bool within;    // does not start a source line
  int32_t source_line;  // trained: how many source lines of its paragraph come before it
};

// A line on a page. Its memory is the row of an int64 table on the Python side.
struct Line {
  int64_t start;     // symbols [start, end)
  int64_t end;
  int64_t page;      // from 0, within the call
  int64_t baseline;  // px from the top of the page
  int64_t x;         // pen position of the first symbol from the left edge of the page, Fixed
  int64_t stretch;   // Fixed, added to every space between words
  int64_t right;     // px from the left edge of the page to behind the last inked column
  int64_t bottom;    // px from the top of the page to below the last inked row; 0 for a blank line
  int64_t paragraph; // bit 0: first line of its paragraph on this page; bit 1: last
};

struct Composition {
  bool trained;          // as the reference chain does it, else our own rules (line_breaker.cpp, trained_breaker.cpp)
  bool marks;            // line ends are drawn as marks
  bool cjk;              // trained: the text has ideographs, so that the chain breaks between any two characters
  Fixed left;            // px from the left edge of the page to the text, indent included
  Fixed width;           // of a line
  Fixed first_indent;    // of the first line of a paragraph
  Alignment alignment;
  int32_t tab_columns;
  // Vertical, in points for `trained` (the chain's own arithmetic, so that its roundings come out equal), else in px.
  double top;            // of the first line
  double height;         // for lines
  double line_height;
  double ascent;         // from the top of a line to its baseline
  double space_before;   // a paragraph
  double space_after;
  double scale;          // px per unit
  double page_height;
};

// What is known at the start of a page, enough to go on from there.
struct Carry {
  int32_t source_lines = 0;   // trained: of the current paragraph that are complete
  bool within_line = false;   // the page starts inside a source line
  bool first = true;          // the next row is the first of its paragraph
  bool blank_row = false;     // trained: a page break that fell on a line break leaves an empty row
};

struct Composed {
  std::vector<Line> lines;
  int64_t pages = 0;      // complete pages
  int64_t next = 0;       // where the next page starts in the text
  Carry carry;            // and in what state
};

// A view of a stretch of the text. `codepoints` decide where a line may be broken, `symbols` how wide it is.
struct Text {
  const uint32_t* codepoints;
  const uint32_t* symbols;
  const uint8_t* levels;   // bidi embedding levels, bit 7 set in paragraphs that run right to left; null when there are none
  int64_t length;
  const int64_t* breaks;   // sorted positions where a page must start
  int64_t break_count;
};

// Our own line breaking. Greedy: a line takes words while they fit. Breaks come behind spaces and tabs and between ideographs
// (kinsoku rules kept); a word wider than the line is split where it overflows; leading spaces of a source line are kept.
// Unless `complete`, more text follows and the last row, which may not be whole, is left out.
std::vector<Row> break_native(const Pen& pen, const Text& text, const Composition& c, const Carry& carry, bool complete);

// The line breaking of reportlab 5 as the reference chain calls it.
std::vector<Row> break_trained(const Pen& pen, const Text& text, const Composition& c, const Carry& carry, bool complete);

// Rows to pages. Whole pages only, unless `complete`.
Composed compose(const Pen& pen, const Text& text, const Composition& c, const Carry& carry, bool complete);

// Symbols of a line from left to right (UAX #9, rule L2), into `order`. Only for texts with levels; others are in order.
void visual_order(const Text& text, int64_t start, int64_t end, std::vector<int32_t>& order);

// Walks along a line from left to right and calls draw(x, glyph), x counted from the left edge of the page, for all that has ink.
template <typename Draw>
void walk_line(const Pen& pen, const Text& text, const Line& line, std::vector<int32_t>& order, const Draw& draw) {
  Walk walk(pen, line.stretch);
  const auto put = [&](Fixed x, int32_t glyph) { draw(line.x + x, glyph); };
  if (text.levels == nullptr) {
    for (int64_t i = line.start; i < line.end; ++i) walk.step(text.symbols[i], put);
  } else {
    visual_order(text, line.start, line.end, order);
    for (const int32_t i : order) walk.step(text.symbols[i], put);
  }
}

constexpr uint32_t kFirstIdeograph = 0x2E80;
bool is_ideographic(uint32_t codepoint);
bool cannot_start_line(uint32_t codepoint);
bool cannot_start_line_in_chain(uint32_t codepoint);
bool cannot_end_line(uint32_t codepoint);

constexpr int32_t kBatch = 30;  // source lines in a paragraph of the reference chain

}  // namespace glyph_rt
