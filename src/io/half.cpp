#include "io/half.hpp"

#include <bit>
#include <cmath>

namespace collimate {

float from_half(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t{half & 0x8000u} << 16, exponent = half >> 10 & 31, fraction = half & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: fraction x 2^-24, exact in fp32
    const float magnitude = static_cast<float>(fraction) * 0x1.0p-24f;
    return sign ? -magnitude : magnitude;
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;  // infinity and NaN stay so
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

std::uint16_t to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), magnitude = bits & 0x7fffffff;
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  if (magnitude > 0x7f800000) return sign | 0x7e00;   // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // from 65520 on the nearest is infinity
  if (magnitude < 0x38800000)                         // below 2^-14: a multiple of 2^-24; the product is exact
    return sign | static_cast<std::uint16_t>(std::nearbyint(std::bit_cast<float>(magnitude) * 0x1.0p24f));
  const std::uint32_t odd = magnitude >> 13 & 1;
  return sign | static_cast<std::uint16_t>((magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

}  // namespace collimate
