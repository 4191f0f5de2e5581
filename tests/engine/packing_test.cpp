#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "support/small_model.hpp"
#include "support/numbers.hpp"

// Numerics contract R5: what a model says of a sample depends on that sample alone.
namespace collimate::test {
namespace {

struct Case {
  const char* name;
  ModelConfig config;
  int shards;
};

std::vector<Case> cases() {
  ModelConfig llama = small_llama(), gpt2 = small_gpt2();
  llama.context = gpt2.context = 320;
  llama.kv_heads = 4;
  gpt2.tied = true;
  ModelConfig grouped = llama;
  grouped.kv_heads = 2;
  grouped.tied = false;
  return {{"llama", grouped, 1}, {"llama, 2 shards", grouped, 2}, {"llama, 4 shards", llama, 4},
          {"gpt2", gpt2, 1},     {"gpt2, 2 shards", gpt2, 2},     {"gpt2, 4 shards", gpt2, 4}};
}

// Around the borders of blocks of rows (256), the least rows (16) and attention tiles.
const std::vector<int> lengths = {1, 2, 15, 16, 17, 33, 64, 65, 129, 255, 256, 257, 300};
constexpr std::int64_t most_rows = 1100;
constexpr float temperature = 0.9f;

/// Per sample and token: log-probability and entropy, or value.
using Said = std::vector<std::vector<float>>;

/// One grain of these samples in this order; numbers[s] is sample s's global number.
HandGrain packed(const std::vector<std::vector<int>>& samples, const std::vector<int>& order) {
  std::vector<std::vector<int>> sequences;
  for (const int s : order) sequences.push_back(samples[s]);
  HandGrain grain(sequences);
  for (std::int64_t r = 0; r < grain.offsets.back(); ++r) grain.samples[r] = 1000 + order[grain.samples[r]];
  return grain;
}

Said unpack(const HandGrain& grain, const std::vector<float>& a, const std::vector<float>& b) {
  Said out;
  for (std::size_t s = 0; s + 1 < grain.offsets.size(); ++s) {
    out.emplace_back(a.begin() + grain.offsets[s], a.begin() + grain.offsets[s + 1]);
    out.back().insert(out.back().end(), b.begin() + grain.offsets[s], b.begin() + grain.offsets[s + 1]);
  }
  return out;
}

Said score(OneEngine& one, const HandGrain& grain) {
  std::vector<float> logprob(grain.tokens.size()), entropy(grain.tokens.size());
  one.engine.score(grain.view(), temperature, logprob, entropy);
  return unpack(grain, logprob, entropy);
}

Said values(OneEngine& one, const HandGrain& grain) {
  std::vector<float> values(grain.tokens.size());
  one.engine.values(grain.view(), values);
  return unpack(grain, values, std::vector<float>(values.size()));
}

/// What the training forward says; weight(sample, position) multiplies the gradient of a log-probability.
Said learn(OneEngine& one, const HandGrain& grain, const Dropout& dropout, const std::function<double(std::int64_t, int)>& weight) {
  std::vector<float> logprob(grain.tokens.size()), entropy(grain.tokens.size());
  one.engine.begin_step(1);
  one.engine.forward_backward(grain.view(), temperature, dropout, [&](std::int64_t first, auto lp, auto ent, auto dlp, auto dent) {
    for (std::size_t i = 0; i < lp.size(); ++i) {
      const std::size_t r = first + i;
      logprob[r] = lp[i], entropy[r] = ent[i];
      if (grain.targets[r] < 0) continue;
      dlp[i] = static_cast<float>(weight(grain.samples[r], grain.positions[r]));
      dent[i] = 0.1f * dlp[i];
    }
  });
  one.engine.finish_step();
  return unpack(grain, logprob, entropy);
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<float> gradient(const OneEngine& one) {
  std::vector<float> out;
  for (const Parameter& p : one.engine.store().layout().parameters()) {
    std::vector<float> values(p.shape.count());
    one.engine.store().read(Kind::gradient, p.name, 0, values);
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

/// Random subsets of the samples in random order that fit into a grain.
std::vector<std::vector<int>> random_packings(int count, std::uint64_t seed) {
  const RandomKey key(seed, Purpose::minibatch);
  std::vector<std::vector<int>> out(count);
  for (int p = 0; p < count; ++p) {
    std::vector<int> all(lengths.size());
    std::iota(all.begin(), all.end(), 0);
    for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[key.below(i, p, static_cast<std::uint32_t>(i))]);
    int rows = 0;
    for (const int s : all)
      if (rows + lengths[s] + 16 <= most_rows && key.uniform(p, 100 + s) < 0.8) rows += lengths[s], out[p].push_back(s);
  }
  return out;
}

double some_weight(std::int64_t sample, int position) { return std::sin(1 + 0.37 * static_cast<double>(sample) + 1.7 * position); }

TEST(Packing, LogprobabilitiesDoNotSeeNeighboursPlaceOrOrder) {
  for (const Case& c : cases()) {
    OneEngine one(c.config, Head::policy, c.shards, {.rows = most_rows, .most_grains = 1});
    const auto samples = some_sequences(c.config.vocabulary, lengths);
    Said alone;
    for (std::size_t s = 0; s < samples.size(); ++s) alone.push_back(score(one, packed(samples, {static_cast<int>(s)}))[0]);
    for (const auto& order : random_packings(6, 3)) {
      const HandGrain grain = packed(samples, order);
      const Said scored = score(one, grain), learned = learn(one, grain, {}, some_weight);
      for (std::size_t i = 0; i < order.size(); ++i) {
        EXPECT_TRUE(same(scored[i], alone[order[i]])) << c.name << ": sample of " << lengths[order[i]] << " tokens at place " << i;
        EXPECT_TRUE(same(learned[i], alone[order[i]])) << c.name << ": training, " << lengths[order[i]] << " tokens at place " << i;
      }
    }
  }
}

TEST(Packing, ValuesDoNotSeeNeighboursPlaceOrOrder) {
  for (const Case& c : cases()) {
    OneEngine one(c.config, Head::value, c.shards, {.rows = most_rows});
    const auto samples = some_sequences(c.config.vocabulary, lengths);
    Said alone;
    for (std::size_t s = 0; s < samples.size(); ++s) alone.push_back(values(one, packed(samples, {static_cast<int>(s)}))[0]);
    for (const auto& order : random_packings(4, 5)) {
      const Said together = values(one, packed(samples, order));
      for (std::size_t i = 0; i < order.size(); ++i)
        EXPECT_TRUE(same(together[i], alone[order[i]])) << c.name << ": sample of " << lengths[order[i]] << " tokens at place " << i;
    }
  }
}

TEST(Packing, ANaNStaysInItsSample) {
  for (Case c : cases()) {
    c.config.tied = false;  // a tied head would show the poisoned token to everyone
    OneEngine one(c.config, Head::policy, c.shards, {.rows = most_rows, .most_grains = 1});
    auto samples = some_sequences(c.config.vocabulary - 1, lengths);
    const int poison = static_cast<int>(c.config.vocabulary) - 1;
    for (const int s : {3, 6, 10}) samples[s][samples[s].size() / 2] = poison;
    const HandGrain grain = packed(samples, {3, 0, 10, 5, 6, 2, 8});
    const Said clean = score(one, grain);
    const std::vector<float> nan(c.config.width, std::numeric_limits<float>::quiet_NaN());
    one.engine.store().write(Kind::value, "embedding.weight", poison * c.config.width, nan);
    const Said scored = score(one, grain), learned = learn(one, grain, {}, some_weight);
    for (const std::size_t i : {1, 3, 5, 6}) {
      EXPECT_TRUE(same(scored[i], clean[i])) << c.name << " place " << i;
      EXPECT_TRUE(same(learned[i], clean[i])) << c.name << " place " << i;
    }
    for (const std::size_t i : {0, 2, 4}) {
      const std::size_t half = scored[i].size() / 4, last = scored[i].size() / 2 - 2;
      EXPECT_TRUE(std::isnan(scored[i][half]) && std::isnan(scored[i][last])) << c.name << ": the poison must be live";
    }
  }
}

// Buffers are used again and again: what an earlier grain left in them, also behind the rows in use, must not matter.
TEST(Packing, ANaNIsGoneWithItsGrain) {
  for (const Case& c : cases()) {
    OneEngine one(c.config, Head::policy, c.shards, {.rows = most_rows, .most_grains = 2});
    const auto samples = some_sequences(c.config.vocabulary, lengths);
    const HandGrain large = packed(samples, {12, 11, 10, 5}), small = packed(samples, {3, 1, 6});
    const Said clean = learn(one, small, {0.1, 3, 1}, some_weight), scored = score(one, small);
    const auto expected = gradient(one);
    const std::vector<Tensor> values = one.engine.store().units(Kind::value);
    const std::vector<float> kept = test::numbers_of(values);
    test::set_numbers(values, std::vector<float>(kept.size(), std::numeric_limits<float>::quiet_NaN()));
    EXPECT_TRUE(std::isnan(learn(one, large, {0.1, 3, 1}, some_weight)[0][0]));
    EXPECT_TRUE(std::isnan(score(one, large)[0][0]));
    test::set_numbers(values, kept);
    const Said again = learn(one, small, {0.1, 3, 1}, some_weight), scored_again = score(one, small);
    for (std::size_t i = 0; i < clean.size(); ++i) {
      EXPECT_TRUE(same(again[i], clean[i])) << c.name << " place " << i;
      EXPECT_TRUE(same(scored_again[i], scored[i])) << c.name << " place " << i;
    }
    EXPECT_TRUE(same(gradient(one), expected)) << c.name;
  }
}

TEST(Packing, TokensDoNotSeeWhatComesBehindThem) {
  for (const Case& c : cases()) {
    OneEngine one(c.config, Head::policy, c.shards, {.rows = most_rows});
    const auto samples = some_sequences(c.config.vocabulary, {300});
    const Said whole = score(one, packed(samples, {0}));
    for (const std::size_t length : {2, 17, 65, 130, 257}) {
      const auto prefix = std::vector<std::vector<int>>{{samples[0].begin(), samples[0].begin() + static_cast<std::ptrdiff_t>(length)}};
      const Said said = score(one, packed(prefix, {0}));
      for (std::size_t t = 0; t + 1 < length; ++t) ASSERT_EQ(said[0][t], whole[0][t]) << c.name << " token " << t << " of " << length;
    }
  }
}

TEST(Packing, ASampleWithoutWeightLeavesTheGradientOfTheOthers) {
  for (const Case& c : cases()) {
    OneEngine one(c.config, Head::policy, c.shards, {.rows = most_rows, .most_grains = 1});
    const auto samples = some_sequences(c.config.vocabulary, lengths);
    const auto weight = [](std::int64_t sample, int position) { return sample >= 1005 ? 0 : some_weight(sample, position); };
    learn(one, packed(samples, {4, 2, 3}), {}, weight);
    const auto expected = gradient(one);
    learn(one, packed(samples, {4, 2, 3, 6, 5, 12}), {}, weight);
    const auto behind = gradient(one);
    learn(one, packed(samples, {5, 4, 12, 2, 3, 6}), {}, weight);
    const auto between = gradient(one);
    const float largest =
        std::abs(*std::max_element(expected.begin(), expected.end(), [](float a, float b) { return std::abs(a) < std::abs(b); }));
    ASSERT_GT(largest, 0.01f);
    std::size_t unequal = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      unequal += behind[i] != expected[i];
      ASSERT_NEAR(between[i], expected[i], 1e-5 * largest) << c.name;  // their rows lie in other blocks, so sums round otherwise
    }
    EXPECT_EQ(unequal, 0u) << c.name << ": zeros behind must not change a bit";
  }
}

TEST(Packing, DropoutMasksFollowTheSample) {
  for (const Case& c : cases()) {
    OneEngine one(c.config, Head::policy, c.shards, {.rows = most_rows, .most_grains = 1});
    const auto samples = some_sequences(c.config.vocabulary, lengths);
    const Dropout dropout{0.25, 77, 3};
    Said alone;
    for (std::size_t s = 0; s < samples.size(); ++s)
      alone.push_back(learn(one, packed(samples, {static_cast<int>(s)}), dropout, some_weight)[0]);
    for (const auto& order : random_packings(2, 7)) {
      const Said together = learn(one, packed(samples, order), dropout, some_weight);
      for (std::size_t i = 0; i < order.size(); ++i) EXPECT_TRUE(same(together[i], alone[order[i]])) << c.name << " place " << i;
    }
    const HandGrain grain = packed(samples, {7});
    EXPECT_TRUE(same(learn(one, grain, {0, 77, 3}, some_weight)[0], score(one, grain)[0])) << c.name;
    EXPECT_FALSE(same(alone[7], score(one, grain)[0])) << c.name;
    EXPECT_FALSE(same(alone[7], learn(one, grain, {0.25, 78, 3}, some_weight)[0])) << c.name << " seed";
    EXPECT_FALSE(same(alone[7], learn(one, grain, {0.25, 77, 4}, some_weight)[0])) << c.name << " step";
    HandGrain renamed = grain;
    for (std::int64_t r = 0; r < renamed.offsets.back(); ++r) renamed.samples[r] = 5;
    EXPECT_FALSE(same(alone[7], learn(one, renamed, dropout, some_weight)[0])) << c.name << " sample";
  }
}

// What is computed again has the masks of the first time: not a bit of the gradient differs.
TEST(Packing, RecomputationKeepsTheMasks) {
  for (const Case& c : cases()) {
    const HandGrain grain = packed(some_sequences(c.config.vocabulary, lengths), {4, 2, 6});
    std::vector<float> kept;
    for (const Recompute how : {Recompute::none, Recompute::selective, Recompute::full}) {
      OneEngine one(c.config, Head::policy, c.shards, {.rows = most_rows, .most_grains = 1, .recompute = {how, 1}});
      learn(one, grain, {0.3, 5, 1}, some_weight);
      if (kept.empty()) kept = gradient(one);
      EXPECT_EQ(gradient(one), kept) << c.name << ", recompute " << static_cast<int>(how);
    }
  }
}

// The change of the loss along its gradient, with the same masks: a backward with other masks than the forward's would miss it.
TEST(Packing, TheGradientUnderDropoutIsThatOfTheSameMasks) {
  for (const Case& c : cases()) {
    OneEngine one(c.config, Head::policy, c.shards, {.rows = most_rows, .most_grains = 1});
    const HandGrain grain = packed(some_sequences(c.config.vocabulary, lengths), {4, 2, 6});
    const Dropout dropout{0.3, 5, 1};
    const auto loss = [&] {
      const Said said = learn(one, grain, dropout, some_weight);
      double sum = 0;
      for (std::size_t s = 0; s < said.size(); ++s) {
        const std::size_t n = said[s].size() / 2;
        for (std::size_t t = 0; t + 1 < n; ++t)
          sum += some_weight(grain.samples[grain.offsets[s]], static_cast<int>(t)) * (said[s][t] + 0.1 * said[s][n + t]);
      }
      return sum;
    };
    loss();
    const auto direction = gradient(one);
    double squares = 0;
    for (const double g : direction) squares += g * g;
    const double step = 2e-3 / std::sqrt(squares);
    const auto move = [&](double by) {
      std::size_t at = 0;
      for (const Parameter& p : one.engine.store().layout().parameters()) {
        std::vector<float> values(p.shape.count());
        one.engine.store().read(Kind::value, p.name, 0, values);
        for (float& x : values) x += static_cast<float>(by * direction[at++]);
        one.engine.store().write(Kind::value, p.name, 0, values);
      }
    };
    move(step);
    const double up = loss();
    move(-2 * step);
    const double down = loss();
    EXPECT_NEAR((up - down) / (2 * step * squares), 1, 0.02) << c.name;
  }
}

}  // namespace
}  // namespace collimate::test
