#include "collimate/rlhf/statistics.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "collimate/base/error.hpp"
#include "collimate/base/random.hpp"
#include "collimate/rlhf/minibatches.hpp"

namespace collimate::rlhf {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
using Floats = std::vector<float>;
using Offsets = std::vector<std::int64_t>;
using Mask = std::vector<std::uint8_t>;

TEST(Detail21, NormalisedScoresHaveMeanZeroAndDeviationOne) {
  std::vector<double> scores;
  for (int i = 0; i < 1000; ++i) scores.push_back(40 + 7 * RandomKey(1, Purpose::normalise).normal(i));
  const ScoreNormalisation normalise = normalisation_of(scores);
  for (double& score : scores) score = normalise(score);
  const MeanStd after = mean_std(scores);
  EXPECT_NEAR(after.mean, 0, 1e-12);
  EXPECT_NEAR(after.std, 1, 1e-12);
  const ScoreNormalisation golden = normalisation_of(std::vector<double>{1, 3});  // mu = 2, sigma = 1
  EXPECT_DOUBLE_EQ(golden.gain, 1);
  EXPECT_DOUBLE_EQ(golden.bias, -2);
  EXPECT_THROW(normalisation_of(std::vector<double>{5, 5, 5}), Error);
  EXPECT_THROW(normalisation_of(std::vector<double>{5}), Error);
  EXPECT_THROW(normalisation_of(std::vector<double>{5, nan}), Error);
}

TEST(Statistics, StandardErrorOverClusters) {
  EXPECT_DOUBLE_EQ(standard_error(std::vector<double>{1, 2, 3, 6}, 1), std::sqrt((4 + 1 + 0 + 9) / 3.0 / 4));
  EXPECT_DOUBLE_EQ(standard_error(std::vector<double>{0, 2, 5, 5, 8, 10}, 2), std::sqrt((16 + 0 + 16) / 2.0 / 3));  // means 1, 5, 9
  EXPECT_EQ(standard_error(std::vector<double>{3, 9}, 2), 0);
}

TEST(Statistics, ExplainedVariance) {
  const Offsets offsets{0, 2, 5};
  const Mask mask{1, 1, 1, 0, 1};
  const Floats returns{1, 2, 3, nan, 4};
  EXPECT_DOUBLE_EQ(explained_variance(Floats{1, 2, 3, nan, 4}, returns, {offsets, mask}), 1);
  EXPECT_DOUBLE_EQ(explained_variance(Floats{7, 7, 7, nan, 7}, returns, {offsets, mask}), 0);
  EXPECT_DOUBLE_EQ(explained_variance(Floats{2, 2, 3, nan, 3}, returns, {offsets, mask}), 1 - 0.5 / 1.25);
  EXPECT_EQ(explained_variance(Floats{1, 2}, Floats{3, 3}, {Offsets{0, 2}}), 0) << "constant returns";
}

TEST(Statistics, Lengths) {
  std::vector<std::int64_t> lengths;
  for (int i = 100; i > 0; --i) lengths.push_back(i);
  const LengthStatistics hundred = length_statistics(lengths);
  EXPECT_EQ(hundred.mean, 50.5);
  EXPECT_EQ(hundred.p95, 95);
  EXPECT_EQ(hundred.max, 100);
  EXPECT_EQ(length_statistics(std::vector<std::int64_t>{7}).p95, 7);
  EXPECT_EQ(length_statistics(std::vector<std::int64_t>{1, 2, 3}).p95, 3);
  EXPECT_EQ(length_statistics(std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}).p95, 12) << "11.4 of them, so all 12";
  EXPECT_EQ(length_statistics({}).max, 0);
}

TEST(Statistics, LogprobDistance) {
  const Offsets offsets{0, 3};
  const Mask mask{1, 0, 1};
  const LogprobDistance far = logprob_distance(Floats{-1, nan, -2}, Floats{-1.5f, 0, -1}, {offsets, mask});
  EXPECT_DOUBLE_EQ(far.mean_abs, 0.75);
  EXPECT_DOUBLE_EQ(far.max_abs, 1);
  EXPECT_DOUBLE_EQ(far.mult_prob_error, (std::exp(0.5) + std::exp(1.0)) / 2);
  const LogprobDistance same = logprob_distance(Floats{-1, 0, -2}, Floats{-1, 0, -2}, {offsets});
  EXPECT_EQ(same.mean_abs, 0);
  EXPECT_EQ(same.mult_prob_error, 1);
}

TEST(Detail40, EverySampleExactlyOncePerEpochAndTheLastRunIsKept) {
  for (const std::int64_t minibatch : {1, 4, 7, 10, 99}) {
    std::vector<int> used(10, 0);
    for (std::uint32_t epoch = 0; epoch < 4; ++epoch) {
      const auto runs = minibatches(10, minibatch, 42, 3, epoch);
      EXPECT_EQ(runs.size(), static_cast<std::size_t>((10 + minibatch - 1) / minibatch));
      for (const auto& run : runs)
        for (const std::int64_t sample : run) ++used.at(static_cast<std::size_t>(sample));
      EXPECT_EQ(static_cast<std::int64_t>(runs.back().size()), 10 - minibatch * static_cast<std::int64_t>(runs.size() - 1));
    }
    for (const int count : used) EXPECT_EQ(count, 4);
  }
  EXPECT_TRUE(minibatches(0, 4, 1, 1, 0).empty());
  EXPECT_THROW(minibatches(10, 0, 1, 1, 0), Error);
}

TEST(Detail40, TheOrderDependsOnSeedIterationAndEpochAlone) {
  const auto base = minibatches(64, 64, 1, 2, 3);
  EXPECT_EQ(base, minibatches(64, 64, 1, 2, 3));
  EXPECT_NE(base, minibatches(64, 64, 2, 2, 3));
  EXPECT_NE(base, minibatches(64, 64, 1, 3, 3));
  EXPECT_NE(base, minibatches(64, 64, 1, 2, 4));
  // Cutting finer keeps the order.
  std::vector<std::int64_t> joined;
  for (const auto& run : minibatches(64, 5, 1, 2, 3)) joined.insert(joined.end(), run.begin(), run.end());
  EXPECT_EQ(joined, base[0]);
}

TEST(Detail40, AllOrdersAreEquallyLikely) {
  int count[6] = {};
  for (std::uint64_t iteration = 0; iteration < 6000; ++iteration) {
    const auto order = minibatches(3, 3, 5, iteration, 0)[0];
    ++count[order[0] * 2 + (order[1] > order[2])];
  }
  for (const int c : count) EXPECT_NEAR(c, 1000, 150);  // five standard deviations
}

}  // namespace
}  // namespace collimate::rlhf
