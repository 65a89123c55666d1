// The glyph atlas: coverage bitmaps and advances of one font at one size, looked up by code point.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace glyph_rt {

// Horizontal distances are 26.6 fixed point, the unit FreeType uses: 64 is one pixel.
constexpr int32_t kOnePixel = 64;

// One bitmap of one glyph, for one horizontal sub-pixel phase.
struct GlyphBitmap {
  int32_t left;    // px from the pen position to the first column
  int32_t top;     // px from the baseline up to the first row
  int32_t width;   // px
  int32_t height;  // px
  int64_t offset;  // of the first coverage byte in Atlas::coverage
};

// Immutable once built, so any number of threads may read it without a lock. Covering more code points means building
// another atlas (GlyphAtlas.cover in glyphs.py does that).
class Atlas {
 public:
  // codepoints[i] is drawn by glyph i; bitmaps holds `phases` entries per glyph. `missing` is the glyph drawn for every
  // code point that is not listed. Throws std::invalid_argument when the tables do not fit together.
  Atlas(std::vector<uint32_t> codepoints, std::vector<int32_t> advances, std::vector<GlyphBitmap> bitmaps,
        std::vector<uint8_t> coverage, int32_t phases, int32_t missing);

  int32_t glyph(uint32_t codepoint) const {
    if (codepoint < kDirect) return direct_[codepoint];
    const auto found = rest_.find(codepoint);
    return found == rest_.end() ? missing_ : found->second;
  }
  int32_t advance(int32_t glyph) const { return advances_[glyph]; }
  const GlyphBitmap& bitmap(int32_t glyph, int32_t phase) const { return bitmaps_[glyph * phases_ + phase]; }
  const uint8_t* coverage(const GlyphBitmap& bitmap) const { return coverage_.data() + bitmap.offset; }
  int32_t phases() const { return phases_; }
  int32_t missing() const { return missing_; }

 private:
  static constexpr uint32_t kDirect = 0x800;  // two-byte UTF-8: Latin, Greek, Cyrillic, Hebrew, Arabic

  std::array<int32_t, kDirect> direct_;
  std::unordered_map<uint32_t, int32_t> rest_;
  std::vector<int32_t> advances_;
  std::vector<GlyphBitmap> bitmaps_;
  std::vector<uint8_t> coverage_;
  int32_t phases_;
  int32_t missing_;
};

}  // namespace glyph_rt
