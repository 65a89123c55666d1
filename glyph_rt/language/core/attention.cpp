#include "attention.h"

#include <algorithm>
#include <limits>

namespace glyph_rt {

namespace {

// Keys of a block, and queries that go over it at a time: of 64 numbers each, 16 KiB and 8 KiB; with their scores, another 8 KiB, they fit
// a first-level cache.
constexpr int64_t kTokens = 64, kQueries = 32;

}  // namespace

Attention::Attention(int64_t rows, int64_t kv_heads, int64_t packed, int64_t dim)
    : loops_(loops()), rows_(rows), kv_heads_(kv_heads), packed_(packed), dim_(dim), queries_(rows * kv_heads * packed * dim),
      mixed_(queries_.size()), most_(rows * kv_heads * packed), total_(most_.size()), scores_(kTokens * kQueries) {}

void Attention::start() {
  std::fill(mixed_.begin(), mixed_.end(), 0.0F);
  std::fill(most_.begin(), most_.end(), -std::numeric_limits<float>::infinity());
  std::fill(total_.begin(), total_.end(), 0.0F);
}

void Attention::see(const Memory& memory, int64_t tokens, int64_t layer, int64_t start, int64_t stop) {
  for (int64_t head = 0; head < kv_heads_; ++head) {
    const float *keys = memory.at(layer, 0, head), *values = memory.at(layer, 1, head);
    const int64_t first = place(head, start), last = place(head, stop);
    for (int64_t token = 0; token < tokens; token += kTokens) {
      const int64_t count = std::min(kTokens, tokens - token);
      for (int64_t query = first; query < last; query += kQueries) {
        const int64_t queries = std::min(kQueries, last - query);
        float* mixed = mixed_.data() + query * dim_;
        loops_.product(scores_.data(), kTokens, queries_.data() + query * dim_, queries, keys + token * dim_, nullptr, dim_, count);
        for (int64_t q = 0; q < queries; ++q)
          loops_.soften(scores_.data() + q * kTokens, count, &most_[query + q], &total_[query + q], mixed + q * dim_, dim_);
        loops_.mix(mixed, scores_.data(), kTokens, queries, values + token * dim_, count, dim_);
      }
    }
  }
}

void Attention::finish(float* out) const {
  for (int64_t row = 0; row < rows_; ++row)
    for (int64_t head = 0; head < kv_heads_; ++head)
      for (int64_t q = place(head, row); q < place(head, row) + packed_; ++q, out += dim_)
        for (int64_t i = 0; i < dim_; ++i) out[i] = mixed_[q * dim_ + i] / total_[q];
}

}  // namespace glyph_rt
