#include <algorithm>
#include <iterator>

#include "lines.h"

namespace glyph_rt {

namespace {
// Kinsoku: what may not start or end a line (JIS X 4051 and GB/T 15834: closing and opening punctuation, small kana, marks).
constexpr uint32_t kNoStart[] = {
    0x21,   0x22,   0x27,   0x29,   0x2C,   0x2E,   0x3A,   0x3B,   0x3F,   0x5D,   0x7D,   0xB0,   0xB7,   0x2010, 0x2013,
    0x2014, 0x2015, 0x2019, 0x201D, 0x2026, 0x2030, 0x2032, 0x2033, 0x2103, 0x3001, 0x3002, 0x3005, 0x3009, 0x300B, 0x300D,
    0x300F, 0x3011, 0x3015, 0x3017, 0x3041, 0x3043, 0x3045, 0x3047, 0x3049, 0x3063, 0x3083, 0x3085, 0x3087, 0x308E, 0x309B,
    0x309C, 0x309D, 0x309E, 0x30A1, 0x30A3, 0x30A5, 0x30A7, 0x30A9, 0x30C3, 0x30E3, 0x30E5, 0x30E7, 0x30EE, 0x30F5, 0x30F6,
    0x30FB, 0x30FC, 0x30FD, 0x30FE, 0xFF01, 0xFF05, 0xFF09, 0xFF0C, 0xFF0E, 0xFF1A, 0xFF1B, 0xFF1F, 0xFF3D, 0xFF5D, 0xFF61,
    0xFF63, 0xFF64, 0xFFE0};
constexpr uint32_t kNoEnd[] = {0x23,   0x24,   0x28,   0x40,   0x5B,   0x7B,   0xA3,   0xA5,   0xA7,   0x2018, 0x201C,
                               0x3008, 0x300A, 0x300C, 0x300E, 0x3010, 0x3012, 0x3014, 0x3016, 0xFF04, 0xFF08, 0xFF20,
                               0xFF3B, 0xFF5B, 0xFF62, 0xFFE1, 0xFFE5};

template <size_t N>
bool contains(const uint32_t (&sorted)[N], uint32_t c) {
  return std::binary_search(std::begin(sorted), std::end(sorted), c);
}
}  // namespace

bool is_ideographic(uint32_t c) {
  if (c < 0x2E80) return false;
  return c <= 0xA4CF || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE4F) || (c >= 0xFF01 && c <= 0xFFEF) ||
         (c >= 0x1F000 && c <= 0x1FAFF) || (c >= 0x20000 && c <= 0x3FFFF);
}

bool cannot_start_line(uint32_t c) { return contains(kNoStart, c); }

bool cannot_end_line(uint32_t c) { return contains(kNoEnd, c); }

void visual_order(const Text& text, int64_t start, int64_t end, std::vector<int32_t>& order) {
  order.clear();
  for (int64_t i = start; i < end; ++i) order.push_back(static_cast<int32_t>(i));
  if (text.levels == nullptr) return;
  const auto level = [&](int32_t i) { return text.levels[i] & 0x7F; };
  int highest = 0, lowest_odd = 127;
  for (const int32_t i : order) {
    highest = std::max(highest, level(i));
    if (level(i) & 1) lowest_odd = std::min(lowest_odd, level(i));
  }
  for (int reverse = highest; reverse >= lowest_odd; --reverse) {
    for (size_t i = 0; i < order.size();) {
      if (level(order[i]) < reverse) { ++i; continue; }
      size_t j = i;
      while (j < order.size() && level(order[j]) >= reverse) ++j;
      std::reverse(order.begin() + static_cast<int64_t>(i), order.begin() + static_cast<int64_t>(j));
      i = j;
    }
  }
}

}  // namespace glyph_rt
