// The layers of transformers' Glm4v text model for the rows of a step, as decoder.py computes them, in one call.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "attention.h"

namespace glyph_rt {

// y = x w^T + bias; w is [out, in], in floats or in halves; bias may be null.
struct Linear {
  std::variant<const float*, const Half*> weight;
  const float* bias;
  int64_t in, out;

  // x [rows, in] to y [rows, out].
  void run(float* y, const float* x, int64_t rows) const;
};

struct Layer {
  Linear qkv, out, gate_up, down;
  const float *before_attention, *after_attention, *before_mlp, *after_mlp;  // of norms, [hidden]
};

struct Shape {
  int64_t hidden, heads, kv_heads, head_dim, mlp;
  float eps;
};

// Rows [start, stop) of a step, which all see the whole memory.
struct Shared {
  const Memory* memory;
  int64_t start, stop;
};

// Rows [start, stop) of a step, whose keys and values go behind the first `length` tokens of their tail. A row sees these, and its span's
// rows up to itself.
struct Span {
  const Memory* tail;
  int64_t length, start, stop;
};

// rope positions [3, rows]: of time, height and width.
struct Positions {
  const int64_t* at;
  int64_t of_axis, of_row;
};

class Decoder {
 public:
  // frequencies: by how much a position turns each pair of a head, [head_dim / 2]; axes: which of a token's positions does.
  Decoder(const Shape& shape, std::vector<Layer> layers, const float* norm, std::vector<float> frequencies, std::vector<int64_t> axes);

  // x [rows, hidden] from embeddings to hidden states, in place. Spans cover the rows in order. What a row sees, it sees in the order of
  // `shared`, and its own tail last. Raises std::bad_alloc, and has then changed x at most.
  void forward(float* x, int64_t rows, const Positions& positions, const std::vector<Shared>& shared, const std::vector<Span>& spans) const;

  const Shape& shape() const { return shape_; }
  size_t layers() const { return layers_.size(); }

 private:
  struct Turn {
    float cos, sin;
  };

  void turn(Turn* turns, int64_t rows, const Positions& positions) const;
  void rotate(float* to, const float* from, const Turn* turns, float scale) const;
  void place(const float* qkv, const Turn* turns, int64_t layer, const std::vector<Span>& spans, Attention& attention) const;

  Shape shape_;
  std::vector<Layer> layers_;
  const float* norm_;
  std::vector<float> frequencies_;
  std::vector<int64_t> axes_;
};

}  // namespace glyph_rt
