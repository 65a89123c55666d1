#include <algorithm>

#include "lines.h"

namespace glyph_rt {

namespace {

// Whether a line may be broken between two neighbours that are not spaces.
bool breakable(uint32_t before, uint32_t after) {
  if (before < kFirstIdeograph && after < kFirstIdeograph) return false;
  return (is_ideographic(before) || is_ideographic(after)) && !cannot_end_line(before) && !cannot_start_line(after);
}

// Width and gaps of [start, end), whose trailing spaces are already off.
Row measured(const Pen& pen, const Text& text, int64_t start, int64_t end, Ending ending, bool first, bool new_page, bool within) {
  Row row{start, end, 0, 0, ending, first, ending == Ending::kParagraph, new_page, within, 0};
  Walk walk(pen, 0);
  bool inked = false;
  for (int64_t i = start; i < end; ++i) {
    const uint32_t s = text.symbols[i];
    walk.reach(s);
    row.gaps += s == kFixedSpace || (s == kSpace && inked);
    if (s == kNewlineMark) row.gaps += inked;  // its trailing space may hang
    inked = inked || has_ink(s);
    walk.pass(s);
    if (has_ink(s) || s == kFixedSpace) row.width = s == kNewlineMark ? walk.x() - pen.atlas().space() : walk.x();
  }
  return row;
}

}  // namespace

std::vector<Row> break_native(const Pen& pen, const Text& text, const Composition& c, const Carry& carry, bool complete) {
  std::vector<Row> rows;
  const int64_t* next_break = text.breaks;
  const int64_t* const breaks_end = text.breaks + text.break_count;
  int64_t start = 0;        // of the current line
  int64_t opportunity = 0;  // last place where the line may be broken, and
  int64_t trimmed = 0;      // where it would end then: in front of the spaces before that place
  int64_t last_ink = 0;     // behind the last symbol that is no space
  uint32_t before = kSpace; // last code point that is no cluster's continuation
  Walk walk(pen, 0);
  bool first = !carry.within_line, new_page = false, within = carry.within_line;
  Fixed width = 0;
  const auto restart = [&](int64_t at, bool paragraph) {
    start = opportunity = trimmed = last_ink = at;
    before = kSpace;
    walk = Walk(pen, 0);
    first = paragraph;
    new_page = false;
    width = c.width - (first ? c.first_indent : 0);
  };
  restart(0, first);
  const auto emit = [&](int64_t end, Ending ending) {
    rows.push_back(measured(pen, text, start, end, ending, first, new_page, within));
    within = ending != Ending::kParagraph;
  };

  int64_t i = 0;
  while (i < text.length) {
    if (next_break != breaks_end && *next_break <= i) {
      const bool here = *next_break == i;
      while (next_break != breaks_end && *next_break <= i) ++next_break;
      if (here) {
        const bool inside = i > start;
        if (inside) emit(last_ink, Ending::kWrap);
        restart(i, inside ? false : first);
        new_page = true;
      }
    }
    const uint32_t s = text.symbols[i];
    if (s == kNewline) {
      emit(i, Ending::kParagraph);
      const bool pair = text.codepoints[i] == '\r' && i + 1 < text.length && text.codepoints[i + 1] == '\n';
      restart(i += pair ? 2 : 1, true);
      continue;
    }
    if (is_space(s)) {
      walk.pass(s);
      before = s;
      ++i;
      continue;
    }
    if (s == kSkip) {  // never decides anything; goes with the cluster before it
      ++i;
      if (!is_space(before)) last_ink = i;
      continue;
    }
    if (i > start && (is_space(before) || s == kNewlineMark || before == kNewlineMark || breakable(before, text.codepoints[i]))) {
      opportunity = i;
      trimmed = last_ink;
    }
    const Fixed x = walk.reach(s);
    if (x + pen.advance(s, x) <= width || i == start) {  // a line always takes one symbol, however narrow the page
      walk.pass(s);
      before = s == kNewlineMark ? s : text.codepoints[i];
      last_ink = ++i;
      continue;
    }
    if (trimmed > start) {
      emit(trimmed, Ending::kWrap);
      i = opportunity;  // the word is measured again on its own line
    } else if (opportunity > start) {
      i = opportunity;  // only spaces stand before the word: an indent that leaves no room for it is given up
      restart(i, first);
      continue;
    } else {
      emit(i, Ending::kWrap);
    }
    restart(i, false);
  }
  if (complete && start < text.length) emit(text.length, Ending::kParagraph);
  return rows;
}

}  // namespace glyph_rt
