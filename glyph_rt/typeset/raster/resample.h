// Bicubic resampling of one plane of bytes, equal to Pillow's Image.resize(..., BICUBIC): the image processor of the model family
// resizes every page with it, so pages that are to look as in training have to go through the same arithmetic.
#pragma once

#include <cstdint>
#include <vector>

namespace glyph_rt {

struct Plane {
  int32_t width = 0;
  int32_t height = 0;
  std::vector<uint8_t> pixels;  // [height, width]

  uint8_t* row(int32_t y) { return pixels.data() + static_cast<int64_t>(y) * width; }
  const uint8_t* row(int32_t y) const { return pixels.data() + static_cast<int64_t>(y) * width; }
};

// The left upper `width` x `height` px of `in`, scaled to `to_width` x `to_height`. `out` and `scratch` are reused between calls.
void resample(const Plane& in, int32_t width, int32_t height, int32_t to_width, int32_t to_height, Plane& scratch, Plane& out);

}  // namespace glyph_rt
