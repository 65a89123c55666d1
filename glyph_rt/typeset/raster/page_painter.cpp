#include "page_painter.h"

#include <algorithm>
#include <stdexcept>

namespace glyph_rt {

PagePainter::PagePainter(PageGeometry geometry) : geometry_(geometry) {
  const auto bad_side = [](int32_t px) { return px <= 0 || px % kBlock != 0 || px > 28 * 1024; };
  if (bad_side(geometry.width) || bad_side(geometry.height))
    throw std::invalid_argument("page width and height must be positive multiples of 28 px, at most 28672");
  if (geometry.line_height < 1) throw std::invalid_argument("line height must be at least 1 px");
  column_.resize(geometry.width);
  row_.resize(geometry.height);
  for (int32_t x = 0; x < geometry.width; ++x)
    column_[x] = (x / kBlock) * kMerge * kMerge * kPatchBytes + (x / kPatch % kMerge) * kPatchBytes + x % kPatch;
  const int32_t block_row_bytes = geometry.width / kBlock * kMerge * kMerge * kPatchBytes;
  for (int32_t y = 0; y < geometry.height; ++y)
    row_[y] = (y / kBlock) * block_row_bytes + (y / kPatch % kMerge) * kMerge * kPatchBytes + (y % kPatch) * kPatch;
}

int32_t PagePainter::rows() const {
  return std::max(0, (geometry_.height - 2 * geometry_.margin_y) / geometry_.line_height);
}

void PagePainter::paint(const Atlas& atlas, const Pen& pen, const uint32_t* text, const Line* lines, int32_t count,
                        uint8_t* page) const {
  const int32_t phase_width = kOnePixel / atlas.phases();
  for (int32_t n = 0; n < count; ++n) {
    const int32_t baseline = geometry_.margin_y + n * geometry_.line_height + geometry_.first_baseline;
    int32_t x = 0;
    for (int32_t i = lines[n].start; i < lines[n].end; ++i) {
      const uint32_t c = text[i];
      if (has_ink(c)) {
        // The pen is quantised down to a phase, as poppler does (quarter pixels when the atlas has four phases).
        blend(atlas, atlas.bitmap(atlas.glyph(c), x % kOnePixel / phase_width), geometry_.margin_x + x / kOnePixel,
              baseline, page);
      }
      x += pen.advance(c, x);
    }
  }
}

void PagePainter::blend(const Atlas& atlas, const GlyphBitmap& bitmap, int32_t x, int32_t baseline,
                        uint8_t* page) const {
  const uint8_t* coverage = atlas.coverage(bitmap);
  const int32_t x0 = x + bitmap.left, y0 = baseline - bitmap.top;
  const int32_t first_column = std::max(0, -x0), last_column = std::min(bitmap.width, geometry_.width - x0);
  const int32_t first_row = std::max(0, -y0), last_row = std::min(bitmap.height, geometry_.height - y0);
  for (int32_t r = first_row; r < last_row; ++r) {
    uint8_t* row = page + row_[y0 + r];
    for (int32_t c = first_column; c < last_column; ++c) {
      const uint32_t alpha = coverage[r * bitmap.width + c];
      uint8_t& ink = row[column_[x0 + c]];
      ink = static_cast<uint8_t>(ink + (alpha * (255u - ink) + 127u) / 255u);  // black over what is there
    }
  }
}

}  // namespace glyph_rt
