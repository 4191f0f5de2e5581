#pragma once
#include <cstdint>
#include <cstring>
#include <limits>

// Sixteen fp32 lanes on every instruction set: the compiler maps them to one, two or four registers, and every sum over a row
// keeps its order (numerics contract R6).
namespace collimate::kernels::cpu {

using Lanes = float __attribute__((vector_size(64)));
using IntLanes = std::int32_t __attribute__((vector_size(64)));
constexpr std::int64_t lanes = 16;

inline Lanes splat(float x) { return Lanes{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

inline Lanes load(const float* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Lanes v) { std::memcpy(p, &v, sizeof v); }

/// The first n (at most 16) elements, zeros behind them: the tail takes the same path as the body.
inline Lanes load(const float* p, std::int64_t n) {
  if (n >= lanes) return load(p);
  Lanes v{};
  std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(float));
  return v;
}
inline void store(float* p, Lanes v, std::int64_t n) {
  if (n >= lanes) return store(p, v);
  std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(float));
}

/// a * b + c, rounded once. Written lane by lane, without a loop: g++ then makes one vector instruction of it everywhere.
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return Lanes{__builtin_fmaf(a[0], b[0], c[0]), __builtin_fmaf(a[1], b[1], c[1]), __builtin_fmaf(a[2], b[2], c[2]), __builtin_fmaf(a[3], b[3], c[3]),
               __builtin_fmaf(a[4], b[4], c[4]), __builtin_fmaf(a[5], b[5], c[5]), __builtin_fmaf(a[6], b[6], c[6]), __builtin_fmaf(a[7], b[7], c[7]),
               __builtin_fmaf(a[8], b[8], c[8]), __builtin_fmaf(a[9], b[9], c[9]), __builtin_fmaf(a[10], b[10], c[10]), __builtin_fmaf(a[11], b[11], c[11]),
               __builtin_fmaf(a[12], b[12], c[12]), __builtin_fmaf(a[13], b[13], c[13]), __builtin_fmaf(a[14], b[14], c[14]), __builtin_fmaf(a[15], b[15], c[15])};
}

inline Lanes max(Lanes a, Lanes b) { return a > b ? a : b; }

/// Sum of the lanes as a tree: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
inline float sum(Lanes v) {
  using Half = float __attribute__((vector_size(32)));
  using Quarter = float __attribute__((vector_size(16)));
  Half low, high;
  std::memcpy(&low, &v, sizeof low);
  std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
  low += high;
  Quarter a, b;
  std::memcpy(&a, &low, sizeof a);
  std::memcpy(&b, reinterpret_cast<const char*>(&low) + sizeof a, sizeof b);
  a += b;
  return (a[0] + a[2]) + (a[1] + a[3]);
}

inline float largest(Lanes v) {
  float m = v[0];
  for (int i = 1; i < lanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

/// Lane numbers 0 to 15.
inline IntLanes iota() { return IntLanes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

/// e^x to about 1 ulp; 0 below the smallest normal number, infinity above the largest.
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor-like minimax polynomial of degree 6; times 2^n in two halves.
inline Lanes exp(Lanes x) {
  const Lanes lowest = splat(-87.33654f), highest = splat(88.72283f);
  const Lanes bounded = x < lowest ? lowest : (x > highest ? highest : x);
  const Lanes shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Lanes shifted = fma(bounded, splat(1.44269504088896341f), shift);
  const Lanes n = shifted - shift;
  Lanes r = fma(n, splat(-0.693359375f), bounded);
  r = fma(n, splat(2.12194440e-4f), r);
  Lanes p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + splat(1.0f);
  IntLanes whole;
  std::memcpy(&whole, &shifted, sizeof whole);
  whole -= 0x4B400000;  // the bits of the shift
  const IntLanes half = whole >> 1, rest = whole - half;
  const IntLanes bits1 = (half + 127) << 23, bits2 = (rest + 127) << 23;
  Lanes scale1, scale2;
  std::memcpy(&scale1, &bits1, sizeof scale1);
  std::memcpy(&scale2, &bits2, sizeof scale2);
  const Lanes y = p * scale1 * scale2;
  return x < lowest ? Lanes{} : (x > highest ? splat(std::numeric_limits<float>::infinity()) : y);
}

inline float exp(float x) { return exp(splat(x))[0]; }

/// 1 / (1 + e^-x)
inline Lanes sigmoid(Lanes x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }

}  // namespace collimate::kernels::cpu
