// The glyph atlas: coverage bitmaps and advances at one size, looked up by symbol.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "rows.h"
#include "symbols.h"

namespace glyph_rt {

// Horizontal distances are fixed point with 32 fractional bits: sums do not depend on their order, and a line of a thousand
// glyphs is off by less than a millionth of a pixel, so line breaks equal those computed with real numbers.
using Fixed = int64_t;
constexpr Fixed kOnePixel = Fixed{1} << 32;

inline int32_t floor_px(Fixed x) { return static_cast<int32_t>(x >> 32); }

// One bitmap of one glyph, for one horizontal sub-pixel phase.
struct GlyphBitmap {
  int32_t left;    // px from the pen position to the first column
  int32_t top;     // px from the baseline up to the first row
  int32_t width;   // px
  int32_t height;  // px
  int64_t offset;  // of the first coverage byte; rows are `stride` bytes apart
  int32_t stride;  // width rounded up to kLanes, the rest of a row being 0
  int32_t ink_right;   // px from the pen position to behind the last column that is visibly inked
  int32_t ink_bottom;  // px from the baseline down to below the last row that is
};

// Immutable once built, so any number of threads may read it without a lock. Covering more symbols means building another
// atlas (GlyphAtlas.cover in glyphs.py does that).
class Atlas {
 public:
  // symbols[i] is drawn by glyph i, in ink `inks[i]` (0: the text's, 1: the newline mark's); bitmaps holds `phases` entries per
  // glyph. `missing` is drawn for every symbol that is not listed. visible[ink] is the least coverage that counts as ink where pages
  // are cropped. Throws std::invalid_argument when the tables do not fit.
  Atlas(const std::vector<uint32_t>& symbols, std::vector<Fixed> advances, std::vector<uint8_t> inks,
        std::vector<GlyphBitmap> bitmaps, const std::vector<uint8_t>& coverage, int32_t phases, int32_t missing,
        const std::array<int32_t, 2>& visible);

  int32_t glyph(uint32_t symbol) const {
    const auto& page = pages_[symbol >> 8];
    return page ? (*page)[symbol & 0xFF] : missing_;
  }
  Fixed advance(int32_t glyph) const { return advances_[glyph]; }
  uint8_t ink(int32_t glyph) const { return inks_[glyph]; }
  // The pen is quantised down to a phase, as poppler does (quarter pixels when there are four).
  const GlyphBitmap& bitmap(int32_t glyph, Fixed pen) const {
    return bitmaps_[glyph * phases_ + static_cast<int32_t>((pen & (kOnePixel - 1)) * phases_ >> 32)];
  }
  const uint8_t* coverage(const GlyphBitmap& bitmap) const { return coverage_.data() + bitmap.offset; }
  Fixed space() const { return space_; }  // advance of a space

 private:
  using Page = std::array<int32_t, 256>;

  std::array<std::unique_ptr<Page>, (kSymbols >> 8)> pages_;
  std::vector<Fixed> advances_;
  std::vector<uint8_t> inks_;
  std::vector<GlyphBitmap> bitmaps_;
  std::vector<uint8_t> coverage_;
  int32_t phases_;
  int32_t missing_;
  Fixed space_;
};

// The pen, shared by breaking and painting, so that both agree on every position.
class Pen {
 public:
  Pen(const Atlas& atlas, int32_t tab_columns) : atlas_(atlas), tab_stop_(tab_columns * atlas.space()) {}
  // From pen position x, relative to the line's start.
  Fixed advance(uint32_t symbol, Fixed x) const {
    if (symbol == kSkip || symbol == kNewline) return 0;
    if (symbol == kSpace || symbol == kFixedSpace) return atlas_.space();
    if (symbol == kTab) return tab_stop_ > 0 ? tab_stop_ - x % tab_stop_ : 0;
    return atlas_.advance(atlas_.glyph(symbol));
  }
  const Atlas& atlas() const { return atlas_; }

 private:
  const Atlas& atlas_;
  Fixed tab_stop_;
};

// A pen on its way along a line. Spaces are stretched from the first ink on. A newline mark stands between two spaces of its own,
// which fall together with those of its neighbours.
class Walk {
 public:
  Walk(const Pen& pen, Fixed stretch) : pen_(&pen), stretch_(stretch) {}
  // Where `symbol` is drawn.
  Fixed reach(uint32_t symbol) {
    if (symbol == kNewlineMark && before_ != kNewlineMark && !is_space(before_)) x_ += pen_->atlas().space() + stretch_;
    return x_;
  }
  void pass(uint32_t symbol) {
    if (is_plain(symbol)) {
      pass_plain(symbol, pen_->atlas().glyph(symbol));
      return;
    }
    if (symbol == kFixedSpace || (symbol == kSpace && inked_)) x_ += stretch_;
    inked_ = inked_ || has_ink(symbol);
    x_ += pen_->advance(symbol, x_);
    if (symbol == kNewlineMark) x_ += pen_->atlas().space() + stretch_;
    if (symbol != kSkip) before_ = symbol;
  }
  Fixed x() const { return x_; }

  // Reaches and passes `symbol`: calls draw(x, glyph) with where it is drawn, if it has ink.
  template <typename Draw>
  void step(uint32_t symbol, const Draw& draw) {
    if (is_plain(symbol)) {
      const int32_t glyph = pen_->atlas().glyph(symbol);  // one look into the atlas is enough
      draw(x_, glyph);
      pass_plain(symbol, glyph);
      return;
    }
    const Fixed x = reach(symbol);
    if (has_ink(symbol)) draw(x, pen_->atlas().glyph(symbol));
    pass(symbol);
  }

 private:
  // Nearly all of a text.
  static bool is_plain(uint32_t symbol) { return symbol > kSpace && symbol < kSkip; }
  void pass_plain(uint32_t symbol, int32_t glyph) {
    x_ += pen_->atlas().advance(glyph);
    inked_ = true;
    before_ = symbol;
  }

  const Pen* pen_;
  Fixed stretch_;
  Fixed x_ = 0;
  bool inked_ = false;
  uint32_t before_ = kSpace;
};

}  // namespace glyph_rt
