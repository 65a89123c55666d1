// Lines to pixels to encoder patches.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "lines.h"
#include "resample.h"

namespace glyph_rt {

constexpr int32_t kPatch = 14;                         // px, side of a patch
constexpr int32_t kMerge = 2;                          // patches along each side of a visual token
constexpr int32_t kBlock = kPatch * kMerge;            // px
constexpr int32_t kPatchBytes = kPatch * kPatch;       // of one plane

using Ink = std::array<uint8_t, 3>;  // 255 - red, green, blue

struct Look {
  int32_t width;         // px, as drawn
  int32_t height;
  int32_t scaled_width;  // px, after the reference's horizontal-scale; equal to width where there is none
  int32_t line_height;   // px, of a paragraph's box
  int32_t ascent;        // px, from the top of a line to its baseline
  int32_t box_left;      // px, of a paragraph's box
  int32_t box_right;
  int32_t box_padding;
  int32_t border_width;
  bool boxes;            // whether paragraphs have a background or a border
  Ink page;
  Ink paragraph;
  Ink border;
  std::array<Ink, 2> text;  // of the text, of newline marks
};

// Where the drawn page ends and how large it leaves: the left upper width x height px scaled to out_width x out_height.
struct Crop {
  int32_t width;
  int32_t height;
  int32_t out_width;   // px, a multiple of 28
  int32_t out_height;
};

// Paints the pages of one look. Immutable: threads may share one.
class PagePainter {
 public:
  explicit PagePainter(const Look& look);

  // Planes needed: 1 when every colour of the look is grey, else 3.
  int32_t planes() const { return planes_; }
  const Look& look() const { return look_; }

  // Draws `lines` and writes patches in merge-block order to `out`, [tokens * 4, planes * 196], planes innermost but one: red, green,
  // blue of a patch follow each other. Returns whether the page came out grey, in which case only the first plane was written, as
  // [tokens * 4, 196].
  bool paint(const Pen& pen, const Text& text, const Line* lines, int64_t count, const Crop& crop, uint8_t* out) const;

 private:
  struct Canvas;

  void draw_boxes(Canvas& canvas, const Line* lines, int64_t count, int64_t at) const;
  void draw_line(Canvas& canvas, const Pen& pen, const Text& text, const Line& line) const;
  void fill(Canvas& canvas, int32_t left, int32_t top, int32_t right, int32_t bottom, const Ink& ink) const;
  void blend(Canvas& canvas, const Atlas& atlas, const GlyphBitmap& bitmap, int32_t x, int32_t baseline, const Ink& ink) const;

  const Look look_;
  int32_t planes_;
  const RowLoops& loops_ = row_loops();
};

}  // namespace glyph_rt
