// Lines to pixels, written straight in the order the vision encoder reads.
#pragma once

#include <cstdint>
#include <vector>

#include "atlas.h"
#include "line_breaker.h"

namespace glyph_rt {

constexpr int32_t kPatch = 14;               // px: Glm4vVisionConfig.patch_size
constexpr int32_t kMerge = 2;                // patches: Glm4vVisionConfig.spatial_merge_size
constexpr int32_t kBlock = kPatch * kMerge;  // px: one visual token
constexpr int32_t kPatchBytes = kPatch * kPatch;

// Where the lines of a page stand, in px.
struct PageGeometry {
  int32_t width;          // multiple of kBlock
  int32_t height;         // multiple of kBlock
  int32_t margin_x;
  int32_t margin_y;
  int32_t line_height;
  int32_t first_baseline;  // from the top margin to the first baseline
};

// Paints pages of one geometry. Pixels are *ink*: 255 - grey, so blank paper is 0. Patches come in merge-block order
// (block row, block column, row in block, column in block), 196 bytes each, rows first.
class PagePainter {
 public:
  PagePainter(PageGeometry geometry);  // throws std::invalid_argument unless both sides are positive multiples of 28
  int64_t page_bytes() const { return static_cast<int64_t>(geometry_.width) * geometry_.height; }
  int32_t rows() const;  // lines that fit on a page

  // Adds `count` lines from the top of the page into `page` (page_bytes() bytes, zeroed by the caller).
  void paint(const Atlas& atlas, const Pen& pen, const uint32_t* text, const Line* lines, int32_t count,
             uint8_t* page) const;

 private:
  void blend(const Atlas& atlas, const GlyphBitmap& bitmap, int32_t x, int32_t baseline, uint8_t* page) const;

  PageGeometry geometry_;
  std::vector<int32_t> column_;  // px x -> byte offset of the column
  std::vector<int32_t> row_;     // px y -> byte offset of the row; the two add up to the pixel's address
};

}  // namespace glyph_rt
