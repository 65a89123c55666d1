#include <algorithm>
#include <cmath>

#include "lines.h"

namespace glyph_rt {

namespace {

constexpr double kFuzz = 1e-6;  // reportlab's _FUZZ
constexpr int32_t kNoInk = INT32_MIN;

// Puts rows on pages. Pages that are not known to be complete are dropped again at the end.
class Composer {
 public:
  Composer(const Pen& pen, const Text& text, const Composition& c, const Carry& carry, std::vector<Row> rows, bool complete)
      : pen_(pen), text_(text), c_(c), complete_(complete), rows_(std::move(rows)), blank_row_(carry.blank_row) {}

  Composed run() {
    if (c_.trained) paragraphs();
    else flow();
    if (complete_) {
      if (!page_.empty() || out_.pages == 0) finish(rows_.size());
      out_.next = text_.length;
    }
    return std::move(out_);
  }

 private:
  // Ours: row after row.
  void flow() {
    for (size_t i = 0; i < rows_.size(); ++i) {
      if (rows_[i].new_page && !page_.empty()) finish(i);
      double gap = 0;
      if (rows_[i].first && !page_.empty()) gap = std::max(c_.space_before, c_.space_after);
      if (!page_.empty() && used_ + gap + c_.line_height > c_.height + kFuzz) {
        finish(i);
        gap = 0;
      }
      used_ += gap;
      place(rows_[i], c_.top + used_ + c_.ascent);
      box(page_.size() - 1, rows_[i].first || page_.size() == 1, rows_[i].last);
    }
  }

  // The reference chain: reportlab's Frame.add and Paragraph.split.
  void paragraphs() {
    double after = 0;  // space after the paragraph before
    size_t i = 0;
    while (i < rows_.size()) {
      if (rows_[i].new_page && !page_.empty()) { finish(i); after = 0; }
      const double before = page_.empty() ? 0 : std::max(c_.space_before - after, 0.0);
      const double room = c_.height - used_ - before;
      const auto fit = std::max<int64_t>(0, static_cast<int64_t>(room / c_.line_height));
      const int64_t blank = blank_row_;
      // The rows of this paragraph, as far as they matter.
      size_t end = i;
      bool whole = false;
      while (end < rows_.size() && static_cast<int64_t>(end - i) <= fit + 1 && !whole) whole = rows_[end++].last;
      whole = whole || (complete_ && end == rows_.size());
      const int64_t count = blank + static_cast<int64_t>(end - i);
      if (static_cast<double>(count) * c_.line_height <= room + kFuzz) {
        if (!whole) return;  // the text goes on behind what is known
        used_ += before;
        piece(i, end);
        used_ += after = c_.space_after;
        i = end;
        continue;
      }
      if (!page_.empty() && (room <= 0 || fit <= 1)) {  // one row alone stays off this page
        finish(i);
        after = 0;
        continue;
      }
      used_ += before;
      end = i + static_cast<size_t>(std::max<int64_t>(1, fit) - blank);  // at least one row a page, were it the empty one
      piece(i, end);
      blank_row_ = end > i && rows_[end - 1].ending == Ending::kBreak;
      i = end;
      finish(i);
      after = 0;
    }
  }

  void piece(size_t i, size_t end) {
    const size_t first = page_.size();
    // The chain draws in coordinates of the paragraph, from its lower edge up. Poppler adds them up in this order and rounds down, so
    // that a baseline which is a whole number of pixels may come out one higher.
    double height = static_cast<double>((blank_row_ ? 1 : 0) + end - i) * c_.line_height;
    // An empty row in front of a page break is lost when reportlab wraps the first half anew.
    if (end > i && rows_[end - 1].ending == Ending::kBreak && !rows_[end - 1].last && rows_[end - 1].start == rows_[end - 1].end) height -= c_.line_height;
    const double lower = c_.page_height - c_.top - used_ - height;
    const double origin = lower * -c_.scale + c_.scale * c_.page_height;
    double y = height - c_.ascent;
    const auto put = [&](const Row& row) {
      place(row, std::floor(y * -c_.scale + origin));
      y -= c_.line_height;
    };
    if (blank_row_) put({rows_[i].start, rows_[i].start, 0, 0, Ending::kBreak, false, false, false, true, 0});
    blank_row_ = false;
    for (; i < end; ++i) put(rows_[i]);
    if (page_.size() > first) {
      page_[first].paragraph |= 1;
      page_.back().paragraph |= 2;
    }
  }

  void box(size_t line, bool first, bool last) { page_[line].paragraph |= (first ? 1 : 0) | (last ? 2 : 0); }

  void place(const Row& row, double baseline) {
    const Fixed indent = row.first ? c_.first_indent : 0;
    const Fixed extra = c_.width - indent - row.width;
    Line line{row.start, row.end, out_.pages, 0, c_.left + indent, 0, 0, 0, 0};
    const bool turned = !c_.marks && text_.levels != nullptr && row.start < text_.length && (text_.levels[row.start] & 0x80) != 0;
    Alignment alignment = c_.alignment;
    if (turned && !c_.trained) {  // a paragraph from right to left starts at the right
      if (alignment == Alignment::kLeft) alignment = Alignment::kRight;
      else if (alignment == Alignment::kRight) alignment = Alignment::kLeft;
    }
    const bool overfull = extra < 0 && row.gaps > 0;
    const bool justified = alignment == Alignment::kJustify && row.gaps > 0 &&
                           (row.ending == Ending::kWrap || (overfull && row.ending == Ending::kParagraph));
    if (justified || (overfull && alignment != Alignment::kJustify)) line.stretch = extra / row.gaps;
    else if (alignment == Alignment::kRight || (alignment == Alignment::kJustify && turned)) line.x += extra;
    else if (alignment == Alignment::kCenter) line.x += extra / 2;
    line.baseline = static_cast<int64_t>(baseline);
    measure_ink(line);
    used_ += c_.line_height;
    page_.push_back(line);
  }

  void measure_ink(Line& line) {
    const Atlas& atlas = pen_.atlas();
    int32_t right = 0, below = kNoInk;
    walk_line(pen_, text_, line, order_, [&](Fixed x, int32_t glyph) {
      const GlyphBitmap& bitmap = atlas.bitmap(glyph, x);
      right = std::max(right, floor_px(x) + bitmap.ink_right);
      below = std::max(below, bitmap.ink_bottom);
    });
    line.right = right;
    if (below != kNoInk) line.bottom = std::max<int64_t>(0, line.baseline + below);
  }

  // Ends the page; row `next` is the first of the one that follows.
  void finish(size_t next) {
    if (!page_.empty()) page_.back().paragraph |= 2;
    out_.lines.insert(out_.lines.end(), page_.begin(), page_.end());
    page_.clear();
    ++out_.pages;
    used_ = 0;
    if (next < rows_.size()) {
      const Row& row = rows_[next];
      out_.next = row.start;
      out_.carry = {row.source_line, row.within, row.first, blank_row_};
    }
  }

  const Pen& pen_;
  const Text& text_;
  const Composition& c_;
  const bool complete_;
  const std::vector<Row> rows_;
  bool blank_row_;
  double used_ = 0;          // of the page's height
  std::vector<Line> page_;   // lines of the page being filled
  std::vector<int32_t> order_;
  Composed out_;
};

}  // namespace

Composed compose(const Pen& pen, const Text& text, const Composition& c, const Carry& carry, bool complete) {
  std::vector<Row> rows = c.trained ? break_trained(pen, text, c, carry, complete) : break_native(pen, text, c, carry, complete);
  return Composer(pen, text, c, carry, std::move(rows), complete).run();
}

}  // namespace glyph_rt
