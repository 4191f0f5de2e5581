#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "collimate/base/error.hpp"
#include "collimate/base/random.hpp"
#include "collimate/rlhf/kl_controller.hpp"
#include "collimate/rlhf/kl_estimator.hpp"

namespace collimate::rlhf {
namespace {

constexpr double p[5] = {0.1, 0.2, 0.4, 0.25, 0.05};  // the policy
constexpr double q[5] = {0.3, 0.1, 0.2, 0.3, 0.1};    // the reference

double exact_kl() {
  double kl = 0;
  for (int i = 0; i < 5; ++i) kl += p[i] * std::log(p[i] / q[i]);
  return kl;
}

int draw(double u) {
  int token = 0;
  while (token < 4 && u >= p[token]) u -= p[token++];
  return token;
}

TEST(Detail25, MonteCarloOfK1AndK3IsTheExactDivergence) {
  const RandomKey key(17, Purpose::evaluation);
  const int n = 200000;
  for (const auto estimator : {KlEstimator::k1, KlEstimator::k3}) {
    double sum = 0, squares = 0;
    for (int i = 0; i < n; ++i) {
      const int token = draw(key.uniform(i));
      const double value = kl_term(estimator, std::log(p[token]), std::log(q[token])).value;
      sum += value;
      squares += value * value;
      ASSERT_TRUE(estimator == KlEstimator::k1 || value >= 0);
    }
    const double mean = sum / n, sigma = std::sqrt((squares / n - mean * mean) / n);
    EXPECT_NEAR(mean, exact_kl(), 3 * sigma);
    EXPECT_LT(sigma, 0.01 * exact_kl()) << "the test has teeth";
  }
}

// By the logits z_j of the policy: d log p_i / d z_j = [i = j] - p_j, so the expected gradient of a loss is exact, without sampling;
// that of the divergence is p_j (log(p_j / q_j) - KL).
TEST(Detail25, ExpectedGradientOfK2IsThatOfTheDivergenceAndOfK1IsZero) {
  double k3_error = 0;
  for (int j = 0; j < 5; ++j) {
    double k1 = 0, k2 = 0, k3 = 0;
    for (int i = 0; i < 5; ++i) {
      const double by_logit = (i == j) - p[j], l = std::log(p[i]), ref = std::log(q[i]);
      k1 += p[i] * kl_term(KlEstimator::k1, l, ref).gradient * by_logit;
      k2 += p[i] * kl_term(KlEstimator::k2, l, ref).gradient * by_logit;
      k3 += p[i] * kl_term(KlEstimator::k3, l, ref).gradient * by_logit;
    }
    const double exact = p[j] * (std::log(p[j] / q[j]) - exact_kl());
    EXPECT_NEAR(k1, 0, 1e-15);
    EXPECT_NEAR(k2, exact, 1e-15);
    EXPECT_NEAR(k3, p[j] - q[j], 1e-15);  // the gradient of the reverse divergence
    k3_error += std::abs(k3 - exact);
  }
  EXPECT_GT(k3_error, 0.01);
}

TEST(Detail25, GoldenValuesAndCentralDifferences) {
  EXPECT_DOUBLE_EQ(kl_term(KlEstimator::k1, -1, -1.5).value, 0.5);
  EXPECT_DOUBLE_EQ(kl_term(KlEstimator::k2, -1, -1.5).value, 0.125);
  EXPECT_NEAR(kl_term(KlEstimator::k3, -1, -1.5).value, 0.10653065971263342, 1e-15);
  for (const auto estimator : {KlEstimator::k1, KlEstimator::k2, KlEstimator::k3})
    for (const double l : {-3.0, -1.0, -0.25}) {
      const double h = 1e-5, difference = (kl_term(estimator, l + h, -1.5).value - kl_term(estimator, l - h, -1.5).value) / (2 * h);
      EXPECT_NEAR(kl_term(estimator, l, -1.5).gradient, difference, 1e-8);
    }
  EXPECT_TRUE(std::isfinite(kl_term(KlEstimator::k3, -1e4, 0).value));
  EXPECT_EQ(kl_term(KlEstimator::k3, -1e4, 0).gradient, 0);
}

TEST(Detail27, ClosedFormAfterTenUpdates) {
  KlController controller({0.15, 6, 10000});
  // KL 12 is clipped to +0.2, KL 6.6 is +0.1, KL 3 is clipped to -0.2, KL 6 changes nothing.
  for (int i = 0; i < 4; ++i) controller.update(12, 512);
  for (int i = 0; i < 2; ++i) controller.update(6.6, 512);
  for (int i = 0; i < 3; ++i) controller.update(3, 512);
  controller.update(6, 512);
  const double n = 512.0 / 10000;
  const double expected = 0.15 * std::pow(1 + 0.2 * n, 4) * std::pow(1 + 0.1 * n, 2) * std::pow(1 - 0.2 * n, 3);
  EXPECT_NEAR(controller.beta(), expected, 1e-15);
  KlController again({0.15, 6, 10000});
  again.restore(controller.beta());
  EXPECT_EQ(again.beta(), controller.beta());
}

// The KLs of the samples lie on ranks in pieces; gathered in index order they give one mean, whatever the split.
TEST(Detail27, TheSplitOfTheSamplesDoesNotMatter) {
  std::vector<double> kl;
  for (int i = 0; i < 97; ++i) kl.push_back(3 + 5 * RandomKey(8, Purpose::evaluation).uniform(i));
  const auto beta_after = [&](int ranks) {
    std::vector<double> gathered;
    for (int r = 0; r < ranks; ++r)
      gathered.insert(gathered.end(), kl.begin() + 97 * r / ranks, kl.begin() + 97 * (r + 1) / ranks);
    double sum = 0;
    for (const double x : gathered) sum += x;
    KlController controller({0.15, 6, 10000});
    controller.update(sum / 97, 97);
    return controller.beta();
  };
  for (const int ranks : {2, 3, 4, 8}) EXPECT_EQ(beta_after(ranks), beta_after(1));
  EXPECT_NE(beta_after(1), 0.15);
}

TEST(KlController, FixedStaysAndBadInputIsRefused) {
  KlController fixed({0.05});
  fixed.update(100, 512);
  EXPECT_EQ(fixed.beta(), 0.05);
  EXPECT_THROW(KlController({-1}), Error);
  EXPECT_THROW(KlController({0.1, 6, 0}), Error);
  KlController controller({0.15, 6, 100});
  EXPECT_THROW(controller.update(std::numeric_limits<double>::quiet_NaN(), 512), Error);
  EXPECT_THROW(controller.update(0, 512), Error) << "one update would turn the coefficient negative";
  EXPECT_THROW(controller.restore(-1), Error);
}

}  // namespace
}  // namespace collimate::rlhf
