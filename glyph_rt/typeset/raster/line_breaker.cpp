#include "line_breaker.h"

namespace glyph_rt {

bool is_newline(uint32_t c) { return (c >= 0x0A && c <= 0x0D) || c == 0x85 || c == 0x2028 || c == 0x2029; }

bool is_invisible(uint32_t c) { return c == 0xAD || c == 0x200B || c == 0xFEFF; }

bool is_space(uint32_t c) { return c == ' ' || c == '\t'; }

Pen::Pen(const Atlas& atlas, int32_t tab_columns)
    : atlas_(atlas), tab_stop_(tab_columns * atlas.advance(atlas.glyph(' '))) {}

int32_t Pen::advance(uint32_t c, int32_t x) const {
  if (c == '\t') return tab_stop_ - x % tab_stop_;
  if (is_invisible(c)) return 0;
  return atlas_.advance(atlas_.glyph(c));
}

std::vector<Line> break_lines(const Pen& pen, const uint32_t* text, int32_t length, int32_t width) {
  std::vector<Line> lines;
  int32_t start = 0;         // first code point of the current line
  int32_t x = 0;             // pen position after what has been accepted
  int32_t word = 0;          // first code point of the word being read
  int32_t before_word = 0;   // end of the line if it is broken in front of that word (spaces swallowed)
  bool in_word = false;
  const auto restart = [&](int32_t at) { start = word = before_word = at; x = 0; in_word = false; };

  int32_t i = 0;
  while (i < length) {
    const uint32_t c = text[i];
    if (is_newline(c)) {
      lines.push_back({start, i});
      i += (c == '\r' && i + 1 < length && text[i + 1] == '\n') ? 2 : 1;
      restart(i);
      continue;
    }
    if (is_space(c)) {
      if (in_word) { before_word = i; in_word = false; }
      x += pen.advance(c, x);
      ++i;
      continue;
    }
    if (!in_word) { word = i; in_word = true; }
    const int32_t step = pen.advance(c, x);
    if (x + step <= width || i == start) {  // a line always takes one code point, however narrow the page
      x += step;
      ++i;
      continue;
    }
    const bool has_text_before = before_word > start;
    if (has_text_before) {
      lines.push_back({start, before_word});
      i = word;  // the word is measured again on its own line
    } else if (word > start) {
      // Only spaces stand before the word. An indent that leaves no room for the word is given up.
      i = word;
    } else {
      lines.push_back({start, i});
    }
    restart(i);
  }
  if (start < length) lines.push_back({start, length});
  return lines;
}

}  // namespace glyph_rt
