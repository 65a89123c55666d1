#include "resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

// Function versions for wider vectors where the compiler and the C library can choose one at load time.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#define GLYPH_RT_VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define GLYPH_RT_VECTORISED
#endif

namespace glyph_rt {

namespace {

constexpr int32_t kFew = 5;  // taps of a scale near 1, which is the common case: written out, so that sums stay in registers
constexpr int kBits = 32 - 8 - 2;  // fractional bits of a weight, as in Pillow's Resample.c

// Output i is the sum over k of weights[k][i] * input[first[i] + k]. Weights are stored tap by tap, so that neighbours in the output
// are neighbours in memory. Inputs past the end have weight 0 and are clamped into the line.
struct Taps {
  int32_t count = 0;
  std::vector<int32_t> first;
  std::vector<int32_t> weights;  // [count, outputs]
  std::vector<int32_t> runs;     // where runs of outputs start whose inputs advance in step with them; behind the last, the end
};

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

Taps make_taps(int32_t in, int32_t out) {
  const double scale = static_cast<double>(in) / out, stretch = std::max(scale, 1.0), support = 2.0 * stretch;
  Taps taps;
  const auto low_of = [&](int32_t i) { return std::max(0, static_cast<int32_t>((i + 0.5) * scale - support + 0.5)); };
  const auto high_of = [&](int32_t i) { return std::min(in, static_cast<int32_t>((i + 0.5) * scale + support + 0.5)); };
  taps.count = std::min(in, kFew);
  for (int32_t i = 0; i < out; ++i) taps.count = std::max(taps.count, high_of(i) - low_of(i));
  taps.first.resize(out);
  taps.weights.assign(static_cast<size_t>(taps.count) * out, 0);
  std::vector<double> weight;
  for (int32_t i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int32_t low = low_of(i), high = high_of(i);
    weight.assign(high - low, 0);
    double sum = 0;
    for (int32_t k = 0; k < high - low; ++k) sum += weight[k] = bicubic((k + low - center + 0.5) / stretch);
    // All taps of an output lie inside the line: the window is moved left where it would stick out.
    taps.first[i] = std::min(low, in - taps.count);
    for (int32_t k = 0; k < high - low; ++k) {
      const double fixed = weight[k] / sum * (1 << kBits);
      taps.weights[static_cast<size_t>(low - taps.first[i] + k) * out + i] = static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    }
  }
  for (int32_t i = 0; i < out; ++i)
    if (i == 0 || taps.first[i] != taps.first[i - 1] + 1) taps.runs.push_back(i);
  taps.runs.push_back(out);
  return taps;
}

std::shared_ptr<const Taps> taps_for(int32_t in, int32_t out) {
  static std::mutex mutex;
  static std::map<std::pair<int32_t, int32_t>, std::shared_ptr<const Taps>> known;
  const std::lock_guard<std::mutex> lock(mutex);
  if (known.size() > 256) known.clear();  // cropped pages come in at most a hundred widths; bounded all the same
  auto& taps = known[{in, out}];
  if (!taps) taps = std::make_shared<const Taps>(make_taps(in, out));
  return taps;
}

constexpr int32_t kHalf = 1 << (kBits - 1);

inline uint8_t clip(int32_t sum) {
  const int32_t value = sum >> kBits;
  return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// out[i] = sum over k of weights[k * step + i] * source[i + k], for i < count
GLYPH_RT_VECTORISED
void across_few(uint8_t* __restrict out, const uint8_t* __restrict source, const int32_t* __restrict weights, int64_t step, int32_t count) {
  const int32_t *w0 = weights, *w1 = w0 + step, *w2 = w1 + step, *w3 = w2 + step, *w4 = w3 + step;
  for (int32_t i = 0; i < count; ++i)
    out[i] = clip(kHalf + w0[i] * source[i] + w1[i] * source[i + 1] + w2[i] * source[i + 2] + w3[i] * source[i + 3] + w4[i] * source[i + 4]);
}

void across_many(uint8_t* out, const uint8_t* source, const int32_t* weights, int64_t step, int32_t taps, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    int32_t sum = kHalf;
    for (int32_t k = 0; k < taps; ++k) sum += weights[k * step + i] * source[i + k];
    out[i] = clip(sum);
  }
}

// out[i] = sum over k of weights[k] * rows[k][i], for i < count
GLYPH_RT_VECTORISED
void down_few(uint8_t* __restrict out, const uint8_t* const* rows, const int32_t* weights, int32_t count) {
  const uint8_t *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3], *r4 = rows[4];
  const int32_t w0 = weights[0], w1 = weights[1], w2 = weights[2], w3 = weights[3], w4 = weights[4];
  for (int32_t i = 0; i < count; ++i) out[i] = clip(kHalf + w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i] + w4 * r4[i]);
}

void down_many(uint8_t* out, const uint8_t* const* rows, const int32_t* weights, int32_t taps, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    int32_t sum = kHalf;
    for (int32_t k = 0; k < taps; ++k) sum += weights[k] * rows[k][i];
    out[i] = clip(sum);
  }
}

bool blank(const uint8_t* row, int32_t width) {
  return row[0] == 0 && std::memcmp(row, row + 1, static_cast<size_t>(width) - 1) == 0;
}

void across(const Plane& in, int32_t width, int32_t height, int32_t to_width, Plane& out) {
  const auto taps = taps_for(width, to_width);
  out.shape(to_width, height);
  for (int32_t y = 0; y < height; ++y) {
    const uint8_t* source = in.row(y);
    if (blank(source, width)) {
      std::memset(out.row(y), 0, to_width);
      continue;
    }
    // In a run, a tap is a shifted row; there are few runs when the scale is near 1.
    for (size_t r = 0; r + 1 < taps->runs.size(); ++r) {
      const int32_t start = taps->runs[r], length = taps->runs[r + 1] - start;
      const uint8_t* from = source + taps->first[start];
      const int32_t* weights = taps->weights.data() + start;
      if (taps->count == kFew) across_few(out.row(y) + start, from, weights, to_width, length);
      else across_many(out.row(y) + start, from, weights, to_width, taps->count, length);
    }
  }
}

void down(const Plane& in, int32_t to_height, Plane& out) {
  const auto taps = taps_for(in.height, to_height);
  out.shape(in.width, to_height);
  std::vector<char> is_blank(in.height);
  for (int32_t y = 0; y < in.height; ++y) is_blank[y] = blank(in.row(y), in.width);
  std::vector<const uint8_t*> rows(taps->count);
  std::vector<int32_t> weights(taps->count);
  for (int32_t y = 0; y < to_height; ++y) {
    bool inked = false;
    for (int32_t k = 0; k < taps->count; ++k) {
      weights[k] = taps->weights[static_cast<size_t>(k) * to_height + y];
      rows[k] = in.row(taps->first[y] + k);
      inked = inked || (weights[k] != 0 && !is_blank[taps->first[y] + k]);
    }
    if (!inked) std::memset(out.row(y), 0, in.width);
    else if (taps->count == kFew) down_few(out.row(y), rows.data(), weights.data(), in.width);
    else down_many(out.row(y), rows.data(), weights.data(), taps->count, in.width);
  }
}

}  // namespace

void resample(const Plane& in, int32_t width, int32_t height, int32_t to_width, int32_t to_height, Plane& scratch, Plane& out) {
  across(in, width, height, to_width, scratch);
  down(scratch, to_height, out);
}

}  // namespace glyph_rt
