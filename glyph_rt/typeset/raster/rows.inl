// The loops of rows.h, once for every instruction set: rows.cpp includes this text in namespaces that have vectors of their own. No
// header may be included here, and nothing of the standard library used: such code would be shared with machines that cannot run it.

inline uint64_t load(const uint8_t* from) {
  uint64_t bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  return bytes;
}

// kTaps known to the compiler unroll the loop; 0: as many as `taps` says.
template <int32_t kTaps>
inline void across_chunk(uint8_t* out, const uint8_t* in, const ChunkWeights* weights, int32_t taps) {
  Sums sums;
  for (int32_t k = 0; k < (kTaps ? kTaps : taps); ++k) sums.add(in + k, weights[k]);
  sums.put(out);
}

template <int32_t kTaps>
inline void down_chunk(uint8_t* out, const uint8_t* const* rows, int32_t at, const int32_t* weights, int32_t taps) {
  Sums sums;
  for (int32_t k = 0; k < (kTaps ? kTaps : taps); ++k) sums.add(rows[k] + at, weights[k]);
  sums.put(out);
}

bool across(uint8_t* out, const uint8_t* row, const Chunk* chunks, size_t count, const ChunkWeights* weights) {
  for (size_t c = 0; c < count; ++c) {
    const Chunk& chunk = chunks[c];
    const ChunkWeights* own = weights + chunk.weights;
    if (chunk.taps == 4) across_chunk<4>(out + chunk.at, row + chunk.from, own, 4);
    else if (chunk.taps == 6) across_chunk<6>(out + chunk.at, row + chunk.from, own, 6);
    else across_chunk<0>(out + chunk.at, row + chunk.from, own, chunk.taps);
  }
  uint64_t any = 0;
  for (size_t at = 0; at < count * kChunk; at += 8) any |= load(out + at);
  return any != 0;
}

void down(uint8_t* out, const uint8_t* const* rows, const int32_t* weights, int32_t taps, int32_t width) {
  if (taps == 4)
    for (int32_t at = 0; at < width; at += kChunk) down_chunk<4>(out + at, rows, at, weights, 4);
  else
    for (int32_t at = 0; at < width; at += kChunk) down_chunk<0>(out + at, rows, at, weights, taps);
}

void blend(uint8_t* pixels, int64_t pixel_stride, const uint8_t* coverage, int32_t coverage_stride, int32_t height, uint8_t ink) {
  const Blend lay(ink);
  for (int32_t column = 0; column < coverage_stride; column += kLanes) {
    uint8_t* to = pixels + column;
    const uint8_t* from = coverage + column;
    int32_t row = 0;
    for (; row + 2 <= height; row += 2, to += 2 * pixel_stride, from += 2 * coverage_stride) lay.pair(to, to + pixel_stride, from, from + coverage_stride);
    if (row < height) lay.one(to, from);
  }
}

constexpr RowLoops kLoops{GLYPH_RT_LOOPS, across, down, blend};
