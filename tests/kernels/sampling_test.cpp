#include <algorithm>
#include <map>
#include <numeric>

#include "collimate/base/random.hpp"
#include "collimate/kernels/head.hpp"
#include "kernels/support.hpp"

namespace collimate::kernels {
namespace {

using Index = std::int64_t;

struct Draw {
  std::int32_t token;
  double logprob;
};

/// Sorting by brute force, sums in double.
Draw oracle(const float* logits, Index columns, const Sampling& how, double uniform) {
  std::vector<Index> order(columns);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return logits[a] > logits[b]; });
  if (how.temperature == 0) {
    double total = 0;
    for (const Index i : order) total += std::exp(static_cast<double>(logits[i]) - logits[order[0]]);
    return {static_cast<std::int32_t>(order[0]), -std::log(total)};
  }
  if (how.top_k && how.top_k < columns) order.resize(how.top_k);
  const auto weight = [&](Index i) { return std::exp((static_cast<double>(logits[i]) - logits[order[0]]) / how.temperature); };
  double total = 0;
  for (const Index i : order) total += weight(i);
  if (how.top_p < 1) {
    double mass = 0;
    std::size_t kept = 0;
    while (kept < order.size() && mass < how.top_p * total) mass += weight(order[kept++]);
    order.resize(kept);
    total = mass;
  }
  const double log_total = std::log(total), top = logits[order[0]];
  std::sort(order.begin(), order.end());
  double reached = 0;
  for (const Index i : order) {
    reached += std::exp((logits[i] - top) / how.temperature);
    if (reached > uniform * total) return {static_cast<std::int32_t>(i), (logits[i] - top) / how.temperature - log_total};
  }
  return {-1, 0};
}

TEST(Sampling, AgreesWithSortingInDouble) {
  const RandomKey key(3, Purpose::sampling);
  const Sampling settings[] = {{}, {.temperature = 0.5}, {.temperature = 0}, {.top_k = 1}, {.top_k = 7}, {.top_k = 10000}, {.top_p = 0.8},
                               {.top_p = 0.01}, {.temperature = 2, .top_k = 40, .top_p = 0.5}, {.temperature = 0.8, .top_p = 0.95}};
  for (const Index columns : {1, 5, 100, 735, 3000}) {
    Host host;
    constexpr Index rows = 40;
    const Tensor logits = host.random({rows, columns}, 5, 3.0f), uniforms = host.make({rows}, DType::f64);
    for (Index r = 0; r < rows; ++r) uniforms.as<double>()[r] = key.uniform(r, static_cast<std::uint32_t>(columns));
    for (Index i = 0; i < logits.count(); i += 3) logits.as<float>()[i] = std::round(logits.as<float>()[i]);  // ties, also -0
    for (const Sampling& how : settings) {
      const Tensor tokens = host.make({rows}, DType::i32), logprobs = host.make({rows});
      sample_tokens(tokens, logprobs, logits, uniforms, how, host.stream());
      for (Index r = 0; r < rows; ++r) {
        const Draw expected = oracle(logits.slice(r, 1).as<float>(), columns, how, uniforms.as<double>()[r]);
        EXPECT_EQ(tokens.as<std::int32_t>()[r], expected.token)
            << columns << " tokens, k " << how.top_k << " p " << how.top_p << " row " << r;
        EXPECT_NEAR(logprobs.as<float>()[r], expected.logprob, 3e-6);
      }
    }
  }
}

TEST(Sampling, DrawsTheDistribution) {
  Host host;
  const Tensor logits = host.make({1, 4}), uniform = host.make({1}, DType::f64), token = host.make({1}, DType::i32),
               logprob = host.make({1});
  const double p[] = {0.1, 0.2, 0.3, 0.4};
  for (int i = 0; i < 4; ++i) logits.as<float>()[i] = static_cast<float>(std::log(p[i]));
  const RandomKey key(1, Purpose::sampling);
  std::map<int, int> counts;
  for (int i = 0; i < 20000; ++i) {
    uniform.as<double>()[0] = key.uniform(i);
    sample_tokens(token, logprob, logits, uniform, {}, host.stream());
    ++counts[token.as<std::int32_t>()[0]];
    ASSERT_NEAR(logprob.as<float>()[0], std::log(p[token.as<std::int32_t>()[0]]), 1e-6);
  }
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(counts[i] / 20000.0, p[i], 0.015);
}

TEST(Sampling, TiesGoToTheLowerIdAndTheEdgesHold) {
  Host host;
  const Tensor logits = host.filled({1, 50}, 1.5f), uniform = host.make({1}, DType::f64), token = host.make({1}, DType::i32),
               logprob = host.make({1});
  const auto draw = [&](double u, const Sampling& how) {
    uniform.as<double>()[0] = u;
    sample_tokens(token, logprob, logits, uniform, how, host.stream());
    return token.as<std::int32_t>()[0];
  };
  const double last = 1 - 0x1.0p-53;
  EXPECT_EQ(draw(0.9, {.temperature = 0}), 0);
  EXPECT_EQ(draw(last, {.top_k = 3}), 2);
  EXPECT_EQ(draw(last, {.top_p = 0.1}), 4);
  EXPECT_EQ(draw(0.0, {}), 0);
  EXPECT_EQ(draw(last, {}), 49);
  EXPECT_EQ(draw(0.5, {}), 25) << "a token takes the draws from its lower border on, which is exact here";
  for (int i = 0; i < 50; ++i) logits.as<float>()[i] = i == 20 ? 0.0f : -std::numeric_limits<float>::infinity();
  EXPECT_EQ(draw(0.0, {}), 20);
  EXPECT_EQ(draw(last, {}), 20);
  EXPECT_THROW(draw(0.5, {.temperature = -1}), Error);
  EXPECT_THROW(draw(0.5, {.temperature = 1e-300}), Error);
  EXPECT_THROW(draw(0.5, {.top_p = 0}), Error);
  EXPECT_THROW(draw(0.5, {.top_k = -1}), Error);
}

}  // namespace
}  // namespace collimate::kernels
