#include "collimate/base/exact_sum.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace collimate {
namespace {

using Limits = std::numeric_limits<double>;

/// A sum in binary, digit by digit: bit i stands for 2^(i - 1074).
class Binary {
 public:
  void add(double x) {
    int exponent = 0;
    const double fraction = std::frexp(x, &exponent);  // x = fraction * 2^exponent
    auto whole = static_cast<std::uint64_t>(std::ldexp(fraction, 53));
    for (int place = exponent - 53 + 1074; whole; whole >>= 1, ++place)
      if (whole & 1) increment(place);
  }
  double truncated() const {  // the first 53 digits
    int top = static_cast<int>(bits_.size()) - 1;
    while (top >= 0 && !bits_[top]) --top;
    double value = 0;
    for (int i = top; i >= 0 && i > top - 53; --i) value += bits_[i] ? std::ldexp(1.0, i - 1074) : 0;
    return value;
  }

 private:
  void increment(int place) {
    for (; bits_.at(place); ++place) bits_[place] = false;
    bits_[place] = true;
  }
  std::vector<bool> bits_ = std::vector<bool>(2200);
};

double sum_of(const std::vector<double>& terms) {
  ExactSum sum;
  for (const double term : terms) sum.add(term);
  return sum.value();
}

/// The terms divided over `ranks` at random, each rank's added up, and the sums of limbs.
double sum_in_groups(const std::vector<double>& terms, int ranks, std::mt19937_64& random) {
  std::vector<ExactSum> sums(ranks);
  for (const double term : terms) sums[random() % ranks].add(term);
  ExactSum all;
  for (ExactSum& sum : sums)
    for (std::size_t l = 0; l < all.limbs().size(); ++l) all.limbs()[l] += sum.limbs()[l];
  return all.value();
}

std::uint64_t bits(double x) { return std::bit_cast<std::uint64_t>(x); }

/// Any number >= 0 whose bits have an exponent field in [low, high).
double any_number(std::mt19937_64& random, int low, int high) {
  const std::uint64_t exponent = low + random() % (high - low);
  return std::bit_cast<double>(exponent << 52 | random() >> 12);
}

TEST(ExactSum, EqualsBinaryArithmeticInAnyOrderAndGrouping) {
  std::mt19937_64 random(3);
  // Exponent fields: all of fp64, denormal numbers and the first others, only those, squares of fp32 gradients, numbers of one size.
  for (const auto& [low, high] : {std::pair{0, 2040}, {0, 3}, {0, 1}, {0, 60}, {700, 1100}, {1000, 1023}, {1023, 1024}, {1900, 2040}})
    for (int trial = 0; trial < 60; ++trial) {
      std::vector<double> terms(1 + random() % 200);
      Binary oracle;
      for (double& term : terms) oracle.add(term = any_number(random, low, high));
      const double expected = oracle.truncated();
      for (int order = 0; order < 4; ++order) {
        std::shuffle(terms.begin(), terms.end(), random);
        ASSERT_EQ(bits(sum_of(terms)), bits(expected)) << terms.size() << " terms of exponents " << low << " to " << high;
        ASSERT_EQ(bits(sum_in_groups(terms, 1 + order * 3, random)), bits(expected));
      }
    }
}

TEST(ExactSum, EqualsWiderNumbersWhereTheyAreExact) {
  std::mt19937_64 random(4);
  for (int trial = 0; trial < 200; ++trial) {
    ExactSum sum;
    long double wide = 0;  // squares of fp32 numbers in [1, 2) have 48 bits, so sums of 2^15 of them have 63
    for (int i = 0; i < 1 << 15; ++i) {
      const double x = 1 + std::ldexp(static_cast<double>(random() >> 41), -23);
      sum.add(x * x);
      wide += static_cast<long double>(x) * x;
    }
    ASSERT_LE(sum.value(), wide);
    ASSERT_GT(std::nextafter(sum.value(), Limits::infinity()), wide) << "towards zero";
  }
}

// In fp64 the small terms vanish, or not, with the order.
TEST(ExactSum, KeepsWhatAPlainSumLoses) {
  std::vector<double> terms(1 << 20, std::ldexp(1.0, -60));
  terms.push_back(1);
  EXPECT_EQ(sum_of(terms), 1 + std::ldexp(1.0, -40));
  std::reverse(terms.begin(), terms.end());
  EXPECT_EQ(sum_of(terms), 1 + std::ldexp(1.0, -40));
  double plain = 0;
  for (const double term : terms) plain += term;
  EXPECT_EQ(plain, 1);
}

TEST(ExactSum, SpecialNumbers) {
  EXPECT_EQ(bits(ExactSum().value()), bits(0.0));
  EXPECT_EQ(bits(sum_of({0.0, -0.0})), bits(0.0));
  EXPECT_EQ(sum_of({Limits::denorm_min()}), Limits::denorm_min());
  EXPECT_EQ(sum_of(std::vector<double>(1000, Limits::denorm_min())), 1000 * Limits::denorm_min());
  EXPECT_EQ(sum_of({Limits::min(), -0.0, Limits::denorm_min()}), std::nextafter(Limits::min(), 1));
  EXPECT_EQ(sum_of({Limits::max()}), Limits::max());
  EXPECT_EQ(sum_of({Limits::max(), Limits::denorm_min()}), Limits::max());
  EXPECT_EQ(sum_of({Limits::max(), Limits::max()}), Limits::infinity());
  for (const double bad : {Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity(), -1.0, -Limits::quiet_NaN()}) {
    EXPECT_TRUE(std::isnan(sum_of({1, bad, 2}))) << bad;
    std::mt19937_64 random(5);
    EXPECT_TRUE(std::isnan(sum_in_groups({1, bad, 2, bad}, 3, random))) << "two ranks with a bad term must not cancel";
  }
}

TEST(ExactSum, ManyTerms) {
  const double x = std::nextafter(2.0, 0.0);  // all digits are ones
  ExactSum sum;
  for (int i = 0; i < 1 << 22; ++i) sum.add(x);
  EXPECT_EQ(sum.value(), std::ldexp(x, 22));
  for (std::int64_t& limb : sum.limbs()) limb *= 1 << 8;  // as many terms as it is made for
  EXPECT_EQ(sum.value(), std::ldexp(x, 30));
}

}  // namespace
}  // namespace collimate
