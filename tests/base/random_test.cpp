#include "collimate/base/random.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace collimate {
namespace {

// The known-answer vectors that the authors of Philox publish with Random123.
TEST(Random, PhiloxGivesThePublishedVectors) {
  const auto zero = philox4x32({0, 0, 0, 0}, {0, 0});
  EXPECT_EQ(zero, (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const auto ones = philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u});
  EXPECT_EQ(ones, (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  const auto pi = philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0});
  EXPECT_EQ(pi, (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, EveryPartOfTheKeyMatters) {
  const RandomKey key(7, Purpose::sampling);
  const auto base = key.words(1, 2, 3);
  EXPECT_NE(base, key.words(2, 2, 3));
  EXPECT_NE(base, key.words(1, 3, 3));
  EXPECT_NE(base, key.words(1, 2, 4));
  EXPECT_NE(base, key.words(1ull << 40 | 1, 2, 3));
  EXPECT_NE(base, RandomKey(8, Purpose::sampling).words(1, 2, 3));
  EXPECT_NE(base, RandomKey(7, Purpose::dropout).words(1, 2, 3));
  EXPECT_EQ(base, RandomKey(7, Purpose::sampling).words(1, 2, 3));
}

TEST(Random, MomentsOfUniformAndNormal) {
  const RandomKey key(1, Purpose::initialise);
  const int n = 100000;
  double uniform = 0, mean = 0, square = 0;
  for (int i = 0; i < n; ++i) {
    const double u = key.uniform(i), z = key.normal(i, 1);
    ASSERT_TRUE(u >= 0 && u < 1);
    uniform += u;
    mean += z;
    square += z * z;
  }
  EXPECT_NEAR(uniform / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(mean / n, 0.0, 5 / std::sqrt(n));
  EXPECT_NEAR(square / n, 1.0, 5 * std::sqrt(2.0 / n));
}

TEST(Random, BelowCoversItsRangeEvenly) {
  const RandomKey key(3, Purpose::data_order);
  int count[7] = {};
  for (int i = 0; i < 70000; ++i) ++count[key.below(7, i)];
  for (const int c : count) EXPECT_NEAR(c, 10000, 500);
}

}  // namespace
}  // namespace collimate
