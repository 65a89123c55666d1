// The line breaking of the reference chain: reportlab 5's Paragraph.breakLines and cjkFragSplit, for paragraphs of 30 source
// lines joined by <br/>. Read from reportlab/platypus/paragraph.py and held to it in bench/typeset_fidelity.py.
//
// What differs from plain greedy breaking: a line may be overfull by 5 % of the width of its spaces (they are drawn that much
// narrower); a word wider than the line starts where it stands and is cut; spaces at the ends of source lines vanish; an empty
// last line of a paragraph vanishes.
#include <algorithm>

#include "lines.h"

namespace glyph_rt {

namespace {

constexpr int64_t kShrink = 20;  // a space may lose one part in so many: reportlab's spaceShrinkage of 0.05

class Breaker {
 public:
  Breaker(const Pen& pen, const Text& text, const Composition& c, const Carry& carry)
      : pen_(pen), text_(text), c_(c), source_lines_(carry.source_lines), first_(carry.first), within_(carry.within_line),
        next_break_(text.breaks), breaks_end_(text.breaks + text.break_count) {}

  std::vector<Row> run(bool complete) {
    int64_t at = 0;
    while (at < text_.length || (at == text_.length && at == 0)) {
      int64_t end = line_end(at);
      bool forced = false;
      while (next_break_ != breaks_end_ && *next_break_ <= at) {
        if (*next_break_ == at) new_page_ = true;
        ++next_break_;
      }
      if (next_break_ != breaks_end_ && *next_break_ <= end) {  // a page starts inside this line
        forced = true;
        end = *next_break_;
      }
      const bool last = end == text_.length && !forced;
      line_number_ = source_lines_;
      counted_ = at;
      if (last && !complete) {
        line(at, end, Ending::kParagraph);
        if (!rows_.empty() && rows_.back().start >= at) rows_.pop_back();  // it may go on
        break;
      }
      source_lines_ += 1 + marks(at, end);
      // The next source line starts a page: the paragraph ends here.
      const bool page_follows = next_break_ != breaks_end_ && *next_break_ == end + 1;
      const bool ends = forced || last || source_lines_ >= kBatch || page_follows;
      line(at, end, ends ? Ending::kParagraph : Ending::kBreak);
      if (ends) {
        if (!rows_.empty()) rows_.back().last = true;
        source_lines_ = 0;
        first_ = true;
      }
      within_ = forced;
      at = forced ? end : end + 1;
      if (last) break;
    }
    return std::move(rows_);
  }

 private:
  // The line break behind `at`. Where line ends are drawn as marks, only every 30th breaks a line: paragraphs end there.
  int64_t line_end(int64_t at) const {
    int32_t count = source_lines_;
    for (int64_t i = at; i < text_.length; ++i) {
      if (text_.symbols[i] == kNewline) return i;
      if (text_.symbols[i] == kNewlineMark && ++count == kBatch) return i;
    }
    return text_.length;
  }

  int32_t marks(int64_t start, int64_t end) const {
    return c_.marks ? static_cast<int32_t>(std::count(text_.symbols + start, text_.symbols + end, kNewlineMark)) : 0;
  }

  Fixed width() const { return c_.width - (first_ ? c_.first_indent : 0); }

  void emit(int64_t start, int64_t end, Fixed width, int32_t gaps, Ending ending) {
    line_number_ += marks(counted_, start);
    counted_ = start;
    rows_.push_back({start, end, width, gaps, ending, first_, false, new_page_, within_, line_number_});
    first_ = new_page_ = false;
    within_ = true;
  }

  // One source line [at, end).
  void line(int64_t at, int64_t end, Ending ending) {
    const size_t before = rows_.size();
    if (c_.cjk) characters(at, end, ending);
    else words(at, end, ending);
    if (rows_.size() == before && ending == Ending::kBreak) emit(at, at, 0, 0, ending);  // an empty line
  }

  void words(int64_t at, int64_t end, Ending ending) {
    int64_t start = at, row_end = at;
    Fixed current = 0;
    int32_t count = 0, fixed = 0;  // words on the row, and spaces inside them
    int64_t i = at;
    const auto wrap = [&](int64_t next) {
      emit(start, row_end, current, count - 1 + fixed, Ending::kWrap);
      start = row_end = next;
      current = 0;
      count = fixed = 0;
    };
    while (true) {
      while (i < end && (is_space(text_.symbols[i]) || text_.symbols[i] == kSkip)) ++i;
      if (i >= end) break;
      int64_t stop = i;
      Fixed word = 0;
      int32_t inside = 0;
      const bool mark = text_.symbols[i] == kNewlineMark;  // a word of its own
      for (; stop < end && !is_space(text_.symbols[stop]); ++stop) {
        if (stop > i && (mark || text_.symbols[stop] == kNewlineMark)) break;
        word += pen_.advance(text_.symbols[stop], word);
        inside += text_.symbols[stop] == kFixedSpace;
      }
      if (count == 0) start = row_end = i;
      const Fixed space = count ? pen_.atlas().space() : 0;
      const Fixed limit = width() + space * count / kShrink;
      if (current + space + word > limit) {
        if (word > width()) {
          i = cut(i, stop, start, row_end, current, count, fixed);
          continue;
        }
        wrap(i);
        current = word;
      } else {
        current += space + word;
      }
      ++count;
      fixed += inside;
      row_end = i = stop;
    }
    if (count) emit(start, row_end, current, count - 1 + fixed, ending);
  }

  // A word wider than a line fills what is left of this one and goes on over the next ones; its rest starts a row that later
  // words may join. Returns where that rest ends.
  int64_t cut(int64_t i, int64_t stop, int64_t& start, int64_t& row_end, Fixed& current, int32_t& count, int32_t& fixed) {
    Fixed used = count ? current + pen_.atlas().space() : 0;
    Fixed piece = 0;
    int32_t inside = 0;
    const int64_t begin = i;
    int64_t from = i;
    for (; i < stop; ++i) {
      const Fixed step = pen_.advance(text_.symbols[i], 0);
      if (text_.symbols[i] != kSkip && used + step > width() && (piece > 0 || step <= c_.width)) {
        const bool joined = from == begin && count > 0;
        const bool taken = i > from;
        if (joined) {
          emit(start, taken ? i : row_end, taken ? used : current, (taken ? count : count - 1) + fixed + inside, Ending::kWrap);
        } else if (taken) {
          emit(from, i, piece, inside, Ending::kWrap);
        }
        from = i;
        used = piece = 0;
        inside = 0;
        count = fixed = 0;
      }
      used += step;
      piece += step;
      inside += text_.symbols[i] == kFixedSpace;
    }
    start = from;
    row_end = stop;
    current = piece;
    count = 1;
    fixed = inside;
    return stop;
  }

  // Between any two characters, as cjkFragSplit does.
  void characters(int64_t at, int64_t end, Ending ending) {
    int64_t start = at, i = at;
    Fixed used = 0;
    while (i < end) {
      const int64_t here = i++;
      used += pen_.advance(text_.symbols[here], used);
      if (used <= width()) continue;
      Fixed row = used;
      int64_t last = here;
      if (text_.codepoints[here] < 0x3000) {
        // Inside a western word: go back to a space or an ideograph, at most half the line.
        for (int64_t j = here; j > (start + i) / 2; --j) {
          const bool stops = text_.codepoints[j] >= 0x3000 || is_space(text_.symbols[j]);
          if (stops && j + 1 < i) {
            for (int64_t k = j + 2; k < i; ++k) row -= pen_.advance(text_.symbols[k], 0);
            last = j + 1;
            i = j + 2;
            break;
          }
        }
      }
      // One character that may not start a line hangs into the margin.
      if (!cannot_start_line_in_chain(text_.codepoints[last]) && i > start + 1) {
        --i;
        row -= pen_.advance(text_.symbols[last], 0);
      }
      emit(start, i, row, 0, Ending::kWrap);
      start = i;
      used = 0;
    }
    if (start < end) emit(start, end, used, 0, ending);
  }

  const Pen& pen_;
  const Text& text_;
  const Composition& c_;
  std::vector<Row> rows_;
  int32_t source_lines_;
  int32_t line_number_ = 0;  // of the source line of text_[counted_], in its paragraph
  int64_t counted_ = 0;
  bool first_;
  bool within_;
  bool new_page_ = false;
  const int64_t* next_break_;
  const int64_t* const breaks_end_;
};

}  // namespace

std::vector<Row> break_trained(const Pen& pen, const Text& text, const Composition& c, const Carry& carry, bool complete) {
  return Breaker(pen, text, c, carry).run(complete);
}

}  // namespace glyph_rt
