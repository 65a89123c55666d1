#include "page_painter.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "rows.h"

namespace glyph_rt {

namespace {

bool is_grey(const Ink& ink) { return ink[0] == ink[1] && ink[1] == ink[2]; }

// Row `y` of a page, cut into the rows of its patches, which are `stride` bytes apart. kCopied bytes go at a time: those past a patch's
// row are of the row below, which comes later.
template <int32_t kCopied>
void scatter_row(const uint8_t* row, int32_t blocks, uint8_t* to, int64_t stride) {
  for (int32_t b = 0; b < blocks; ++b, row += kBlock, to += kMerge * kMerge * stride) {
    std::memcpy(to, row, kCopied);
    std::memcpy(to + stride, row + kPatch, kCopied);
  }
}

void scatter(const uint8_t* row, int32_t y, int32_t width, uint8_t* out, int64_t stride) {
  const int32_t blocks = width / kBlock;
  uint8_t* to = out + (static_cast<int64_t>(y / kBlock) * blocks * kMerge + y / kPatch % kMerge) * kMerge * stride + y % kPatch * kPatch;
  if (y % kPatch + 1 < kPatch) scatter_row<16>(row, blocks, to, stride);  // one store instead of two
  else scatter_row<kPatch>(row, blocks, to, stride);
}

}  // namespace

// Planes of a page while it is drawn; kept per thread, so that drawing a page allocates nothing.
struct PagePainter::Canvas {
  std::array<Plane, 3> planes;
  std::array<Resampler, 3> resamplers;
  Plane scaled;
  std::vector<int32_t> order;
};

PagePainter::PagePainter(const Look& look) : look_(look) {
  const auto bad = [](int32_t px) { return px <= 0 || px > 28 * 1024; };
  if (bad(look.width) || bad(look.height) || bad(look.scaled_width)) throw std::invalid_argument("a page is 1 to 28672 px wide and high");
  const bool grey = is_grey(look.page) && is_grey(look.paragraph) && is_grey(look.border) && is_grey(look.text[0]) && is_grey(look.text[1]);
  planes_ = grey ? 1 : 3;
}

bool PagePainter::paint(const Pen& pen, const Text& text, const Line* lines, int64_t count, const Crop& crop, uint8_t* out) const {
  thread_local Canvas canvas;
  for (int32_t p = 0; p < planes_; ++p) {
    canvas.planes[p].shape(look_.width, look_.height);
    std::memset(canvas.planes[p].pixels.data(), look_.page[p], canvas.planes[p].pixels.size());
  }
  for (int64_t i = 0; i < count; ++i) {
    // Box and text of one paragraph after the other: a box may cover what hangs down from the paragraph above, as in the chain.
    if (look_.boxes && (lines[i].paragraph & 1)) draw_boxes(canvas, lines, count, i);
    draw_line(canvas, pen, text, lines[i]);
  }
  const bool scaled = crop.width != crop.out_width || crop.height != crop.out_height;
  for (int32_t p = 0; p < planes_; ++p) {
    Plane& plane = canvas.planes[p];
    if (look_.scaled_width != look_.width) {  // the chain stores the page at this width before anything else is done to it
      canvas.scaled.shape(look_.scaled_width, look_.height);
      canvas.resamplers[p].start(plane, look_.width, look_.height, look_.scaled_width, look_.height);
      for (int32_t y = 0; y < look_.height; ++y) std::memcpy(canvas.scaled.row(y), canvas.resamplers[p].row(y), look_.scaled_width);
      std::swap(plane, canvas.scaled);
    }
    if (scaled) canvas.resamplers[p].start(plane, crop.width, crop.height, crop.out_width, crop.out_height);
  }
  bool grey = true;
  std::array<const uint8_t*, 3> rows{};
  for (int32_t y = 0; y < crop.out_height; ++y) {
    for (int32_t p = 0; p < planes_; ++p) {
      rows[p] = scaled ? canvas.resamplers[p].row(y) : canvas.planes[p].row(y);
      scatter(rows[p], y, crop.out_width, out + p * kPatchBytes, planes_ * kPatchBytes);
      grey = grey && std::memcmp(rows[0], rows[p], crop.out_width) == 0;
    }
  }
  if (grey && planes_ > 1) {  // its planes are equal: the first is enough
    const int64_t patches = static_cast<int64_t>(crop.out_width / kPatch) * (crop.out_height / kPatch);
    for (int64_t i = 1; i < patches; ++i) std::memmove(out + i * kPatchBytes, out + i * planes_ * kPatchBytes, kPatchBytes);
  }
  return grey;
}

void PagePainter::draw_boxes(Canvas& canvas, const Line* lines, int64_t count, int64_t at) const {
  int64_t last = at;
  while (last + 1 < count && !(lines[last].paragraph & 2)) ++last;
  const auto top = static_cast<int32_t>(lines[at].baseline) - look_.ascent - look_.box_padding;
  const auto bottom = static_cast<int32_t>(lines[last].baseline) - look_.ascent + look_.line_height + look_.box_padding;
  const int32_t left = look_.box_left - look_.box_padding, right = look_.box_right + look_.box_padding, w = look_.border_width;
  fill(canvas, left, top, right, bottom, look_.paragraph);
  if (w > 0) {  // centred on the edge, as PDF strokes are
    const int32_t out = w / 2, in = w - out;
    fill(canvas, left - out, top - out, right + out, top + in, look_.border);
    fill(canvas, left - out, bottom - in, right + out, bottom + out, look_.border);
    fill(canvas, left - out, top - out, left + in, bottom + out, look_.border);
    fill(canvas, right - in, top - out, right + out, bottom + out, look_.border);
  }
}

void PagePainter::draw_line(Canvas& canvas, const Pen& pen, const Text& text, const Line& line) const {
  const Atlas& atlas = pen.atlas();
  walk_line(pen, text, line, canvas.order, [&](Fixed x, int32_t glyph) {
    blend(canvas, atlas, atlas.bitmap(glyph, x), floor_px(x), static_cast<int32_t>(line.baseline), look_.text[atlas.ink(glyph)]);
  });
}

void PagePainter::fill(Canvas& canvas, int32_t left, int32_t top, int32_t right, int32_t bottom, const Ink& ink) const {
  left = std::clamp(left, 0, look_.width);
  right = std::clamp(right, left, look_.width);
  for (int32_t y = std::max(0, top); y < std::min(bottom, look_.height); ++y)
    for (int32_t p = 0; p < planes_; ++p) std::memset(canvas.planes[p].row(y) + left, ink[p], right - left);
}

void PagePainter::blend(Canvas& canvas, const Atlas& atlas, const GlyphBitmap& bitmap, int32_t x, int32_t baseline, const Ink& ink) const {
  const uint8_t* coverage = atlas.coverage(bitmap);
  const int32_t x0 = x + bitmap.left, y0 = baseline - bitmap.top;
  const int32_t first_column = std::max(0, -x0), last_column = std::min(bitmap.width, look_.width - x0);
  const int32_t first_row = std::max(0, -y0), last_row = std::min(bitmap.height, look_.height - y0);
  const bool inside = first_column == 0 && last_column == bitmap.width && first_row == 0 && last_row == bitmap.height;
  for (int32_t p = 0; p < planes_; ++p) {
    Plane& plane = canvas.planes[p];
    const uint8_t level = ink[p];  // a copy, which pixels written below cannot alias
    if (inside) {  // whole vectors may run over into the slack behind the rows
      loops_.blend(plane.row(y0) + x0, plane.stride, coverage, bitmap.stride, bitmap.height, level);
      continue;
    }
    for (int32_t r = first_row; r < last_row; ++r) {
      const uint8_t* from = coverage + static_cast<int64_t>(r) * bitmap.stride;
      uint8_t* to = plane.row(y0 + r) + x0;
      for (int32_t c = first_column; c < last_column; ++c) to[c] = blended(to[c], from[c], level);
    }
  }
}

}  // namespace glyph_rt
