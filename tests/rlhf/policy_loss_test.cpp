#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "collimate/base/random.hpp"
#include "collimate/rlhf/losses.hpp"

namespace collimate::rlhf {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

struct Rows {
  std::vector<float> logprob, entropy, old_logprob, advantage, weight, reference;
  PolicyRows view() const { return {logprob, entropy, old_logprob, advantage, weight, reference}; }
};

struct Result {
  PolicyTotals totals;
  std::vector<float> dlogprob, dentropy;
};

Result run(const Rows& rows, const PolicyLossOptions& options) {
  Result result{{}, std::vector<float>(rows.logprob.size(), nan), std::vector<float>(rows.logprob.size(), nan)};
  result.totals = policy_loss(rows.view(), options, result.dlogprob, result.dentropy);
  return result;
}

Rows one(double ratio, float advantage) { return {{static_cast<float>(std::log(ratio)) - 1}, {0.5f}, {-1}, {advantage}, {1}, {-1}}; }

/// Multiples of 2^-8, so that the steps of a central difference are exact in fp32.
float coarse(double x) { return static_cast<float>(std::round(x * 256) / 256); }

/// The gradient that was written equals the central difference of the fp64 loss by x[i].
void expect_gradient(std::vector<float>& x, std::size_t i, float gradient, const std::function<double()>& loss) {
  const float here = x[i], step = 1.0f / 4096;
  x[i] = here + step;
  const double above = loss();
  x[i] = here - step;
  const double below = loss();
  x[i] = here;
  EXPECT_NEAR(gradient, (above - below) / (2.0 * step), 2e-6) << "row " << i;
}

TEST(Detail36, FirstMinibatchRatioIsExactlyOneAndNothingIsClipped) {
  Rows rows;
  for (int i = 0; i < 257; ++i) {
    const float logprob = -1e4f * static_cast<float>(RandomKey(1, Purpose::evaluation).uniform(i));
    rows.logprob.push_back(logprob);
    rows.old_logprob.push_back(logprob);
    rows.entropy.push_back(1);
    rows.advantage.push_back(i % 2 ? 1.5f : -0.5f);
    rows.weight.push_back(1.0f / 257);
  }
  PolicyLossOptions options;
  options.clip_low = options.clip_high = 0;  // even then: the ratio is exactly 1
  const Result result = run(rows, options);
  EXPECT_EQ(result.totals.max_abs_log_ratio, 0);
  EXPECT_EQ(result.totals.clipped, 0);
  EXPECT_EQ(result.totals.dual_clipped, 0);
  EXPECT_EQ(result.totals.approx_kl, 0);
  EXPECT_EQ(result.totals.tokens, 257);
  for (int i = 0; i < 257; ++i) EXPECT_EQ(result.dlogprob[i], static_cast<float>(-static_cast<double>(rows.advantage[i]) * rows.weight[i]));
}

TEST(Detail36, LogRatiosOfTenThousandStayFinite) {
  for (const float log_ratio : {1e4f, -1e4f, 21.0f, -21.0f})
    for (const float advantage : {2.0f, -2.0f}) {
      PolicyLossOptions options;
      options.dual_clip = 0;
      options.kl_coefficient = 0.1;
      options.kl_estimator = KlEstimator::k3;
      const Result result = run({{log_ratio}, {0}, {0}, {advantage}, {1}, {0}}, options);
      EXPECT_TRUE(std::isfinite(result.totals.loss)) << log_ratio;
      EXPECT_EQ(result.totals.first_bad_row, -1);
      EXPECT_EQ(result.dlogprob[0], 0.0f) << "the exponent is held there, and k3 with it";
      EXPECT_EQ(result.totals.max_abs_log_ratio, std::abs(log_ratio));
    }
}

// rho is below, inside or above [0.8, 1.2]; the loss is max(-A rho, -A clip(rho)); where the clip decides, the gradient is 0.
TEST(Detail37, ThreeByThreeTableOfAdvantageSignAndRatioRegion) {
  struct Case {
    float advantage;
    double ratio, loss, gradient;
    int clipped;
  };
  const Case table[] = {
      {2, 0.5, -1.0, -1.0, 0},  {2, 1.1, -2.2, -2.2, 0}, {2, 1.5, -2.4, 0, 1},
      {0, 0.5, 0, 0, 0},        {0, 1.1, 0, 0, 0},       {0, 1.5, 0, 0, 0},
      {-2, 0.5, 1.6, 0, 1},     {-2, 1.1, 2.2, 2.2, 0},  {-2, 1.5, 3.0, 3.0, 0},
  };
  for (const Case& c : table) {
    const Result result = run(one(c.ratio, c.advantage), {});
    EXPECT_NEAR(result.totals.loss, c.loss, 3e-7) << c.advantage << " " << c.ratio;
    EXPECT_NEAR(result.dlogprob[0], c.gradient, 3e-7) << c.advantage << " " << c.ratio;
    EXPECT_EQ(result.totals.clipped, c.clipped) << c.advantage << " " << c.ratio;
    EXPECT_EQ(result.totals.dual_clipped, 0);
  }
}

TEST(Detail37, LowAndHighClipAreSeparate) {
  PolicyLossOptions options;
  options.clip_low = 0.1;
  options.clip_high = 0.4;
  EXPECT_NEAR(run(one(1.3, 1), options).totals.loss, -1.3, 1e-6);
  EXPECT_NEAR(run(one(1.5, 1), options).totals.loss, -1.4, 1e-6);
  EXPECT_NEAR(run(one(0.85, -1), options).totals.loss, 0.9, 1e-6);
}

TEST(Detail37, DualClipBoundsTheLossOfANegativeAdvantageOnly) {
  const Result bounded = run(one(5, -2), {});  // c = 3
  EXPECT_NEAR(bounded.totals.loss, 6, 1e-9);
  EXPECT_EQ(bounded.dlogprob[0], 0.0f);
  EXPECT_EQ(bounded.totals.dual_clipped, 1);
  const Result inside = run(one(2.5, -2), {});
  EXPECT_NEAR(inside.totals.loss, 5, 1e-6);
  EXPECT_NEAR(inside.dlogprob[0], 5, 1e-6);
  EXPECT_EQ(inside.totals.dual_clipped, 0);
  PolicyLossOptions off;
  off.dual_clip = 0;
  EXPECT_NEAR(run(one(5, -2), off).totals.loss, 10, 1e-5);
  EXPECT_NEAR(run(one(5, 2), {}).totals.loss, -2.4, 1e-9) << "a positive advantage knows only the ordinary clip";
}

TEST(Detail37, GradientsEqualCentralDifferences) {
  const RandomKey key(5, Purpose::evaluation);
  Rows rows;
  for (int i = 0; i < 200; ++i) {
    rows.old_logprob.push_back(coarse(-2 + key.normal(i, 0)));
    rows.logprob.push_back(rows.old_logprob.back() + coarse(0.6 * key.normal(i, 1)));
    rows.entropy.push_back(coarse(1 + key.uniform(i, 2)));
    rows.advantage.push_back(coarse(key.normal(i, 3)));
    rows.reference.push_back(coarse(-2 + key.normal(i, 4)));
    rows.weight.push_back(i % 7 == 0 ? 0 : coarse(key.uniform(i, 5)));
  }
  for (const KlEstimator estimator : {KlEstimator::k1, KlEstimator::k2, KlEstimator::k3}) {
    const PolicyLossOptions options{0.2, 0.3, 1.5, 0.25, 0.5, estimator};
    const Result result = run(rows, options);
    EXPECT_GT(result.totals.clipped, 10);
    EXPECT_GT(result.totals.dual_clipped, 10);
    const auto loss = [&] { return run(rows, options).totals.loss; };
    for (std::size_t i = 0; i < rows.logprob.size(); ++i) {
      const double rho = std::exp(rows.logprob[i] - rows.old_logprob[i]);
      const bool at_a_kink = std::abs(rho - 0.8) < 1e-3 || std::abs(rho - 1.3) < 1e-3 || std::abs(rho - 1.5) < 1e-3;
      if (!at_a_kink) expect_gradient(rows.logprob, i, result.dlogprob[i], loss);
      expect_gradient(rows.entropy, i, result.dentropy[i], loss);
    }
  }
}

TEST(PolicyLoss, ChunksAddUpToTheWholeAndRowsDoNotSeeEachOther) {
  const RandomKey key(9, Purpose::evaluation);
  Rows whole;
  std::uint32_t number = 0;
  for (std::vector<float>* column :
       {&whole.logprob, &whole.entropy, &whole.old_logprob, &whole.advantage, &whole.weight, &whole.reference}) {
    for (int i = 0; i < 100; ++i) column->push_back(static_cast<float>(key.uniform(i, number)));
    ++number;
  }
  const PolicyLossOptions options{0.2, 0.2, 3, 0.1, 0.2, KlEstimator::k2};
  const Result all = run(whole, options);
  PolicyTotals sum;
  for (const auto& [first, count] : {std::pair{0, 33}, {33, 1}, {34, 66}}) {
    const auto cut = [&](const std::vector<float>& x) { return std::vector<float>(x.begin() + first, x.begin() + first + count); };
    const Result part = run({cut(whole.logprob), cut(whole.entropy), cut(whole.old_logprob), cut(whole.advantage), cut(whole.weight),
                             cut(whole.reference)}, options);
    sum += part.totals;
    for (int i = 0; i < count; ++i) EXPECT_EQ(part.dlogprob[i], all.dlogprob[first + i]);
  }
  EXPECT_NEAR(sum.loss, all.totals.loss, 1e-12);
  EXPECT_NEAR(sum.approx_kl, all.totals.approx_kl, 1e-12);
  EXPECT_NEAR(sum.reference_kl, all.totals.reference_kl, 1e-12);
  EXPECT_NEAR(sum.entropy, all.totals.entropy, 1e-12);
  EXPECT_EQ(sum.max_abs_log_ratio, all.totals.max_abs_log_ratio);
  EXPECT_EQ(sum.clipped, all.totals.clipped);
  EXPECT_EQ(sum.tokens, 100);
}

TEST(Detail31, RowsOfWeightZeroMayHoldNaN) {
  const Rows rows{{-1, nan, -2}, {1, nan, 1}, {-1.1f, nan, -2.2f}, {1, infinity, -1}, {0.5f, 0, 0.5f}, {-1, nan, -1}};
  const Rows without{{-1, -2}, {1, 1}, {-1.1f, -2.2f}, {1, -1}, {0.5f, 0.5f}, {-1, -1}};
  const PolicyLossOptions options{0.2, 0.2, 3, 0.1, 0.1, KlEstimator::k3};
  const Result masked = run(rows, options), clean = run(without, options);
  EXPECT_EQ(masked.totals.loss, clean.totals.loss);
  EXPECT_EQ(masked.totals.tokens, 2);
  EXPECT_EQ(masked.totals.first_bad_row, -1);
  EXPECT_EQ(masked.dlogprob, (std::vector<float>{clean.dlogprob[0], 0, clean.dlogprob[1]}));
  EXPECT_EQ(masked.dentropy[1], 0.0f);
}

TEST(Detail44, TheFirstBadRowIsNamed) {
  for (const float bad : {nan, infinity, -infinity})
    for (int column = 0; column < 5; ++column) {
      Rows rows{{-1, -1, -1}, {1, 1, 1}, {-1, -1, -1}, {1, 1, 1}, {1, 1, 1}, {-1, -1, -1}};
      std::vector<float>* columns[] = {&rows.logprob, &rows.entropy, &rows.old_logprob, &rows.advantage, &rows.reference};
      (*columns[column])[1] = bad;
      const PolicyLossOptions options{0.2, 0.2, 3, 0, 0.1, KlEstimator::k2};
      PolicyTotals totals = run(rows, options).totals;
      EXPECT_EQ(totals.first_bad_row, 1) << column << " " << bad;
      PolicyTotals later;
      later.first_bad_row = 0;
      totals += later;
      EXPECT_EQ(totals.first_bad_row, 1) << "the first chunk with a bad row decides";
    }
}

}  // namespace
}  // namespace collimate::rlhf
