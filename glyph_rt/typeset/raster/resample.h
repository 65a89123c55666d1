// Bicubic resampling of one plane of bytes, equal to Pillow's Image.resize(..., BICUBIC): the image processor of the model family
// resizes every page with it, so pages that are to look as in training have to go through the same arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace glyph_rt {

struct Plane {
  int32_t width = 0;
  int32_t height = 0;
  int32_t stride = 0;           // bytes from one row to the next, at least width
  std::vector<uint8_t> pixels;

  // Room for `w` x `h` px; what is in it is kept if the size stays.
  void shape(int32_t w, int32_t h) {
    width = w;
    height = h;
    stride = w + kSlack;
    pixels.resize(static_cast<size_t>(stride) * h);
  }
  uint8_t* row(int32_t y) { return pixels.data() + static_cast<int64_t>(y) * stride; }
  const uint8_t* row(int32_t y) const { return pixels.data() + static_cast<int64_t>(y) * stride; }

  static constexpr int32_t kSlack = 32;  // bytes behind every row that whole vectors may run over
};

// The left upper `width` x `height` px of `in`, scaled to `to_width` x `to_height`. `out` and `scratch` are reused between calls.
void resample(const Plane& in, int32_t width, int32_t height, int32_t to_width, int32_t to_height, Plane& scratch, Plane& out);

}  // namespace glyph_rt
