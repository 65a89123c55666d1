#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace glyph_rt {

void Linear::run(float* y, const float* x, int64_t rows) const {
  if (const auto* halves = std::get_if<const Half*>(&weight))
    loops().product_of_halves(y, out, x, rows, *halves, bias, in, out);
  else
    loops().product(y, out, x, rows, std::get<const float*>(weight), bias, in, out);
}

Decoder::Decoder(const Shape& shape, std::vector<Layer> layers, const float* norm, std::vector<float> frequencies, std::vector<int64_t> axes)
    : shape_(shape), layers_(std::move(layers)), norm_(norm), frequencies_(std::move(frequencies)), axes_(std::move(axes)) {}

void Decoder::forward(float* x, int64_t rows, const Positions& positions, const std::vector<Shared>& shared, const std::vector<Span>& spans) const {
  const Loops& loops = glyph_rt::loops();
  const auto& [hidden, heads, kv_heads, head_dim, mlp, eps] = shape_;
  const int64_t mixed_width = heads * head_dim, qkv_width = mixed_width + 2 * kv_heads * head_dim;
  std::vector<float> scratch(rows * (hidden + std::max(qkv_width, 2 * mlp) + mixed_width));
  std::vector<Turn> turns(rows * frequencies_.size());
  Attention attention(rows, kv_heads, heads / kv_heads, head_dim);
  float* const normed = scratch.data();  // [rows, hidden]
  float* const wide = normed + rows * hidden;  // [rows, qkv_width] or [rows, 2 * mlp]
  float* const mixed = wide + rows * std::max(qkv_width, 2 * mlp);  // [rows, mixed_width]
  const auto norm = [&, eps = eps](float* y, const float* from, const float* weight, bool added) {
    for (int64_t row = 0; row < rows; ++row) loops.norm(y + row * shape_.hidden, from + row * shape_.hidden, weight, shape_.hidden, eps, added);
  };

  turn(turns.data(), rows, positions);
  for (size_t index = 0; index < layers_.size(); ++index) {
    const Layer& layer = layers_[index];
    const auto n = static_cast<int64_t>(index);
    norm(normed, x, layer.before_attention, false);
    layer.qkv.run(wide, normed, rows);
    place(wide, turns.data(), n, spans, attention);
    attention.start();
    for (const Shared& each : shared) attention.see(*each.memory, each.memory->tokens, n, each.start, each.stop);
    for (const Span& span : spans)
      for (int64_t row = span.start; row < span.stop; ++row) attention.see(*span.tail, span.length + row - span.start + 1, n, row, row + 1);
    attention.finish(mixed);
    layer.out.run(normed, mixed, rows);
    norm(x, normed, layer.after_attention, true);
    norm(normed, x, layer.before_mlp, false);
    layer.gate_up.run(wide, normed, rows);
    for (int64_t row = 0; row < rows; ++row) {
      float* gate = wide + row * 2 * mlp;
      loops.gate(wide + row * mlp, gate, gate + mlp, mlp);  // to where rows before had theirs
    }
    layer.down.run(normed, wide, rows);
    norm(x, normed, layer.after_mlp, true);
  }
  norm(x, x, norm_, false);
}

void Decoder::turn(Turn* turns, int64_t rows, const Positions& positions) const {
  for (int64_t row = 0; row < rows; ++row)
    for (size_t pair = 0; pair < frequencies_.size(); ++pair) {
      const int64_t at = positions.at[axes_[pair] * positions.of_axis + row * positions.of_row];
      const float angle = static_cast<float>(at) * frequencies_[pair];
      *turns++ = {std::cos(angle), std::sin(angle)};
    }
}

// One head: neighbours form a pair, which turns.
void Decoder::rotate(float* to, const float* from, const Turn* turns, float scale) const {
  for (size_t pair = 0; pair < frequencies_.size(); ++pair) {
    const auto [cos, sin] = turns[pair];
    const float a = from[2 * pair], b = from[2 * pair + 1];
    to[2 * pair] = (a * cos - b * sin) * scale;
    to[2 * pair + 1] = (a * sin + b * cos) * scale;
  }
}

// Queries, turned and scaled, to the attention; keys, turned, and values to the tails.
void Decoder::place(const float* qkv, const Turn* turns, int64_t layer, const std::vector<Span>& spans, Attention& attention) const {
  const int64_t dim = shape_.head_dim, packed = shape_.heads / shape_.kv_heads;
  const float scale = 1 / std::sqrt(static_cast<float>(dim));
  for (const Span& span : spans)
    for (int64_t row = span.start; row < span.stop; ++row, turns += frequencies_.size()) {
      for (int64_t head = 0; head < shape_.heads; ++head, qkv += dim)
        rotate(attention.query(head / packed, row) + head % packed * dim, qkv, turns, scale);
      const int64_t token = (span.length + row - span.start) * dim;
      for (int64_t head = 0; head < shape_.kv_heads; ++head, qkv += dim) rotate(span.tail->at(layer, 0, head) + token, qkv, turns, 1);
      for (int64_t head = 0; head < shape_.kv_heads; ++head, qkv += dim) std::copy_n(qkv, dim, span.tail->at(layer, 1, head) + token);
    }
}

}  // namespace glyph_rt
