#include "collimate/rlhf/losses.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "collimate/base/error.hpp"
#include "collimate/base/random.hpp"

namespace collimate::rlhf {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
using Floats = std::vector<float>;

// ---- supervised ----

TEST(SupervisedLoss, GoldenAndMasked) {
  Floats dlogprob(4, nan);
  const SupervisedTotals totals = supervised_loss(Floats{-1, nan, -3, -0.5f}, Floats{0.25f, 0, 0.5f, 0.25f}, dlogprob);
  EXPECT_EQ(totals.loss, 0.25 + 1.5 + 0.125);
  EXPECT_EQ(totals.nats, 4.5);
  EXPECT_EQ(totals.tokens, 3);
  EXPECT_EQ(totals.first_bad_row, -1);
  EXPECT_EQ(dlogprob, (Floats{-0.25f, 0, -0.5f, -0.25f}));
  Floats two(2);
  EXPECT_EQ(supervised_loss(Floats{-1, -std::numeric_limits<float>::infinity()}, Floats{1, 1}, two).first_bad_row, 1);
}

// ---- aggregation ----

TEST(Detail39, AHundredTokensAtTwoAndNineHundredAtAHalf) {
  const std::vector<std::int64_t> lengths{100, 900};
  const TokenCounts counts = count_tokens(lengths);
  const auto loss = [&](Aggregation aggregation) {
    return 100 * 2.0 * token_weight(aggregation, 100, counts) + 900 * 0.5 * token_weight(aggregation, 900, counts);
  };
  EXPECT_NEAR(loss(Aggregation::token_mean), 0.65, 1e-7);
  EXPECT_NEAR(loss(Aggregation::sequence_mean_token_mean), 1.25, 1e-7);
  EXPECT_NEAR(loss(Aggregation::sequence_mean_token_sum), 325, 1e-4);
}

TEST(Detail39, FullyMaskedSequencesAreLeftOut) {
  const TokenCounts counts = count_tokens(std::vector<std::int64_t>{3, 0, 5, 0});
  EXPECT_EQ(counts.tokens, 8);
  EXPECT_EQ(counts.sequences, 2);
  EXPECT_EQ(token_weight(Aggregation::sequence_mean_token_sum, 3, counts), 0.5f);
  EXPECT_EQ(token_weight(Aggregation::sequence_mean_token_mean, 5, counts), 0.1f);
  EXPECT_EQ(token_weight(Aggregation::token_mean, 5, counts), 0.125f);
  for (const auto aggregation : {Aggregation::token_mean, Aggregation::sequence_mean_token_mean, Aggregation::sequence_mean_token_sum})
    EXPECT_EQ(token_weight(aggregation, 0, counts), 0.0f);
  EXPECT_THROW(token_weight(Aggregation::token_mean, 9, counts), Error);
}

TEST(Detail39, TheGradientDoesNotDependOnTheMicroBatch) {
  const std::vector<std::int64_t> lengths{3, 1, 4, 2};
  const Floats logprob{-1, -2, -3, -4, -5, -6, -7, -8, -9, -10};
  const TokenCounts counts = count_tokens(lengths);
  for (const auto aggregation : {Aggregation::token_mean, Aggregation::sequence_mean_token_mean, Aggregation::sequence_mean_token_sum}) {
    Floats weight;
    for (const auto length : lengths)
      weight.insert(weight.end(), static_cast<std::size_t>(length), token_weight(aggregation, length, counts));
    Floats whole(10);
    const double loss = supervised_loss(logprob, weight, whole).loss;
    for (const std::size_t micro : {1, 2, 4, 10}) {
      Floats pieces(10);
      SupervisedTotals totals;
      for (std::size_t first = 0; first < 10; first += micro) {
        const std::size_t count = std::min(micro, 10 - first);
        totals += supervised_loss({&logprob[first], count}, {&weight[first], count}, {&pieces[first], count});
      }
      EXPECT_EQ(pieces, whole);
      EXPECT_NEAR(totals.loss, loss, 1e-12);
      EXPECT_EQ(totals.tokens, 10);
    }
  }
}

// ---- value ----

TEST(Detail38, GoldenValuesAndGradients) {
  struct Case {
    float value, old, target;
    double loss, gradient;
    int clipped;
  };
  const Case table[] = {
      {1.0f, 1.0f, 2.0f, 0.5, -1, 0},       // inside the clip
      {1.5f, 1.0f, 2.0f, 0.32, 0, 1},       // ran towards the target beyond the clip: (1.2 - 2)^2 / 2
      {0.0f, 1.0f, 2.0f, 2.0, -2, 0},       // ran away from it: the plain error is larger
      {3.0f, 1.0f, 2.0f, 0.5, 1, 0},        // beyond the target; clipped (0.8) is smaller than 1
      {2.1f, 1.0f, 2.0f, 0.32, 0, 1},
      {1.19f, 1.0f, 2.0f, 0.32805, -0.81, 0},  // just inside
  };
  for (const Case& c : table) {
    Floats gradient{nan};
    const ValueTotals totals = value_loss(Floats{c.value}, Floats{c.old}, Floats{c.target}, Floats{1}, {}, gradient);
    EXPECT_NEAR(totals.loss, c.loss, 2e-7) << c.value;
    EXPECT_NEAR(gradient[0], c.gradient, 2e-7) << c.value;
    EXPECT_EQ(totals.clipped, c.clipped) << c.value;
    const ValueTotals half = value_loss(Floats{c.value}, Floats{c.old}, Floats{c.target}, Floats{0.5f}, {0.2, 0.1}, gradient);
    EXPECT_NEAR(half.loss, 0.05 * c.loss, 2e-8);
    EXPECT_NEAR(gradient[0], 0.05 * c.gradient, 2e-8);
  }
  Floats gradient(1);
  EXPECT_NEAR(value_loss(Floats{1.5f}, Floats{1}, Floats{2}, Floats{1}, {0, 1}, gradient).loss, 0.125, 1e-12) << "clip 0 is no clip";
}

TEST(Detail38, GradientEqualsCentralDifferenceAndNaNStaysMasked) {
  const RandomKey key(3, Purpose::evaluation);
  Floats value, old, target, weight;
  const auto coarse = [](double x) { return static_cast<float>(std::round(x * 256) / 256); };
  for (int i = 0; i < 200; ++i) {
    value.push_back(coarse(key.normal(i, 0)));
    old.push_back(value.back() + coarse(0.3 * key.normal(i, 1)));
    target.push_back(coarse(key.normal(i, 2)));
    weight.push_back(i % 5 ? 0.5f : 0.0f);
    if (i % 5 == 0) value.back() = old.back() = target.back() = nan;
  }
  const ValueLossOptions options{0.25, 0.7};
  Floats gradient(200, nan), scratch(200);
  const ValueTotals totals = value_loss(value, old, target, weight, options, gradient);
  EXPECT_TRUE(std::isfinite(totals.loss));
  EXPECT_EQ(totals.tokens, 160);
  EXPECT_EQ(totals.first_bad_row, -1);
  for (std::size_t i = 0; i < 200; ++i) {
    if (i % 5 == 0) {
      EXPECT_EQ(gradient[i], 0.0f);
      continue;
    }
    const double held = std::clamp<double>(value[i], old[i] - 0.25, old[i] + 0.25);
    if (std::abs(std::abs(value[i] - old[i]) - 0.25) < 1e-3 || std::abs(std::abs(held - target[i]) - std::abs(value[i] - target[i])) < 1e-3)
      if (held != value[i] || std::abs(std::abs(value[i] - old[i]) - 0.25) < 1e-3) continue;  // a kink
    const float here = value[i], step = 1.0f / 4096;
    value[i] = here + step;
    const double above = value_loss(value, old, target, weight, options, scratch).loss;
    value[i] = here - step;
    const double below = value_loss(value, old, target, weight, options, scratch).loss;
    value[i] = here;
    EXPECT_NEAR(gradient[i], (above - below) / (2.0 * step), 1e-6) << i;
  }
  target[1] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(value_loss(value, old, target, weight, options, scratch).first_bad_row, 1);
}

// ---- reward model ----

/// All K (K - 1) / 2 pairs of one prompt whose K answers lie best first at first, first + 1, ...; each weighs 1 / (number of pairs).
std::vector<Pair> ranked_pairs(std::int32_t first, std::int32_t answers, float margin = 0) {
  std::vector<Pair> pairs;
  for (std::int32_t better = first; better < first + answers; ++better)
    for (std::int32_t worse = better + 1; worse < first + answers; ++worse) pairs.push_back({better, worse, margin, 2.0 / (answers * (answers - 1.0))});
  return pairs;
}

TEST(Detail18, TenThousandIsFinite) {
  for (const float x : {1e4f, -1e4f}) {
    Floats gradient(2);
    const PairTotals totals = pair_loss(Floats{x, 0}, ranked_pairs(0, 2), 1, gradient);
    EXPECT_EQ(totals.loss, x > 0 ? 0 : 1e4);
    EXPECT_EQ(gradient, x > 0 ? (Floats{0, 0}) : (Floats{-1, 1}));
    EXPECT_EQ(totals.first_bad_pair, -1);
    EXPECT_EQ(totals.correct, x > 0);
  }
  Floats gradient(2);
  EXPECT_EQ(pair_loss(Floats{nan, 0}, ranked_pairs(0, 2), 1, gradient).first_bad_pair, 0);
}

TEST(Detail18, MarginAndTieGolden) {
  Floats gradient(2);
  const PairTotals tie = pair_loss(Floats{0.5f, 0.5f}, ranked_pairs(0, 2), 1, gradient);
  EXPECT_NEAR(tie.loss, std::log(2.0), 1e-15);
  EXPECT_EQ(gradient, (Floats{-0.5f, 0.5f}));
  EXPECT_EQ(tie.correct, 0) << "a tie is not counted as right";
  const PairTotals margin = pair_loss(Floats{2, 0.5f}, ranked_pairs(0, 2, 0.5f), 1, gradient);
  EXPECT_NEAR(margin.loss, std::log(1 + std::exp(-1.0)), 1e-15);
  EXPECT_NEAR(gradient[0], -1 / (1 + std::exp(1.0)), 1e-7);
  EXPECT_EQ(margin.correct, 1);
}

TEST(Detail19, AllPairsOfAPromptWeighOneTogetherAndGiveTheHandSum) {
  const Floats scores{0.5f, -1.0f, 2.0f, 0.25f};  // best first
  const std::vector<Pair> pairs = ranked_pairs(0, 4);
  ASSERT_EQ(pairs.size(), 6u);
  double weight = 0;
  for (const Pair& pair : pairs) weight += pair.weight;
  EXPECT_NEAR(weight, 1, 1e-15);
  Floats gradient(4, nan);
  const PairTotals totals = pair_loss(scores, pairs, 1, gradient);
  double loss = 0, by_hand[4] = {};
  for (int better = 0; better < 4; ++better)
    for (int worse = better + 1; worse < 4; ++worse) {
      const double x = static_cast<double>(scores[better]) - scores[worse];
      loss += std::log(1 + std::exp(-x)) / 6;
      by_hand[better] -= 1 / (1 + std::exp(x)) / 6;
      by_hand[worse] += 1 / (1 + std::exp(x)) / 6;
    }
  EXPECT_NEAR(totals.loss, loss, 1e-14);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(gradient[i], by_hand[i], 1e-7);
  EXPECT_EQ(totals.pairs, 6);
  EXPECT_EQ(totals.correct, 3);  // 0.5 > -1, 0.5 > 0.25 and 2 > 0.25
}

TEST(Detail19, GradientEqualsCentralDifference) {
  Floats scores{0.5f, -1.0f, 2.0f, 0.25f, 0.75f}, gradient(5), scratch(5);
  std::vector<Pair> pairs = ranked_pairs(0, 3, 0.125f);
  for (const Pair& pair : ranked_pairs(3, 2)) pairs.push_back(pair);
  pair_loss(scores, pairs, 0.5, gradient);
  for (int i = 0; i < 5; ++i) {
    const float here = scores[i], step = 1.0f / 4096;
    scores[i] = here + step;
    const double above = pair_loss(scores, pairs, 0.5, scratch).loss;
    scores[i] = here - step;
    const double below = pair_loss(scores, pairs, 0.5, scratch).loss;
    scores[i] = here;
    EXPECT_NEAR(gradient[i], (above - below) / (2.0 * step), 1e-7) << i;
  }
}

TEST(Detail20, MarginsStayWithTheirPairsUnderAnyPermutation) {
  const int prompts = 5;
  const RandomKey key(11, Purpose::evaluation);
  Floats scores;
  std::vector<Pair> pairs;
  for (int p = 0; p < prompts; ++p) {
    scores.push_back(static_cast<float>(key.normal(p, 0)));
    scores.push_back(static_cast<float>(key.normal(p, 1)));
    pairs.push_back({2 * p, 2 * p + 1, static_cast<float>(key.uniform(p, 2)), 1});
  }
  Floats gradient(10), permuted(10), permuted_scores(10);
  const double loss = pair_loss(scores, pairs, 0.2, gradient).loss;
  std::vector<Pair> shuffled;
  const int order[] = {3, 0, 4, 2, 1};
  for (int p = 0; p < prompts; ++p) {
    permuted_scores[2 * p] = scores[2 * order[p]];
    permuted_scores[2 * p + 1] = scores[2 * order[p] + 1];
    shuffled.push_back({2 * p, 2 * p + 1, pairs[order[p]].margin, 1});
  }
  EXPECT_NEAR(pair_loss(permuted_scores, shuffled, 0.2, permuted).loss, loss, 1e-15);
  for (int p = 0; p < prompts; ++p) {
    EXPECT_EQ(permuted[2 * p], gradient[2 * order[p]]);
    EXPECT_EQ(permuted[2 * p + 1], gradient[2 * order[p] + 1]);
  }
  Floats short_gradient(9);
  EXPECT_THROW(pair_loss(scores, pairs, 1, short_gradient), Error);
  pairs[0].rejected = 10;
  EXPECT_THROW(pair_loss(scores, pairs, 1, gradient), Error);
}

}  // namespace
}  // namespace collimate::rlhf
