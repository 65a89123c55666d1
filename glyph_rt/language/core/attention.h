// Exact attention of the rows of a step over the keys and values they see, in one pass: scores are never all in memory, and a block of keys
// and values is read once for all rows and query heads that see it.
#pragma once

#include <cstdint>
#include <vector>

#include "loops.h"

namespace glyph_rt {

// Keys and values of some tokens where they lie: element (layer, keys 0 or values 1, KV head, token, i) is at kv[layer * of_layer +
// which * of_kind + head * of_head + token * dim + i].
struct Memory {
  float* kv;
  int64_t of_layer, of_kind, of_head, tokens;

  float* at(int64_t layer, int64_t which, int64_t head) const { return kv + layer * of_layer + which * of_kind + head * of_head; }
};

class Attention {
 public:
  // packed: query heads that share a KV head.
  Attention(int64_t rows, int64_t kv_heads, int64_t packed, int64_t dim);

  // Where the queries of a row that share a KV head are put: [packed, dim].
  float* query(int64_t kv_head, int64_t row) { return queries_.data() + place(kv_head, row) * dim_; }
  // Before every layer.
  void start();
  // Rows [start, stop) see the first tokens of a memory. A row's bits depend on the order of these calls that are for it.
  void see(const Memory& memory, int64_t tokens, int64_t layer, int64_t start, int64_t stop);
  // What was seen, to out [rows, kv_heads * packed * dim].
  void finish(float* out) const;

 private:
  int64_t place(int64_t kv_head, int64_t row) const { return (kv_head * rows_ + row) * packed_; }

  const Loops& loops_;
  int64_t rows_, kv_heads_, packed_, dim_;
  // Of every query [kv_heads, rows, packed]: itself, and its softmax so far as in Loops::soften.
  std::vector<float> queries_, mixed_, most_, total_, scores_;
};

}  // namespace glyph_rt
