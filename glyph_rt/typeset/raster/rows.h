// The inner loops, over rows of bytes, in one version for each instruction set; the widest that this machine has is chosen at load.
#pragma once

#include <cstddef>
#include <cstdint>

namespace glyph_rt {

constexpr int kWeightBits = 32 - 8 - 2;  // fractional bits of a resampling weight, as in Pillow's Resample.c
constexpr int32_t kChunk = 16;           // outputs that are resampled at a time
constexpr int32_t kLanes = 8;            // pixels that are blended at a time

// Outputs `at` to `at + kChunk` of a row: output at + i is the sum over k < taps of weights[k][i] * in[from + i + k]. What it reads may
// lie up to kChunk bytes outside of the row, where weights are 0.
struct Chunk {
  int32_t at;
  int32_t from;
  int32_t taps;
  int32_t weights;  // where its `taps` ChunkWeights start
};

// One tap of a chunk; aligned, so that no load of it touches two cache lines.
struct alignas(64) ChunkWeights {
  int32_t of[kChunk];
};

// round(alpha * ink / 255 + (1 - alpha / 255) * under): exact in 16 bits, since no quotient by 255 ends in one half.
inline uint8_t blended(uint8_t under, uint8_t alpha, uint16_t ink) {
  const auto sum = static_cast<uint16_t>(alpha * ink + (255 - alpha) * under + 128);
  return static_cast<uint8_t>((sum + (sum >> 8)) >> 8);
}

struct RowLoops {
  const char* name;
  // Resamples one row, chunk by chunk. Whether any output is not 0.
  bool (*across)(uint8_t* out, const uint8_t* row, const Chunk* chunks, size_t count, const ChunkWeights* weights);
  // The sum of `taps` rows times their weights. `width` is rounded up to chunks: as many bytes are read and written.
  void (*down)(uint8_t* out, const uint8_t* const* rows, const int32_t* weights, int32_t taps, int32_t width);
  // Lays `ink` over `height` rows of pixels as the coverage says.
  // Rows are `pixel_stride` and `coverage_stride` bytes apart; the latter is their width, a multiple of kLanes.
  void (*blend)(uint8_t* pixels, int64_t pixel_stride, const uint8_t* coverage, int32_t coverage_stride, int32_t height, uint8_t ink);
};

// The loops for this machine.
const RowLoops& row_loops();
// All that this machine can run, the widest first; for tests.
const RowLoops* const* all_row_loops(size_t& count);

}  // namespace glyph_rt
