#pragma once
#include <bit>
#include <cstdint>

namespace collimate {

/// A bfloat16 number where it rests: the upper half of an fp32 number. Nothing is computed in it; it is widened first.
struct BFloat16 {
  std::uint16_t bits = 0;
  friend bool operator==(BFloat16, BFloat16) = default;  ///< of bits: NaN equals itself, and 0 is not -0
};

/// The same number. It moves bits only, so that subnormals stay where arithmetic would flush them.
constexpr float to_float(BFloat16 value) { return std::bit_cast<float>(std::uint32_t{value.bits} << 16); }

/// The nearest number, of two the one whose last bit is 0; infinity from 2^128 - 2^119 on. NaN stays NaN, with its sign and upper bits.
constexpr BFloat16 to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  return {static_cast<std::uint16_t>(nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

}  // namespace collimate
