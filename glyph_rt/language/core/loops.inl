// The loops of loops.h, once for every instruction set: loops.cpp includes this text in namespaces that have vectors of their own. No
// header may be included here, and nothing of the standard library used: such code would be shared with machines that cannot run it.

constexpr float kInfinity = __builtin_inff();
constexpr int64_t kAhead = 4096;  // bytes of weights that are asked for before they are needed

inline void store(float* to, V v) { __builtin_memcpy(to, &v, sizeof v); }
inline V all(float x) { return V{} + x; }

// Vectors of n < kWidth numbers: the rest is `rest`, or is not written.
template <typename T>
inline V load(const T* from, int64_t n, T rest = 0) {
  T v[kWidth];
  for (int64_t i = 0; i < kWidth; ++i) v[i] = i < n ? from[i] : rest;
  return load(v);
}
inline void store(float* to, V from, int64_t n) {
  float v[kWidth];
  store(v, from);
  for (int64_t i = 0; i < n; ++i) to[i] = v[i];
}

inline float sum(V v) {
  float each[4];
  sums(each, v, v, v, v);
  return each[0];
}
inline float largest(V v) {
  float most = v[0];
  for (int i = 1; i < kWidth; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

// e^x to a unit in the last place, 0 below the smallest normal number, infinity from 2^127.5; NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts and the polynomial for e^r are those of Cephes' expf.
inline V exp(V x) {
  const V highest = all(88.37626F), lowest = all(-87.33654F), shift = all(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  const V in = x > highest ? highest : x < lowest ? lowest : x;
  const V shifted = fused(in, all(1.44269504088896341F), shift), n = shifted - shift;
  const V r = fused(n, all(2.12194440e-4F), fused(n, all(-0.693359375F), in));
  V p = all(1.9875691500e-4F);
  p = fused(p, r, all(1.3981999507e-3F));
  p = fused(p, r, all(8.3334519073e-3F));
  p = fused(p, r, all(4.1665795894e-2F));
  p = fused(p, r, all(1.6666665459e-1F));
  p = fused(p, r, all(5.0000001201e-1F));
  p = fused(p, r * r, r) + all(1.0F);
  I bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + (127 << 23);  // 2^n: what n's bits stand below is shifted out
  V power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return x > highest ? all(kInfinity) : x < lowest ? V{} : p * power;
}

// kOuts rows of w times kRowsNow rows of x. A sum has one vector of partial sums, and so the same order in every instance.
template <int kOuts, int kRowsNow, typename W>
inline void tile(float* y, int64_t y_stride, const float* x, const W* w, const float* bias, int64_t in, int64_t outs) {
  const W* of[kOuts];
  for (int o = 0; o < kOuts; ++o) of[o] = w + (o < outs ? o : outs - 1) * in;
  V partial[kRowsNow][kOuts] = {};
  int64_t k = 0;
  for (; k + kWidth <= in; k += kWidth) {
    V weights[kOuts];
    for (int o = 0; o < kOuts; ++o) {
      weights[o] = load(of[o] + k);
      __builtin_prefetch(of[o] + k + kAhead / sizeof(W));
    }
    for (int r = 0; r < kRowsNow; ++r) {
      const V here = load(x + r * in + k);
      for (int o = 0; o < kOuts; ++o) partial[r][o] = fused(here, weights[o], partial[r][o]);
    }
  }
  if (k < in)
    for (int o = 0; o < kOuts; ++o) {
      const V weights = load(of[o] + k, in - k);
      for (int r = 0; r < kRowsNow; ++r) partial[r][o] = fused(load(x + r * in + k, in - k), weights, partial[r][o]);
    }
  for (int r = 0; r < kRowsNow; ++r) {
    float rest[kOuts], *found = outs == kOuts ? y + r * y_stride : rest;
    for (int o = 0; o < kOuts; o += 4) sums(found + o, partial[r][o], partial[r][o + 1], partial[r][o + 2], partial[r][o + 3]);
    if (bias)
      for (int64_t o = 0; o < outs; ++o) found[o] += bias[o];
    if (outs < kOuts)
      for (int64_t o = 0; o < outs; ++o) y[r * y_stride + o] = rest[o];
  }
}

template <int kRowsNow, typename W>
inline void tile_rows(int64_t rows, float* y, int64_t y_stride, const float* x, const W* w, const float* bias, int64_t in, int64_t outs) {
  if constexpr (kRowsNow > 1)
    if (rows < kRowsNow) return tile_rows<kRowsNow - 1>(rows, y, y_stride, x, w, bias, in, outs);
  tile<4, kRowsNow>(y, y_stride, x, w, bias, in, outs);
}

template <typename W>
void product(float* y, int64_t y_stride, const float* x, int64_t rows, const W* w, const float* bias, int64_t in, int64_t out) {
  for (int64_t o = 0; o < out;) {
    const int64_t most = rows == 1 ? 8 : 4, outs = out - o < most ? out - o : most;
    const float* own = bias ? bias + o : nullptr;
    if (rows == 1)  // more sums at a time, or each would wait for its last addition
      tile<8, 1>(y + o, y_stride, x, w + o * in, own, in, outs);
    else
      for (int64_t r = 0; r < rows; r += kRows) tile_rows<kRows>(rows - r, y + r * y_stride + o, y_stride, x + r * in, w + o * in, own, in, outs);
    o += outs;
  }
}

// kColumns vectors of kRowsNow rows of y; `last`: how many elements of the last vector there are, 0 for all of them.
template <int kColumns, int kRowsNow>
inline void mix_tile(float* y, const float* p, int64_t p_stride, const float* v, int64_t terms, int64_t n, int64_t last) {
  V mixed[kRowsNow][kColumns];
  for (int r = 0; r < kRowsNow; ++r)
    for (int c = 0; c < kColumns; ++c) {
      const float* from = y + r * n + c * kWidth;
      mixed[r][c] = last && c == kColumns - 1 ? load(from, last) : load(from);
    }
  for (int64_t t = 0; t < terms; ++t) {
    V values[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      const float* from = v + t * n + c * kWidth;
      values[c] = last && c == kColumns - 1 ? load(from, last) : load(from);
    }
    for (int r = 0; r < kRowsNow; ++r) {
      const V weight = all(p[r * p_stride + t]);
      for (int c = 0; c < kColumns; ++c) mixed[r][c] = fused(weight, values[c], mixed[r][c]);
    }
  }
  for (int r = 0; r < kRowsNow; ++r)
    for (int c = 0; c < kColumns; ++c) {
      float* to = y + r * n + c * kWidth;
      if (last && c == kColumns - 1) store(to, mixed[r][c], last);
      else store(to, mixed[r][c]);
    }
}

template <int kRowsNow>
inline void mix_rows(int64_t rows, float* y, const float* p, int64_t p_stride, const float* v, int64_t terms, int64_t n) {
  if constexpr (kRowsNow > 1)
    if (rows < kRowsNow) return mix_rows<kRowsNow - 1>(rows, y, p, p_stride, v, terms, n);
  int64_t c = 0;
  for (; c + 4 * kWidth <= n; c += 4 * kWidth) mix_tile<4, kRowsNow>(y + c, p, p_stride, v + c, terms, n, 0);
  for (; c + kWidth <= n; c += kWidth) mix_tile<1, kRowsNow>(y + c, p, p_stride, v + c, terms, n, 0);
  if (c < n) mix_tile<1, kRowsNow>(y + c, p, p_stride, v + c, terms, n, n - c);
}

void mix(float* y, const float* p, int64_t p_stride, int64_t rows, const float* v, int64_t terms, int64_t n) {
  for (int64_t r = 0; r < rows; r += kRows) mix_rows<kRows>(rows - r, y + r * n, p + r * p_stride, p_stride, v, terms, n);
}

void soften(float* s, int64_t n, float* m, float* l, float* y, int64_t dim) {
  V most = all(*m);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const V here = load(s + i);
    most = here > most ? here : most;
  }
  const int64_t whole = i, left = n - i;
  if (left) {
    const V here = load(s + i, left, -kInfinity);
    most = here > most ? here : most;
  }
  const float before = *m, now = largest(most);
  V total = {};
  for (i = 0; i < whole; i += kWidth) {
    const V weights = exp(load(s + i) - all(now));
    store(s + i, weights);
    total = total + weights;
  }
  if (left) {
    const V weights = exp(load(s + i, left, -kInfinity) - all(now));
    store(s + i, weights, left);
    total = total + weights;
  }
  if (now != before) {
    const float shrunk = exp(all(before - now))[0];
    *l *= shrunk;
    for (int64_t c = 0; c < dim; ++c) y[c] *= shrunk;
  }
  *l += sum(total);
  *m = now;
}

void norm(float* y, const float* x, const float* w, int64_t n, float eps, bool added) {
  V squares = {};
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) squares = fused(load(x + i), load(x + i), squares);
  if (i < n) squares = fused(load(x + i, n - i), load(x + i, n - i), squares);
  const float scale = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(n) + eps);
  for (i = 0; i < n; ++i) {
    const float normed = x[i] * w[i] * scale;
    y[i] = added ? y[i] + normed : normed;
  }
}

inline V silu(V x) { return x / (exp(-x) + all(1.0F)); }

void gate(float* y, const float* gate, const float* up, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(y + i, silu(load(gate + i)) * load(up + i));
  if (i < n) store(y + i, silu(load(gate + i, n - i)) * load(up + i, n - i), n - i);
}

constexpr Loops kLoops{GLYPH_RT_LOOPS, product<float>, product<Half>, mix, soften, norm, gate};
