#include "collimate/rlhf/advantages.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "collimate/base/error.hpp"
#include "collimate/base/random.hpp"
#include "support/refusal.hpp"

namespace collimate::rlhf {
namespace {

using test::refusal;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
using Floats = std::vector<float>;
using Offsets = std::vector<std::int64_t>;
using Mask = std::vector<std::uint8_t>;

TEST(Detail16, ATruncatedSampleGetsExactlyThatValue) {
  EXPECT_EQ(shape_score(3, false, {0, MissingEos::replace, -1}), -1);
  EXPECT_EQ(shape_score(3, false, {0, MissingEos::subtract, 1.5}), 1.5);
  EXPECT_EQ(shape_score(3, false, {0, MissingEos::ignore, 1}), 3);
  for (const auto rule : {MissingEos::ignore, MissingEos::subtract, MissingEos::replace}) EXPECT_EQ(shape_score(3, true, {0, rule, -1}), 3);
  EXPECT_EQ(shape_score(100, false, {10, MissingEos::subtract, 1}), 9) << "the clip does not swallow the penalty";
  EXPECT_TRUE(std::isnan(shape_score(nan, false, {10, MissingEos::replace, -1}))) << "nor does a rule hide a broken score";
}

TEST(Detail24, GoldenRewards) {
  // Sample 0 has three tokens, sample 1 one (T = 1), sample 2 none, sample 3 two.
  const Offsets offsets{0, 3, 4, 4, 6};
  const Floats logprob{-1, -2, -3, -0.5f, -4, -1};
  const Floats reference{-1.5f, -1, -3, -1, -4, -2};
  Floats rewards(6, nan);
  const auto kl = shape_rewards(rewards, logprob, reference, std::vector<double>{2, -1, 77, 0.5}, {offsets}, 0.1, KlEstimator::k1);
  const double expected[] = {-0.05, 0.1, 2, -1.05, 0, 0.4};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(rewards[i], expected[i], 1e-7) << i;
  EXPECT_EQ(kl, (std::vector<double>{-0.5, 0.5, 0, 1}));
}

TEST(Detail28, TheScoreIsClippedBeforeTheKlJoins) {
  const double score = shape_score(100, true, {10});
  Floats reward(1);
  shape_rewards(reward, Floats{-1}, Floats{-51}, std::vector<double>{score}, {Offsets{0, 1}}, 0.1, KlEstimator::k1);
  EXPECT_FLOAT_EQ(reward[0], 10 - 0.1f * 50);  // clipped after the KL it would be 10
  EXPECT_EQ(shape_score(-100, true, {10}), -10);
}

TEST(Detail26, TheKlOfASequenceIsASum) {
  const Floats logprob(8, -1), reference(8, -1.25f);
  Floats rewards(8);
  const auto kl = [&](std::int64_t length) {
    const Offsets offsets{0, length};
    return shape_rewards(rewards, logprob, reference, std::vector<double>{0}, {offsets}, 0, KlEstimator::k1)[0];
  };
  EXPECT_EQ(kl(4), 1);
  EXPECT_EQ(kl(8), 2);
}

TEST(Detail29, EqualLogprobsGiveAKlOfExactlyZero) {
  Floats logprob;
  for (int i = 0; i < 100; ++i) logprob.push_back(static_cast<float>(-10 * RandomKey(2, Purpose::evaluation).uniform(i)));
  for (const auto estimator : {KlEstimator::k1, KlEstimator::k2, KlEstimator::k3}) {
    Floats rewards(100);
    EXPECT_EQ(shape_rewards(rewards, logprob, logprob, std::vector<double>{0}, {Offsets{0, 100}}, 0.1, estimator)[0], 0);
    for (const float reward : rewards) EXPECT_EQ(reward, 0);
  }
}

/// A_t = sum over k of (gamma lambda)^k (r_{t+k} + gamma V_{t+k+1} - V_{t+k}), straight from the definition.
std::vector<double> definition(const Floats& r, const Floats& v, double gamma, double lambda) {
  const int length = static_cast<int>(r.size());
  std::vector<double> advantage(r.size(), 0.0);
  for (int t = 0; t < length; ++t)
    for (int k = 0; t + k < length; ++k) {
      const double next = t + k + 1 < length ? v[t + k + 1] : 0;
      advantage[t] += std::pow(gamma * lambda, k) * (r[t + k] + gamma * next - v[t + k]);
    }
  return advantage;
}

TEST(Detail30, ScanEqualsTheQuadraticDefinition) {
  const RandomKey key(4, Purpose::evaluation);
  const Offsets offsets{0, 17, 18, 18, 50};
  Floats rewards, values, advantages(50, nan), returns(50, nan);
  for (int i = 0; i < 50; ++i) {
    rewards.push_back(static_cast<float>(key.normal(i, 0)));
    values.push_back(static_cast<float>(key.normal(i, 1)));
  }
  for (const auto& [gamma, lambda] : {std::pair{1.0, 0.95}, {1.0, 1.0}, {0.9, 0.8}, {0.99, 0.0}}) {
    estimate_advantages(advantages, returns, rewards, values, {offsets}, gamma, lambda);
    for (std::size_t sample = 0; sample + 1 < offsets.size(); ++sample) {
      const auto cut = [&](const Floats& x) { return Floats(x.begin() + offsets[sample], x.begin() + offsets[sample + 1]); };
      const auto expected = definition(cut(rewards), cut(values), gamma, lambda);
      for (std::size_t t = 0; t < expected.size(); ++t) {
        EXPECT_NEAR(advantages[offsets[sample] + t], expected[t], 1e-6 * (1 + std::abs(expected[t])));
        EXPECT_NEAR(returns[offsets[sample] + t], expected[t] + values[offsets[sample] + t], 1e-6 * (1 + std::abs(expected[t])));
      }
    }
  }
}

TEST(Detail30, ReturnsAreTakenBeforeWhitening) {
  const Floats rewards{0, 0, 1}, values{0.5f, 0.25f, -1};
  Floats advantages(3), returns(3);
  const Offsets offsets{0, 3};
  estimate_advantages(advantages, returns, rewards, values, {offsets}, 1, 1);
  whiten(advantages, {offsets}, Variance::biased);
  for (const float r : returns) EXPECT_FLOAT_EQ(r, 1) << "gamma = lambda = 1: the return is the reward to come";
}

// Two samples in a padded [2,6] array: gaps inside the first, everything else poisoned.
TEST(Detail31, NaNInEverySlotThatIsNotValidChangesNothing) {
  const Offsets padded{0, 6, 12}, dense{0, 4, 6};
  const Mask mask{1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0};
  const RandomKey key(6, Purpose::evaluation);
  Floats logprob(12, nan), reference(12, nan), values(12, nan), dense_logprob, dense_reference, dense_values;
  for (std::size_t i = 0; i < 12; ++i) {
    if (!mask[i]) continue;
    dense_logprob.push_back(logprob[i] = static_cast<float>(key.normal(i, 0)));
    dense_reference.push_back(reference[i] = static_cast<float>(key.normal(i, 1)));
    dense_values.push_back(values[i] = static_cast<float>(key.normal(i, 2)));
  }
  const std::vector<double> scores{1, -2};
  const auto run = [&](const Floats& l, const Floats& ref, const Floats& v, const Responses& where) {
    Floats rewards(l.size(), nan), advantages(l.size(), nan), returns(l.size(), nan), kept;
    const auto kl = shape_rewards(rewards, l, ref, scores, where, 0.1, KlEstimator::k3);
    whiten(rewards, where, Variance::unbiased, true);
    estimate_advantages(advantages, returns, rewards, v, where, 0.9, 0.8);
    whiten(advantages, where, Variance::unbiased);
    for (std::size_t i = 0; i < l.size(); ++i) {
      if (!where.valid(static_cast<std::int64_t>(i))) {
        EXPECT_EQ(advantages[i], 0);
        EXPECT_EQ(returns[i], 0);
        continue;
      }
      for (const Floats* x : {&rewards, &advantages, &returns}) kept.push_back((*x)[i]);
    }
    for (const double x : kl) kept.push_back(static_cast<float>(x));
    return kept;
  };
  EXPECT_EQ(run(logprob, reference, values, {padded, mask}), run(dense_logprob, dense_reference, dense_values, {dense}));
  EXPECT_EQ((Responses{padded, mask}.length(0)), 4);
}

TEST(Detail32, NineValuesBiasedAndUnbiased) {
  Floats x;
  for (int i = 1; i <= 9; ++i) x.push_back(0.1f * static_cast<float>(i));
  const Offsets offsets{0, 4, 9};
  EXPECT_NEAR(moments_of(x, {offsets}, Variance::biased).variance, 0.0667, 5e-5);
  EXPECT_NEAR(moments_of(x, {offsets}, Variance::unbiased).variance, 0.0750, 5e-5);
  for (const auto& [kind, variance] : {std::pair{Variance::biased, 0.6 / 9}, {Variance::unbiased, 0.6 / 8}}) {
    Floats white = x;
    const Moments moments = whiten(white, {offsets}, kind);
    EXPECT_NEAR(moments.mean, 0.5, 1e-7);
    EXPECT_EQ(moments.count, 9);
    for (int i = 0; i < 9; ++i) EXPECT_NEAR(white[i], (0.1 * (i + 1) - 0.5) / std::sqrt(variance + 1e-8), 2e-6);
  }
}

TEST(Detail32, TheEpsilonStandsInsideTheRootAndOneValueIsNotNaN) {
  Floats x{1.0f, 1.0001f};
  whiten(x, {Offsets{0, 2}}, Variance::biased);
  const double half = (static_cast<double>(1.0001f) - 1) / 2;
  EXPECT_NEAR(x[1], half / std::sqrt(half * half + 1e-8), 1e-6);  // 0.4472; outside the root it would be nearly 1
  for (const auto kind : {Variance::biased, Variance::unbiased}) {
    Floats one{3};
    whiten(one, {Offsets{0, 1}}, kind);
    EXPECT_EQ(one[0], 0);
    Floats none;
    EXPECT_EQ(whiten(none, {Offsets{0, 0}}, kind).count, 0);
  }
}

TEST(Detail33, RewardWhiteningKeepsTheMean) {
  Floats x{1, 4, 2, 9};
  const Offsets offsets{0, 4};
  const double mean = moments_of(x, {offsets}, Variance::biased).mean;
  whiten(x, {offsets}, Variance::biased, true);
  EXPECT_NEAR(moments_of(x, {offsets}, Variance::biased).mean, mean, 1e-6);
  EXPECT_NEAR(moments_of(x, {offsets}, Variance::biased).variance, 1, 1e-6);
}

TEST(Detail44, ABrokenNumberNamesItsSampleAndToken) {
  const Offsets offsets{0, 2, 5};
  const Floats good(5, -1);
  Floats bad = good, out(5), returns(5);
  bad[3] = nan;
  const std::vector<double> scores{0, 0};
  EXPECT_NE(
      refusal([&] { shape_rewards(out, bad, good, scores, {offsets}, 0.1, KlEstimator::k1); }).find("KL of sample 1 at response token 1"),
      std::string::npos);
  EXPECT_NE(refusal([&] {
              shape_rewards(out, good, good, std::vector<double>{0, nan}, {offsets}, 0.1, KlEstimator::k1);
            }).find("reward of sample 1 at response token 2"),
            std::string::npos);
  EXPECT_NE(refusal([&] { estimate_advantages(out, returns, good, bad, {offsets}, 1, 1); }).find("value of sample 1 at response token 1"),
            std::string::npos);
  EXPECT_THROW(shape_rewards(out, good, good, std::vector<double>{0}, {offsets}, 0.1, KlEstimator::k1), Error);
  Floats small(4);
  EXPECT_THROW(estimate_advantages(small, returns, good, good, {offsets}, 1, 1), Error);
}

}  // namespace
}  // namespace collimate::rlhf
