// The inner loops of a decode step, in one version for each instruction set; the widest that this machine has is chosen at load.
//
// All numbers are fp32. What a loop computes for one row is the same, bit for bit, whichever rows it is given beside it: every sum of a
// row goes over its terms in an order that depends on their number alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace glyph_rt {

using Half = uint16_t;  // the upper half of a float whose lower half is zero: bfloat16

struct Loops {
  const char* name;
  // y[r * y_stride + o] = the sum over k < in of x[r * in + k] * w[o * in + k], plus bias[o] unless bias is null.
  // Each of w's `out` rows is fetched once for all of x's. Bit for bit the same for weights in halves.
  void (*product)(float* y, int64_t y_stride, const float* x, int64_t rows, const float* w, const float* bias, int64_t in, int64_t out);
  void (*product_of_halves)(float* y, int64_t y_stride, const float* x, int64_t rows, const Half* w, const float* bias, int64_t in, int64_t out);
  // y[r * n + c] += the sum over t < terms of p[r * p_stride + t] * v[t * n + c].
  void (*mix)(float* y, const float* p, int64_t p_stride, int64_t rows, const float* v, int64_t terms, int64_t n);
  // One row's online softmax (arXiv:1805.02867) over n scores more: s becomes exp(s - m), where m is the largest score so far; l, the sum of all exponentials,
  // and y[dim], the sum of values weighted with them, are those of the scores before and are brought to the new m.
  void (*soften)(float* s, int64_t n, float* m, float* l, float* y, int64_t dim);
  // y = x w / sqrt(mean(x^2) + eps), or y += that; y may be x.
  void (*norm)(float* y, const float* x, const float* w, int64_t n, float eps, bool added);
  // y = silu(gate) * up; y may be gate.
  void (*gate)(float* y, const float* gate, const float* up, int64_t n);
};

// The loops for this machine.
const Loops& loops();
// All that this machine can run, the widest first; for tests.
const Loops* const* all_loops(size_t& count);

}  // namespace glyph_rt
