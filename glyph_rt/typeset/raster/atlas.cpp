#include "atlas.h"

#include <algorithm>
#include <stdexcept>

namespace glyph_rt {

Atlas::Atlas(const std::vector<uint32_t>& symbols, std::vector<Fixed> advances, std::vector<uint8_t> inks,
             std::vector<GlyphBitmap> bitmaps, const std::vector<uint8_t>& coverage, int32_t phases, int32_t missing,
             const std::array<int32_t, 2>& visible)
    : advances_(std::move(advances)),
      inks_(std::move(inks)),
      bitmaps_(std::move(bitmaps)),
      phases_(phases),
      missing_(missing) {
  const auto glyphs = static_cast<int64_t>(advances_.size());
  if (phases < 1 || phases > 64) throw std::invalid_argument("phases must be 1 to 64");
  if (static_cast<int64_t>(symbols.size()) != glyphs || static_cast<int64_t>(inks_.size()) != glyphs)
    throw std::invalid_argument("one symbol, one advance and one ink per glyph");
  if (static_cast<int64_t>(bitmaps_.size()) != glyphs * phases) throw std::invalid_argument("one bitmap per glyph and phase");
  if (missing < 0 || missing >= glyphs) throw std::invalid_argument("the missing glyph is not in the atlas");
  for (const Fixed advance : advances_)
    if (advance < 0 || advance > (Fixed{1} << 46)) throw std::invalid_argument("an advance is negative or past 16384 px");
  for (const uint8_t ink : inks_)
    if (ink >= visible.size()) throw std::invalid_argument("there is no such ink");
  for (size_t i = 0; i < bitmaps_.size(); ++i) {
    GlyphBitmap& b = bitmaps_[i];
    const int64_t bytes = static_cast<int64_t>(b.width) * b.height;
    if (b.width < 0 || b.height < 0 || b.offset < 0 || b.offset + bytes > static_cast<int64_t>(coverage.size()))
      throw std::invalid_argument("a bitmap lies outside the coverage buffer");
    b.ink_right = b.left;
    b.ink_bottom = -b.top;
    for (int32_t row = 0; row < b.height; ++row)
      for (int32_t column = 0; column < b.width; ++column)
        if (coverage[b.offset + static_cast<int64_t>(row) * b.width + column] >= visible[inks_[i / phases]]) {
          b.ink_right = std::max(b.ink_right, b.left + column + 1);
          b.ink_bottom = row + 1 - b.top;
        }
    const uint8_t* from = coverage.data() + b.offset;
    b.stride = (b.width + kLanes - 1) / kLanes * kLanes;
    b.offset = static_cast<int64_t>(coverage_.size());
    coverage_.resize(coverage_.size() + static_cast<size_t>(b.stride) * b.height, 0);
    for (int32_t row = 0; row < b.height; ++row) std::copy_n(from + static_cast<int64_t>(row) * b.width, b.width, coverage_.begin() + b.offset + static_cast<int64_t>(row) * b.stride);
  }
  for (int64_t i = 0; i < glyphs; ++i) {
    if (symbols[i] >= kSymbols) throw std::invalid_argument("a symbol is past the last one");
    auto& page = pages_[symbols[i] >> 8];
    if (!page) {
      page = std::make_unique<Page>();
      page->fill(missing);
    }
    (*page)[symbols[i] & 0xFF] = static_cast<int32_t>(i);
  }
  space_ = advances_[glyph(kSpace)];
}

}  // namespace glyph_rt
