#include "collimate/base/exact_sum.hpp"

#include <bit>
#include <cmath>
#include <limits>

namespace collimate {

// Bit i of limb l stands for 2^(32 l + i - 1074).
void ExactSum::add(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const int exponent = static_cast<int>(bits >> 52 & 0x7ff);
  if (exponent == 0x7ff || std::signbit(x)) {
    limbs_.back() += x != 0;
    return;
  }
  const std::uint64_t mantissa = (bits & 0xfffffffffffffull) | (exponent ? 0x10000000000000ull : 0);
  const int shift = exponent ? exponent - 1 : 0, limb = shift / 32, within = shift % 32;
  const std::uint64_t low = mantissa << within, high = within ? mantissa >> (64 - within) : 0;
  limbs_[limb] += static_cast<std::int64_t>(low & 0xffffffffu);
  limbs_[limb + 1] += static_cast<std::int64_t>(low >> 32);
  limbs_[limb + 2] += static_cast<std::int64_t>(high);
}

double ExactSum::value() const {
  if (limbs_.back()) return std::numeric_limits<double>::quiet_NaN();
  std::array<std::uint64_t, 70> digits{};
  std::uint64_t carry = 0;
  for (std::size_t l = 0; l + 1 < limbs_.size(); ++l) {
    const std::uint64_t sum = static_cast<std::uint64_t>(limbs_[l]) + carry;
    digits[l] = sum & 0xffffffffu;
    carry = sum >> 32;
  }
  digits[limbs_.size() - 1] = carry;
  int top = static_cast<int>(limbs_.size()) - 1;
  while (top > 0 && digits[top] == 0) --top;
  if (top == 0) return std::ldexp(static_cast<double>(digits[0]), -1074);
  std::uint64_t upper = digits[top] << 32 | digits[top - 1];  // at least 33 significant bits; the third digit fills up to 64
  const int free_bits = std::countl_zero(upper);
  if (free_bits) upper = upper << free_bits | (top > 1 ? digits[top - 2] >> (32 - free_bits) : 0);
  upper &= ~std::uint64_t{0x7ff};  // 53 bits: towards zero
  return std::ldexp(static_cast<double>(upper), 32 * (top - 1) - free_bits - 1074);
}

}  // namespace collimate
