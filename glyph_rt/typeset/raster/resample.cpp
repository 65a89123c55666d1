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

constexpr int kBits = 32 - 8 - 2;  // fractional bits of a weight, as in Pillow's Resample.c

// Output i is the sum over k of weights[k][i] * input[first[i] + k]. Weights are stored tap by tap, so that neighbours in the output
// are neighbours in memory. Inputs past the end have weight 0 and are clamped into the line.
struct Taps {
  int32_t count = 0;
  std::vector<int32_t> first;
  std::vector<int32_t> weights;  // [count, outputs]
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
  taps.count = std::min(in, static_cast<int32_t>(std::ceil(support)) * 2 + 1);
  taps.first.resize(out);
  taps.weights.assign(static_cast<size_t>(taps.count) * out, 0);
  std::vector<double> weight;
  for (int32_t i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int32_t low = std::max(0, static_cast<int32_t>(center - support + 0.5));
    const int32_t high = std::min(in, static_cast<int32_t>(center + support + 0.5));
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

// sums[i] += weights[i] * source[i]
GLYPH_RT_VECTORISED
void accumulate(int32_t* __restrict sums, const int32_t* __restrict weights, const uint8_t* __restrict source, int32_t count) {
  for (int32_t i = 0; i < count; ++i) sums[i] += weights[i] * source[i];
}

GLYPH_RT_VECTORISED
void accumulate(int32_t* __restrict sums, int32_t weight, const uint8_t* __restrict source, int32_t count) {
  for (int32_t i = 0; i < count; ++i) sums[i] += weight * source[i];
}

GLYPH_RT_VECTORISED
void store(uint8_t* __restrict out, const int32_t* __restrict sums, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    const int32_t value = sums[i] >> kBits;
    out[i] = static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
  }
}

bool blank(const uint8_t* row, int32_t width) {
  return row[0] == 0 && std::memcmp(row, row + 1, static_cast<size_t>(width) - 1) == 0;
}

void across(const Plane& in, int32_t width, int32_t height, int32_t to_width, Plane& out) {
  const auto taps = taps_for(width, to_width);
  out.width = to_width;
  out.height = height;
  out.pixels.resize(static_cast<size_t>(to_width) * height);
  std::vector<int32_t> sums(to_width);
  for (int32_t y = 0; y < height; ++y) {
    const uint8_t* source = in.row(y);
    if (blank(source, width)) {
      std::memset(out.row(y), 0, to_width);
      continue;
    }
    std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
    // Where the input advances in step with the output, a tap is a shifted row; there are few steps when the scale is near 1.
    for (int32_t start = 0; start < to_width;) {
      const int32_t shift = taps->first[start] - start;
      int32_t stop = start + 1;
      while (stop < to_width && taps->first[stop] - stop == shift) ++stop;
      for (int32_t k = 0; k < taps->count; ++k)
        accumulate(sums.data() + start, taps->weights.data() + static_cast<size_t>(k) * to_width + start, source + start + shift + k, stop - start);
      start = stop;
    }
    store(out.row(y), sums.data(), to_width);
  }
}

void down(const Plane& in, int32_t to_height, Plane& out) {
  const auto taps = taps_for(in.height, to_height);
  out.width = in.width;
  out.height = to_height;
  out.pixels.resize(static_cast<size_t>(in.width) * to_height);
  std::vector<char> is_blank(in.height);
  for (int32_t y = 0; y < in.height; ++y) is_blank[y] = blank(in.row(y), in.width);
  std::vector<int32_t> sums(in.width);
  for (int32_t y = 0; y < to_height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
    for (int32_t k = 0; k < taps->count; ++k) {
      const int32_t weight = taps->weights[static_cast<size_t>(k) * to_height + y], from = taps->first[y] + k;
      if (weight != 0 && !is_blank[from]) accumulate(sums.data(), weight, in.row(from), in.width);
    }
    store(out.row(y), sums.data(), in.width);
  }
}

}  // namespace

void resample(const Plane& in, int32_t width, int32_t height, int32_t to_width, int32_t to_height, Plane& scratch, Plane& out) {
  across(in, width, height, to_width, scratch);
  down(scratch, to_height, out);
}

}  // namespace glyph_rt
