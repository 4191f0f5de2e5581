#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <limits>

#include "collimate/base/bf16.hpp"

// Sixteen fp32 lanes on every instruction set: the compiler maps them to one, two or four registers, and every sum over a row
// keeps its order (numerics contract R6).
namespace collimate::kernels::cpu {

using Lanes = float __attribute__((vector_size(64)));
using IntLanes = std::int32_t __attribute__((vector_size(64)));
constexpr std::int64_t lanes = 16;

[[gnu::always_inline]] inline Lanes splat(float x) { return Lanes{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

[[gnu::always_inline]] inline Lanes load(const float* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
[[gnu::always_inline]] inline void store(float* p, Lanes v) { std::memcpy(p, &v, sizeof v); }

/// The first n (at most 16) elements, zeros behind them: the tail takes the same path as the body.
[[gnu::always_inline]] inline Lanes load(const float* p, std::int64_t n) {
  if (n >= lanes) return load(p);
  Lanes v{};
  std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(float));
  return v;
}
[[gnu::always_inline]] inline void store(float* p, Lanes v, std::int64_t n) {
  if (n >= lanes) return store(p, v);
  std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(float));
}

/// Whether sixteen lanes are one register (AVX-512) or two.
constexpr bool one_register = __BIGGEST_ALIGNMENT__ == 64;

// bfloat16 where it rests, fp32 in the lanes: widened exactly by a shift, rounded to nearest even. Both move bits only, so that subnormals
// stay. By instructions' names, because g++ goes through memory, element by element, where it has to find them itself.

[[gnu::always_inline]] inline Lanes load(const BFloat16* p) {
  Lanes v;
  if constexpr (one_register) {  // "maskz" with all lanes: g++ 12 warns about the intrinsic without
    const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return reinterpret_cast<Lanes>(_mm512_maskz_slli_epi32(0xffff, wide, 16));
  }
  __m256i halves[2];
  for (int i = 0; i < 2; ++i)
    halves[i] = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * i))), 16);
  std::memcpy(&v, halves, sizeof v);
  return v;
}
[[gnu::always_inline]] inline Lanes load(const BFloat16* p, std::int64_t n) {
  if (n >= lanes) return load(p);
  BFloat16 v[lanes] = {};
  std::memcpy(v, p, static_cast<std::size_t>(n) * sizeof(BFloat16));
  return load(v);
}

namespace detail {
/// to_bf16 of every lane, in the lower half of its word.
template <class Words, class Floats>
[[gnu::always_inline]] inline Words rounded(Floats v) {
  const Words bits = reinterpret_cast<Words>(v);
  return v != v ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
}  // namespace detail

[[gnu::always_inline]] inline void store(BFloat16* p, Lanes v) {
  auto* to = reinterpret_cast<__m256i*>(p);
  if constexpr (one_register) {
    using Words = std::uint32_t __attribute__((vector_size(64)));
    return _mm256_storeu_si256(to, _mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(detail::rounded<Words>(v))));
  }
  using Words = std::uint32_t __attribute__((vector_size(32)));
  __m256 halves[2];
  std::memcpy(halves, &v, sizeof v);
  const auto low = reinterpret_cast<__m256i>(detail::rounded<Words>(halves[0]));
  const auto high = reinterpret_cast<__m256i>(detail::rounded<Words>(halves[1]));
  const __m256i packed = _mm256_packus_epi32(low, high);  // each half of a register by itself: the middle quarters change places
  _mm256_storeu_si256(to, _mm256_permute4x64_epi64(packed, 0b11011000));
}
[[gnu::always_inline]] inline void store(BFloat16* p, Lanes v, std::int64_t n) {
  if (n >= lanes) return store(p, v);
  BFloat16 all[lanes];
  store(all, v);
  std::memcpy(p, all, static_cast<std::size_t>(n) * sizeof(BFloat16));
}

/// The lanes in the registers that hold them, one or two. g++ keeps a variable that is longer than a register, as Lanes are without AVX-512, in
/// memory; so sums over many terms are spelled in these.
constexpr int register_bytes = __BIGGEST_ALIGNMENT__, parts = 64 / register_bytes, part_lanes = register_bytes / 4;
using Register = float __attribute__((vector_size(register_bytes)));

namespace detail {  // for either size
template <class R>
[[gnu::always_inline]] inline R fill(float x) {
  if constexpr (sizeof(R) == 64)
    return _mm512_set1_ps(x);
  else
    return _mm256_set1_ps(x);
}
template <class R>
[[gnu::always_inline]] inline R multiply_add(R a, R b, R c) {
  if constexpr (sizeof(R) == 64)
    return _mm512_fmadd_ps(a, b, c);
  else
    return _mm256_fmadd_ps(a, b, c);
}
template <class R>
[[gnu::always_inline]] inline R widened(const BFloat16* p) {
  if constexpr (sizeof(R) == 64)
    return load(p);
  else
    return reinterpret_cast<R>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
}  // namespace detail

[[gnu::always_inline]] inline Register fill(float x) { return detail::fill<Register>(x); }
/// a * b + c, rounded once. By name: where it is spelled lane by lane, g++ makes it only as long as it finds no other way to group lanes.
[[gnu::always_inline]] inline Register multiply_add(Register a, Register b, Register c) { return detail::multiply_add(a, b, c); }
/// Part `part` of what lies at p.
[[gnu::always_inline]] inline Register load_part(const float* p, int part) {
  Register v;
  std::memcpy(&v, p + part * part_lanes, sizeof v);
  return v;
}
[[gnu::always_inline]] inline Register load_part(const BFloat16* p, int part) { return detail::widened<Register>(p + part * part_lanes); }
[[gnu::always_inline]] inline void store_part(float* p, int part, Register v) { std::memcpy(p + part * part_lanes, &v, sizeof v); }
/// v, loaded once: otherwise g++ loads it again for every instruction that uses it, and the loads then take longer than the sums.
[[gnu::always_inline]] inline Register held(Register v) {
  asm("" : "+v"(v));
  return v;
}

/// a * b + c, rounded once
[[gnu::always_inline]] inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  Lanes result;
  for (int i = 0; i < parts; ++i) {
    const auto part = [&](const Lanes& v) { return load_part(reinterpret_cast<const float*>(&v), i); };
    store_part(reinterpret_cast<float*>(&result), i, multiply_add(part(a), part(b), part(c)));
  }
  return result;
}

/// As held().
[[gnu::always_inline]] inline Lanes in_register(Lanes v) {
  if constexpr (one_register) asm("" : "+v"(v));
  return v;
}

[[gnu::always_inline]] inline Lanes max(Lanes a, Lanes b) { return a > b ? a : b; }

namespace detail {
using Half = float __attribute__((vector_size(32)));
using Quarter = float __attribute__((vector_size(16)));

/// Combines the lanes as a tree: 8 with 8, 4 with 4, 2 with 2, 1 with 1.
template <class Combine>
[[gnu::always_inline]] inline float tree(Lanes v, const Combine& combine) {
  const Half half =
      combine(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7), __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
  Quarter a = combine(__builtin_shufflevector(half, half, 0, 1, 2, 3), __builtin_shufflevector(half, half, 4, 5, 6, 7));
  a = combine(a, __builtin_shufflevector(a, a, 2, 3, 0, 1));
  return combine(a, __builtin_shufflevector(a, a, 1, 0, 3, 2))[0];
}
}  // namespace detail

[[gnu::always_inline]] inline float sum(Lanes v) {
  return detail::tree(v, [](auto a, auto b) { return a + b; });
}
[[gnu::always_inline]] inline float largest(Lanes v) {
  return detail::tree(v, [](auto a, auto b) { return a > b ? a : b; });
}

/// Sixteen fp64 lanes, in two halves.
struct Doubles {
  using Half = double __attribute__((vector_size(64)));
  Half low{}, high{};
};

[[gnu::always_inline]] inline Doubles widen(Lanes v) {
  return {__builtin_convertvector(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7), Doubles::Half),
          __builtin_convertvector(__builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15), Doubles::Half)};
}

/// The same tree in fp64.
[[gnu::always_inline]] inline double sum(const Doubles& v) {
  const Doubles::Half half = v.low + v.high;
  return ((half[0] + half[4]) + (half[2] + half[6])) + ((half[1] + half[5]) + (half[3] + half[7]));
}

/// Lane numbers 0 to 15.
[[gnu::always_inline]] inline IntLanes iota() { return IntLanes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

/// For lane j of bit `step` 0: a[j] and a[j + step]; of bit 1: b[j - step] and b[j].
template <int step>
[[gnu::always_inline]] inline void exchange(Lanes a, Lanes b, Lanes& first, Lanes& second) {
  IntLanes from_first = iota(), from_second = iota();
  for (int j = 0; j < lanes; ++j) {
    from_first[j] = j & step ? 16 + j - step : j;
    from_second[j] = j & step ? 16 + j : j + step;
  }
  first = __builtin_shuffle(a, b, from_first);
  second = __builtin_shuffle(a, b, from_second);
}

/// Transposes 16 x 16 numbers.
inline void transpose(Lanes (&v)[lanes]) {
  const auto stage = [&]<int step>() {
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i)
      if (!(i & step)) exchange<step>(v[i], v[i + step], v[i], v[i + step]);
  };
  stage.operator()<8>();
  stage.operator()<4>();
  stage.operator()<2>();
  stage.operator()<1>();
}

/// For lane j of bit `step` 0: a[j] + a[j + step]; of bit 1: b[j] + b[j - step].
template <int step>
[[gnu::always_inline]] inline Lanes fold(Lanes a, Lanes b) {
  IntLanes here = iota(), there = iota();
  for (int j = 0; j < lanes; ++j) {
    here[j] = j & step ? 16 + j : j;
    there[j] = j & step ? 16 + j - step : j + step;
  }
  return __builtin_shuffle(a, b, here) + __builtin_shuffle(a, b, there);
}

/// Lane i is sum(v[i]), with the same bits, at a third of the cost.
[[gnu::always_inline]] inline Lanes sums(Lanes (&v)[lanes]) {
  const auto stage = [&]<int step>() __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < step; ++i) v[i] = fold<step>(v[i], v[i + step]);
  };
  stage.operator()<8>();
  stage.operator()<4>();
  stage.operator()<2>();
  stage.operator()<1>();
  return v[0];
}

namespace detail {
/// exp() of some lanes: x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a polynomial; n is added to its exponent.
[[gnu::always_inline]] inline Register exp(Register x) {
  using Words = std::uint32_t __attribute__((vector_size(register_bytes)));
  const Register shift = cpu::fill(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  const Register shifted = cpu::multiply_add(x, cpu::fill(1.44269504088896341f), shift);
  const Register n = shifted - shift;
  Register r = cpu::multiply_add(n, cpu::fill(-0.693359375f), x);
  r = cpu::multiply_add(n, cpu::fill(2.12194440e-4f), r);
  Register p = cpu::fill(1.9875691500e-4f);
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = cpu::multiply_add(p, r, cpu::fill(c));
  p = cpu::multiply_add(p, r * r, r) + cpu::fill(1.0f);
  const auto y = reinterpret_cast<Register>(reinterpret_cast<Words>(p) + (reinterpret_cast<Words>(shifted) << 23));
  const Register in_range = x <= cpu::fill(88.72283f) ? y : x + cpu::fill(std::numeric_limits<float>::infinity());
  return x < cpu::fill(-87.3f) ? Register{} : in_range;
}
}  // namespace detail

/// e^x to about 1 ulp; 0 below -87.3 (where the smallest normal numbers end), infinity above the largest, NaN of NaN.
[[gnu::always_inline]] inline Lanes exp(Lanes x) {
  Lanes result;
  for (int i = 0; i < parts; ++i)
    store_part(reinterpret_cast<float*>(&result), i, detail::exp(load_part(reinterpret_cast<const float*>(&x), i)));
  return result;
}

[[gnu::always_inline]] inline float exp(float x) { return exp(splat(x))[0]; }

/// 1 / (1 + e^-x)
[[gnu::always_inline]] inline Lanes sigmoid(Lanes x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }

}  // namespace collimate::kernels::cpu
