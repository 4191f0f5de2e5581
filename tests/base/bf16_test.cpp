#include "collimate/base/bf16.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "collimate/base/dtype.hpp"

namespace collimate {
namespace {

/// The number with these bits by its definition: sign, exponent of 8 bits, fraction of 7.
double defined(unsigned bits) {
  const int exponent = static_cast<int>(bits >> 7 & 255), fraction = static_cast<int>(bits & 127);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 255) return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent ? std::ldexp(128 + fraction, exponent - 134) : std::ldexp(fraction, -133));
}

/// Bits of the nearest number of that definition, found by halving the interval of magnitudes [0, infinity), where infinity stands for 2^128.
unsigned nearest(float value) {
  const auto magnitude = [](unsigned bits) { return bits == 0x7f80 ? std::ldexp(1.0, 128) : defined(bits); };
  const double target = std::abs(static_cast<double>(value));
  const unsigned sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isinf(value)) return sign | 0x7f80;
  unsigned low = 0, high = 0x7f80;  // magnitude(low) <= target < magnitude(high)
  while (high - low > 1) (magnitude((low + high) / 2) <= target ? low : high) = (low + high) / 2;
  const double down = target - magnitude(low), up = magnitude(high) - target;
  return sign | (down < up || (down == up && low % 2 == 0) ? low : high);
}

TEST(BFloat16, EveryValueIsWidenedExactlyAndComesBack) {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const float wide = to_float({static_cast<std::uint16_t>(bits)});
    const double expected = defined(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(wide)) << bits;
      ASSERT_EQ(std::bit_cast<std::uint32_t>(wide), bits << 16);
      ASSERT_EQ(to_bf16(wide).bits, bits | 0x40) << "quiet, its payload kept";
    } else {
      ASSERT_EQ(wide, expected) << bits;
      ASSERT_EQ(std::signbit(wide), bits >= 0x8000) << bits;
      ASSERT_EQ(to_bf16(wide).bits, bits);
    }
  }
}

TEST(BFloat16, RoundsToTheNearestAndToEvenOnATie) {
  for (unsigned bits = 0; bits < 0x7f80; ++bits)  // between two neighbours: below, on and above the middle
    for (const int offset : {1, 0x7fff, 0x8000, 0x8001, 0xffff})
      for (const unsigned sign : {0u, 0x8000u}) {
        const float between = std::bit_cast<float>((bits | sign) << 16 | static_cast<unsigned>(offset));
        ASSERT_EQ(to_bf16(between).bits, nearest(between)) << between;
      }
  std::mt19937 engine(1);
  for (int i = 0; i < 1000000; ++i) {
    const float any = std::bit_cast<float>(static_cast<std::uint32_t>(engine()));
    if (std::isnan(any)) continue;
    ASSERT_EQ(to_bf16(any).bits, nearest(any)) << any;
  }
}

TEST(BFloat16, KeepsWhatIsNoOrdinaryNumber) {
  constexpr float infinity = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
  EXPECT_EQ(to_bf16(infinity).bits, 0x7f80);
  EXPECT_EQ(to_bf16(-infinity).bits, 0xff80);
  EXPECT_EQ(to_bf16(largest).bits, 0x7f80) << "overflow";
  EXPECT_EQ(to_bf16(-largest).bits, 0xff80);
  EXPECT_EQ(to_bf16(-0.0f).bits, 0x8000);
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::denorm_min()).bits, 0);
  EXPECT_EQ(to_float(to_bf16(0x1p-133f)), 0x1p-133f) << "the smallest subnormal number";
  for (const std::uint32_t payload : {1u, 0x7fffu, 0x8000u, 0xffffu, 0x10000u, 0x3fffffu, 0x400000u, 0x7fffffu})
    for (const std::uint32_t sign : {0u, 0x80000000u}) {
      const std::uint32_t bits = sign | 0x7f800000 | payload;
      const BFloat16 brief = to_bf16(std::bit_cast<float>(bits));
      EXPECT_TRUE(std::isnan(to_float(brief))) << payload;
      EXPECT_EQ(brief.bits, bits >> 16 | 0x40) << payload;
    }
  static_assert(to_bf16(1.00390625f).bits == 0x3f80 && to_float({0x4049}) == 3.140625f);
}

TEST(DType, EveryTypeHasASizeAndANameOfItsOwn) {
  EXPECT_EQ(size_of(DType::bf16), sizeof(BFloat16));
  EXPECT_EQ(dtype_of<BFloat16>(), DType::bf16);
  for (const DType a : dtypes) {
    EXPECT_GT(size_of(a), 0u);
    for (const DType b : dtypes) EXPECT_EQ(a == b, name_of(a) == name_of(b));
  }
  EXPECT_EQ(name_of(DType::bf16), "bf16");
}

}  // namespace
}  // namespace collimate
