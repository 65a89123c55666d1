// Bicubic resampling of one plane of bytes, equal to Pillow's Image.resize(..., BICUBIC): the image processor of the model family
// resizes every page with it, so pages that are to look as in training have to go through the same arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "rows.h"

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
    pixels.resize(kSlack + static_cast<size_t>(stride) * h);
  }
  uint8_t* row(int32_t y) { return pixels.data() + kSlack + static_cast<int64_t>(y) * stride; }
  const uint8_t* row(int32_t y) const { return pixels.data() + kSlack + static_cast<int64_t>(y) * stride; }

  static constexpr int32_t kSlack = 32;  // bytes before and behind every row that whole vectors may run over
};

// Scales the left upper part of a plane, row by row: what a row of the output needs is kept in a ring of a few rows that stay in the
// first-level cache, so a page is never written between its two passes. Reused between pages; owned by one thread.
class Resampler {
 public:
  explicit Resampler(const RowLoops& loops = row_loops()) : loops_(&loops) {}
  // Begin with the left upper `width` x `height` px of `in`, to be scaled to `to_width` x `to_height`.
  void start(const Plane& in, int32_t width, int32_t height, int32_t to_width, int32_t to_height);
  // Output row `y`, valid until the next call; asked for from top to bottom. kSlack bytes behind it may be read.
  const uint8_t* row(int32_t y);

 private:
  struct Taps;
  static std::shared_ptr<const Taps> taps_for(int32_t in, int32_t out);

  const RowLoops* loops_;
  const Plane* in_ = nullptr;
  std::shared_ptr<const Taps> across_, down_;
  Plane ring_, out_;
  std::vector<char> inked_;           // whether a row of the ring has any ink
  std::vector<const uint8_t*> rows_;  // of the ring, that the current output row needs
  int32_t filled_ = 0;                // input rows that went into the ring so far
  int32_t mask_ = 0;                  // row y is in slot y & mask_ of the ring
};

}  // namespace glyph_rt
