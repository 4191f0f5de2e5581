#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <limits>

#include "collimate/base/bf16.hpp"

// Sixteen fp32 lanes on every instruction set, in one register (AVX-512) or two (AVX2), and every sum over a row keeps its order
// (numerics contract R6).
namespace collimate::kernels::cpu {

constexpr std::int64_t lanes = 16;
constexpr int register_bytes = __BIGGEST_ALIGNMENT__, parts = 64 / register_bytes;
constexpr bool one_register = parts == 1;
static_assert(parts == 1 || parts == 2);

/// 64 bytes of numbers. Not one vector of 64 bytes: where a register holds less, g++ keeps such a vector in memory, and every operation
/// loads and stores it. The registers of a struct stay registers.
template <class Number>
struct Wide {
  using Register [[gnu::vector_size(register_bytes)]] = Number;
  static constexpr int per_register = register_bytes / static_cast<int>(sizeof(Number));
  Register part[parts];
  [[gnu::always_inline]] Number operator[](std::int64_t i) const { return part[i / per_register][i % per_register]; }
};
using Lanes = Wide<float>;
using IntLanes = Wide<std::int32_t>;
using WordLanes = Wide<std::uint32_t>;

/// work(register of `first`, register of each of the `rest`), for one register after the other. Spelled out: of a struct that a loop has
/// walked over, g++ does not always find the registers again.
template <class Number, class Work, class First, class... Rest>
[[gnu::always_inline]] inline Wide<Number> each(const Work& work, First first, Rest... rest) {
  if constexpr (one_register)
    return {{work(first.part[0], rest.part[0]...)}};
  else
    return {{work(first.part[0], rest.part[0]...), work(first.part[1], rest.part[1]...)}};
}

template <class Number>
[[gnu::always_inline]] inline Wide<Number> operator+(Wide<Number> a, Wide<Number> b) {
  return each<Number>([](auto x, auto y) { return x + y; }, a, b);
}
template <class Number>
[[gnu::always_inline]] inline Wide<Number> operator-(Wide<Number> a, Wide<Number> b) {
  return each<Number>([](auto x, auto y) { return x - y; }, a, b);
}
template <class Number>
[[gnu::always_inline]] inline Wide<Number> operator*(Wide<Number> a, Wide<Number> b) {
  return each<Number>([](auto x, auto y) { return x * y; }, a, b);
}
template <class Number>
[[gnu::always_inline]] inline Wide<Number>& operator+=(Wide<Number>& a, Wide<Number> b) { return a = a + b; }

[[gnu::always_inline]] inline Lanes operator/(Lanes a, Lanes b) {
  return each<float>([](auto x, auto y) { return x / y; }, a, b);
}
[[gnu::always_inline]] inline Lanes operator-(Lanes a) {
  return each<float>([](auto x) { return -x; }, a);
}

// Comparisons give all ones where they hold, else zero.

[[gnu::always_inline]] inline IntLanes operator<(Lanes a, Lanes b) {
  return each<std::int32_t>([](auto x, auto y) { return x < y; }, a, b);
}
[[gnu::always_inline]] inline IntLanes operator<=(Lanes a, Lanes b) {
  return each<std::int32_t>([](auto x, auto y) { return x <= y; }, a, b);
}
/// The lanes before `count`.
[[gnu::always_inline]] inline IntLanes before(std::int64_t count) {
  IntLanes numbers{};
  for (int i = 0; i < lanes; ++i) numbers.part[i / IntLanes::per_register][i % IntLanes::per_register] = i;
  return each<std::int32_t>([=](auto x) { return x < static_cast<std::int32_t>(count); }, numbers);
}
/// Lane by lane: where `here` holds a, else b.
[[gnu::always_inline]] inline Lanes select(IntLanes here, Lanes a, Lanes b) {
  return each<float>([](auto mask, auto x, auto y) { return mask ? x : y; }, here, a, b);
}

[[gnu::always_inline]] inline Lanes max(Lanes a, Lanes b) {
  return each<float>([](auto x, auto y) { return x > y ? x : y; }, a, b);
}

[[gnu::always_inline]] inline Lanes splat(float x) {
  return each<float>(
      [=](auto) {
        if constexpr (one_register)
          return _mm512_set1_ps(x);
        else
          return _mm256_set1_ps(x);
      },
      Lanes{});
}

[[gnu::always_inline]] inline Lanes load(const float* p) {
  Lanes v;
  std::memcpy(&v.part[0], p, register_bytes);
  if constexpr (!one_register) std::memcpy(&v.part[parts - 1], p + Lanes::per_register, register_bytes);
  return v;
}
[[gnu::always_inline]] inline void store(float* p, Lanes v) {
  std::memcpy(p, &v.part[0], register_bytes);
  if constexpr (!one_register) std::memcpy(p + Lanes::per_register, &v.part[parts - 1], register_bytes);
}

/// The first n (at most 16) elements, zeros behind them: the tail takes the same path as the body.
[[gnu::always_inline]] inline Lanes load(const float* p, std::int64_t n) {
  if (n >= lanes) return load(p);
  float v[lanes] = {};
  std::memcpy(v, p, static_cast<std::size_t>(n) * sizeof(float));
  return load(v);
}
[[gnu::always_inline]] inline void store(float* p, Lanes v, std::int64_t n) {
  if (n >= lanes) return store(p, v);
  float all[lanes];
  store(all, v);
  std::memcpy(p, all, static_cast<std::size_t>(n) * sizeof(float));
}

// bfloat16 where it rests, fp32 in the lanes: widened exactly by a shift, rounded to nearest even. Both move bits only, so that subnormals
// stay. By instructions' names, because g++ goes through memory, element by element, where it has to find them itself.

[[gnu::always_inline]] inline Lanes load(const BFloat16* p) {
  Lanes v;
  if constexpr (one_register) {  // "maskz" with all lanes: g++ 12 warns about the intrinsic without
    __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    wide = _mm512_maskz_slli_epi32(0xffff, wide, 16);
    std::memcpy(&v, &wide, sizeof v);
    return v;
  }
  const auto half = [=](int first) __attribute__((always_inline)) {
    return _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + first))), 16);
  };
  const __m256i low = half(0), high = half(8);
  std::memcpy(&v.part[0], &low, sizeof low);
  std::memcpy(&v.part[parts - 1], &high, sizeof high);
  return v;
}
[[gnu::always_inline]] inline Lanes load(const BFloat16* p, std::int64_t n) {
  if (n >= lanes) return load(p);
  BFloat16 v[lanes] = {};
  std::memcpy(v, p, static_cast<std::size_t>(n) * sizeof(BFloat16));
  return load(v);
}

[[gnu::always_inline]] inline void store(BFloat16* p, Lanes v) {
  auto* to = reinterpret_cast<__m256i*>(p);
  const WordLanes rounded = each<std::uint32_t>(
      [](auto x) {
        const auto bits = reinterpret_cast<WordLanes::Register>(x);
        return x != x ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
      },
      v);
  if constexpr (one_register) {
    __m512i words;
    std::memcpy(&words, &rounded, sizeof words);
    return _mm256_storeu_si256(to, _mm512_maskz_cvtepi32_epi16(0xffff, words));
  }
  __m256i low, high;
  std::memcpy(&low, &rounded.part[0], sizeof low);
  std::memcpy(&high, &rounded.part[parts - 1], sizeof high);
  const __m256i packed = _mm256_packus_epi32(low, high);  // each half of a register by itself: the middle quarters change places
  _mm256_storeu_si256(to, _mm256_permute4x64_epi64(packed, 0b11011000));
}
[[gnu::always_inline]] inline void store(BFloat16* p, Lanes v, std::int64_t n) {
  if (n >= lanes) return store(p, v);
  BFloat16 all[lanes];
  store(all, v);
  std::memcpy(p, all, static_cast<std::size_t>(n) * sizeof(BFloat16));
}

/// a * b + c, rounded once. By name: where it is spelled lane by lane, g++ makes it only as long as it finds no other way to group lanes.
[[gnu::always_inline]] inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return each<float>(
      [](auto x, auto y, auto z) {
        if constexpr (one_register)
          return _mm512_fmadd_ps(x, y, z);
        else
          return _mm256_fmadd_ps(x, y, z);
      },
      a, b, c);
}

[[gnu::always_inline]] inline Lanes square_root(Lanes v) {
  return each<float>(
      [](auto x) {
        if constexpr (one_register)
          return _mm512_maskz_sqrt_ps(0xffff, x);
        else
          return _mm256_sqrt_ps(x);
      },
      v);
}

/// v, loaded once: otherwise g++ loads it again for every instruction that uses it, and the loads then take longer than the sums.
[[gnu::always_inline]] inline Lanes in_register(Lanes v) {
  return each<float>(
      [](auto part) {
        asm("" : "+v"(part));
        return part;
      },
      v);
}

namespace detail {
using Half = float __attribute__((vector_size(32)));
using Quarter = float __attribute__((vector_size(16)));

/// Combines the lanes as a tree: 8 with 8, 4 with 4, 2 with 2, 1 with 1.
template <class Number, class Combine>
[[gnu::always_inline]] inline float tree(Wide<Number> v, const Combine& combine) {
  Half half;
  if constexpr (one_register)
    half = combine(__builtin_shufflevector(v.part[0], v.part[0], 0, 1, 2, 3, 4, 5, 6, 7),
                   __builtin_shufflevector(v.part[0], v.part[0], 8, 9, 10, 11, 12, 13, 14, 15));
  else
    half = combine(v.part[0], v.part[1]);
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
  using Half = Wide<double>;
  Half low{}, high{};
};

[[gnu::always_inline]] inline Doubles widen(Lanes v) {
  float numbers[lanes];
  store(numbers, v);
  const auto half = [](const float* from) {
    Doubles::Half to;
    for (int i = 0; i < parts; ++i) {
      float __attribute__((vector_size(register_bytes / 2))) part;
      std::memcpy(&part, from + i * Doubles::Half::per_register, sizeof part);
      to.part[i] = __builtin_convertvector(part, Doubles::Half::Register);
    }
    return to;
  };
  return {half(numbers), half(numbers + lanes / 2)};
}

/// The same tree in fp64.
[[gnu::always_inline]] inline double sum(const Doubles& v) {
  const Doubles::Half half = v.low + v.high;
  return ((half[0] + half[4]) + (half[2] + half[6])) + ((half[1] + half[5]) + (half[3] + half[7]));
}

namespace detail {
/// For lane j of bit `step` 0: a[j], or a[j + step] with `up`; of bit 1: b[j], or b[j - step] with `down`.
template <int step, bool up, bool down, class Number>
[[gnu::always_inline]] inline Wide<Number> pick(Wide<Number> a, Wide<Number> b) {
  if constexpr (step == Wide<Number>::per_register) {
    return {{a.part[up], b.part[!down]}};
  } else {
    return each<Number>(
        [](auto x, auto y) {
          constexpr int n = Wide<Number>::per_register;
          typename IntLanes::Register from{};
          for (int j = 0; j < n; ++j) from[j] = j & step ? n + j - (down ? step : 0) : j + (up ? step : 0);
          return __builtin_shuffle(x, y, from);
        },
        a, b);
  }
}
}  // namespace detail

/// For lane j of bit `step` 0: a[j] and a[j + step]; of bit 1: b[j - step] and b[j].
template <int step>
[[gnu::always_inline]] inline void exchange(Lanes& a, Lanes& b) {
  const Lanes first = detail::pick<step, false, true>(a, b);
  b = detail::pick<step, true, false>(a, b);
  a = first;
}

/// Transposes 16 x 16 numbers.
[[gnu::always_inline]] inline void transpose(Lanes (&v)[lanes]) {
  const auto stage = [&]<int step>() __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i)
      if (!(i & step)) exchange<step>(v[i], v[i + step]);
  };
  stage.operator()<8>();
  stage.operator()<4>();
  stage.operator()<2>();
  stage.operator()<1>();
}

/// For lane j of bit `step` 0: a[j] + a[j + step]; of bit 1: b[j] + b[j - step].
template <int step>
[[gnu::always_inline]] inline Lanes fold(Lanes a, Lanes b) {
  return detail::pick<step, false, false>(a, b) + detail::pick<step, true, true>(a, b);
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

/// Lane j is v[j % period].
template <int period>
[[gnu::always_inline]] inline Lanes repeated(Lanes v) {
  if constexpr (period >= lanes) return v;
  IntLanes::Register from{};
  for (int j = 0; j < Lanes::per_register; ++j) from[j] = j % period;
  const auto first = __builtin_shuffle(v.part[0], from);
  return each<float>([=](auto) { return first; }, v);
}

/// e^x to about 1 ulp; 0 below -87.3 (where the smallest normal numbers end), infinity above the largest, NaN of NaN.
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a polynomial; n is added to its exponent.
[[gnu::always_inline]] inline Lanes exp(Lanes x) {
  const Lanes shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  const Lanes shifted = fma(x, splat(1.44269504088896341f), shift);
  const Lanes n = shifted - shift;
  Lanes r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  Lanes p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + splat(1.0f);
  const Lanes y = each<float>(
      [](auto power, auto exponent) {
        using Words = WordLanes::Register;
        return reinterpret_cast<Lanes::Register>(reinterpret_cast<Words>(power) + (reinterpret_cast<Words>(exponent) << 23));
      },
      p, shifted);
  const Lanes in_range = select(x <= splat(88.72283f), y, x + splat(std::numeric_limits<float>::infinity()));
  return select(x < splat(-87.3f), Lanes{}, in_range);
}

[[gnu::always_inline]] inline float exp(float x) { return exp(splat(x))[0]; }

/// 1 / (1 + e^-x)
[[gnu::always_inline]] inline Lanes sigmoid(Lanes x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }

}  // namespace collimate::kernels::cpu
