// Symbols: what the typesetter places, one per code point of the text.
//
// A symbol is the code point itself, or one of the values below, or kShaped and above: a cluster that HarfBuzz shaped. The
// first code point of a cluster carries its symbol, the others carry kSkip, so spans of symbols are spans of the text.
#pragma once

#include <cstdint>

namespace glyph_rt {

constexpr uint32_t kSpace = ' ';   // a line may be broken behind it
constexpr uint32_t kTab = '\t';    // advances to the next tab stop; a line may be broken behind it
constexpr uint32_t kNewline = '\n';
constexpr uint32_t kSkip = 0x110000;          // takes no room and draws nothing
constexpr uint32_t kFixedSpace = 0x110001;    // a space inside a word: never a place to break, stretched like a space
constexpr uint32_t kNewlineMark = 0x110002;   // a line end that is drawn as a mark instead of breaking the line
constexpr uint32_t kShaped = 0x110010;
constexpr uint32_t kSymbols = 0x130000;       // all symbols are below

inline bool is_space(uint32_t s) { return s == kSpace || s == kTab; }
inline bool has_ink(uint32_t s) {
  if (s > kSpace && s < kSkip) return true;
  return !is_space(s) && s != kNewline && s != kSkip && s != kFixedSpace;
}

}  // namespace glyph_rt
