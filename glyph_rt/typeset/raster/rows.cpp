#include "rows.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define GLYPH_RT_X86
#include <immintrin.h>
#endif

namespace glyph_rt {

namespace {

// Each namespace below has
//   Sums: kChunk sums of weighted bytes, which start at one half and are cut to a byte each;
//   Blend: ink over kLanes pixels of one row, or of two. It is exact in 16 bits, since no quotient by 255 ends in one half.

#ifdef GLYPH_RT_X86
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own AVX-512 header, on purpose
#pragma GCC push_options
#pragma GCC target("avx2")
namespace avx2 {

struct Sums {
  __m256i low, high;

  Sums() : low(_mm256_set1_epi32(1 << (kWeightBits - 1))), high(low) {}  // written out, or it would not be compiled for the target
  void add(const uint8_t* in, __m256i low_weights, __m256i high_weights) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    low = _mm256_add_epi32(low, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(bytes), low_weights));
    high = _mm256_add_epi32(high, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)), high_weights));
  }
  void add(const uint8_t* in, const ChunkWeights& weights) {
    const auto* halves = reinterpret_cast<const __m256i*>(weights.of);
    add(in, _mm256_load_si256(halves), _mm256_load_si256(halves + 1));
  }
  void add(const uint8_t* in, int32_t weight) { add(in, _mm256_set1_epi32(weight), _mm256_set1_epi32(weight)); }
  void put(uint8_t* out) const {
    const __m256i words = _mm256_packs_epi32(_mm256_srai_epi32(low, kWeightBits), _mm256_srai_epi32(high, kWeightBits));
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words, words), _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(bytes));
  }
};

struct Blend {
  __m256i ink;

  explicit Blend(uint8_t level) : ink(_mm256_set1_epi16(level)) {}
  __m128i over(__m128i pixels, __m128i coverage) const {
    const __m256i alpha = _mm256_cvtepu8_epi16(coverage), under = _mm256_cvtepu8_epi16(pixels);
    const __m256i rest = _mm256_mullo_epi16(_mm256_sub_epi16(_mm256_set1_epi16(255), alpha), under);
    const __m256i sum = _mm256_add_epi16(_mm256_add_epi16(_mm256_mullo_epi16(alpha, ink), rest), _mm256_set1_epi16(128));
    const __m256i level = _mm256_srli_epi16(_mm256_add_epi16(sum, _mm256_srli_epi16(sum, 8)), 8);
    return _mm_packus_epi16(_mm256_castsi256_si128(level), _mm256_extracti128_si256(level, 1));
  }
  void pair(uint8_t* first, uint8_t* second, const uint8_t* first_coverage, const uint8_t* second_coverage) const {
    const auto two = [](const uint8_t* a, const uint8_t* b) {
      return _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(a)), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b)));
    };
    const __m128i level = over(two(first, second), two(first_coverage, second_coverage));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(first), level);
    _mm_storeh_pd(reinterpret_cast<double*>(second), _mm_castsi128_pd(level));
  }
  void one(uint8_t* pixels, const uint8_t* coverage) const {
    const __m128i level = over(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(pixels)), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(coverage)));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(pixels), level);
  }
};

#define GLYPH_RT_LOOPS "avx2"
#include "rows.inl"
#undef GLYPH_RT_LOOPS
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,avx512f,avx512bw,avx512vl")
namespace avx512 {

struct Sums {
  __m512i all;

  Sums() : all(_mm512_set1_epi32(1 << (kWeightBits - 1))) {}
  void add(const uint8_t* in, __m512i weights) {
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
    all = _mm512_add_epi32(all, _mm512_mullo_epi32(bytes, weights));
  }
  void add(const uint8_t* in, const ChunkWeights& weights) { add(in, _mm512_load_si512(weights.of)); }
  void add(const uint8_t* in, int32_t weight) { add(in, _mm512_set1_epi32(weight)); }
  void put(uint8_t* out) const {
    const __m512i levels = _mm512_max_epi32(_mm512_srai_epi32(all, kWeightBits), _mm512_setzero_si512());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtusepi32_epi8(levels));
  }
};

using avx2::Blend;

#define GLYPH_RT_LOOPS "avx512"
#include "rows.inl"
#undef GLYPH_RT_LOOPS
}  // namespace avx512
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

namespace plain {

struct Sums {
  int32_t all[kChunk];

  Sums() {
    for (int32_t& sum : all) sum = 1 << (kWeightBits - 1);
  }
  void add(const uint8_t* in, const ChunkWeights& weights) {
    for (int32_t i = 0; i < kChunk; ++i) all[i] += in[i] * weights.of[i];
  }
  void add(const uint8_t* in, int32_t weight) {
    for (int32_t i = 0; i < kChunk; ++i) all[i] += in[i] * weight;
  }
  void put(uint8_t* out) const {
    for (int32_t i = 0; i < kChunk; ++i) {
      const int32_t level = all[i] >> kWeightBits;
      out[i] = static_cast<uint8_t>(level < 0 ? 0 : level > 255 ? 255 : level);
    }
  }
};

struct Blend {
  uint16_t ink;

  explicit Blend(uint8_t level) : ink(level) {}
  void one(uint8_t* pixels, const uint8_t* coverage) const {
    for (int32_t i = 0; i < kLanes; ++i) pixels[i] = blended(pixels[i], coverage[i], ink);
  }
  void pair(uint8_t* first, uint8_t* second, const uint8_t* first_coverage, const uint8_t* second_coverage) const {
    one(first, first_coverage);
    one(second, second_coverage);
  }
};

#define GLYPH_RT_LOOPS "plain"
#include "rows.inl"
#undef GLYPH_RT_LOOPS
}  // namespace plain

struct Known {
  const RowLoops* loops[3];
  size_t count = 0;

  Known() {
#ifdef GLYPH_RT_X86
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (avx512) loops[count++] = &avx512::kLoops;
    if (__builtin_cpu_supports("avx2")) loops[count++] = &avx2::kLoops;
#endif
    loops[count++] = &plain::kLoops;
  }
};

const Known& known() {
  static const Known all;
  return all;
}

}  // namespace

const RowLoops& row_loops() {
  static const RowLoops& best = *known().loops[0];
  return best;
}

const RowLoops* const* all_row_loops(size_t& count) {
  count = known().count;
  return known().loops;
}

}  // namespace glyph_rt
