#include "atlas.h"

#include <stdexcept>

namespace glyph_rt {

Atlas::Atlas(std::vector<uint32_t> codepoints, std::vector<int32_t> advances, std::vector<GlyphBitmap> bitmaps,
             std::vector<uint8_t> coverage, int32_t phases, int32_t missing)
    : advances_(std::move(advances)),
      bitmaps_(std::move(bitmaps)),
      coverage_(std::move(coverage)),
      phases_(phases),
      missing_(missing) {
  const auto glyphs = static_cast<int64_t>(advances_.size());
  if (phases < 1 || kOnePixel % phases != 0) throw std::invalid_argument("phases must divide 64");
  if (static_cast<int64_t>(codepoints.size()) != glyphs) throw std::invalid_argument("one code point per glyph");
  if (static_cast<int64_t>(bitmaps_.size()) != glyphs * phases) throw std::invalid_argument("one bitmap per glyph and phase");
  if (missing < 0 || missing >= glyphs) throw std::invalid_argument("the missing glyph is not in the atlas");
  for (const GlyphBitmap& b : bitmaps_) {
    const int64_t bytes = static_cast<int64_t>(b.width) * b.height;
    if (b.width < 0 || b.height < 0 || b.offset < 0 || b.offset + bytes > static_cast<int64_t>(coverage_.size()))
      throw std::invalid_argument("a bitmap lies outside the coverage buffer");
  }
  direct_.fill(missing);
  for (int64_t i = 0; i < glyphs; ++i) {
    if (codepoints[i] < kDirect)
      direct_[codepoints[i]] = static_cast<int32_t>(i);
    else
      rest_.emplace(codepoints[i], static_cast<int32_t>(i));
  }
}

}  // namespace glyph_rt
