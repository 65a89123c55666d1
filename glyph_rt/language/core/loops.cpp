#include "loops.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define GLYPH_RT_X86
#include <immintrin.h>
#endif

namespace glyph_rt {

namespace {

// Each namespace below has
//   V: a vector of kWidth floats; I: of as many integers;
//   load: of floats, and of halves;
//   fused: a * b + c, rounded as this instruction set does it, written out since the compiler is told to fuse nothing by itself
//     (-ffp-contract=off): it might do so in one unrolling and not in another, and a row's bits would depend on its neighbours;
//   sums: of the elements of four vectors, each in the same order;
//   kRows: rows of x that a product takes at a time, so that 4 * kRows sums fit the registers.

#ifdef GLYPH_RT_X86
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own AVX-512 header, on purpose
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {

constexpr int kWidth = 8, kRows = 2;
using V = __m256;
typedef uint32_t I __attribute__((vector_size(32)));

inline V load(const float* from) { return _mm256_loadu_ps(from); }
inline V load(const Half* from) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))), 16));
}
inline V fused(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline void sums(float* to, V a, V b, V c, V d) {
  const V halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}

#define GLYPH_RT_LOOPS "avx2"
#include "loops.inl"
#undef GLYPH_RT_LOOPS
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f")
namespace avx512 {

constexpr int kWidth = 16, kRows = 4;
using V = __m512;
typedef uint32_t I __attribute__((vector_size(64)));

inline V load(const float* from) { return _mm512_loadu_ps(from); }
inline V load(const Half* from) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
}
inline V fused(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline void sums(float* to, V a, V b, V c, V d) {
  const V ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
  const V cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
  V each = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));  // four parts of each sum, side by side
  each = _mm512_add_ps(each, _mm512_permute_ps(each, 0xB1));
  each = _mm512_add_ps(each, _mm512_permute_ps(each, 0x4E));
  const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(first, each)));
}

#define GLYPH_RT_LOOPS "avx512"
#include "loops.inl"
#undef GLYPH_RT_LOOPS
}  // namespace avx512
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

// What every machine has: 128 bits, SSE2 or Neon, as the compiler makes of it.
namespace plain {

constexpr int kWidth = 4, kRows = 2;
typedef float V __attribute__((vector_size(16)));
typedef uint32_t I __attribute__((vector_size(16)));

inline V load(const float* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
inline V load(const Half* from) {
  I bits;
  for (int i = 0; i < kWidth; ++i) bits[i] = static_cast<uint32_t>(from[i]) << 16;
  V v;
  __builtin_memcpy(&v, &bits, sizeof v);
  return v;
}
inline V fused(V a, V b, V c) {
#ifdef __FP_FAST_FMAF
  V sum;
  for (int i = 0; i < kWidth; ++i) sum[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return sum;
#else
  return a * b + c;
#endif
}
inline void sums(float* to, V a, V b, V c, V d) {
  const V each[4] = {a, b, c, d};
  for (int i = 0; i < 4; ++i) to[i] = (each[i][0] + each[i][2]) + (each[i][1] + each[i][3]);
}

#define GLYPH_RT_LOOPS "plain"
#include "loops.inl"
#undef GLYPH_RT_LOOPS
}  // namespace plain

struct Known {
  const Loops* all[3];
  size_t count = 0;

  Known() {
#ifdef GLYPH_RT_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f")) all[count++] = &avx512::kLoops;
    if (avx2) all[count++] = &avx2::kLoops;
#endif
    all[count++] = &plain::kLoops;
  }
};

const Known& known() {
  static const Known all;
  return all;
}

}  // namespace

const Loops& loops() {
  static const Loops& best = *known().all[0];
  return best;
}

const Loops* const* all_loops(size_t& count) {
  count = known().count;
  return known().all;
}

}  // namespace glyph_rt
