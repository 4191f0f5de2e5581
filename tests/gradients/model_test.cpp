#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "support/small_model.hpp"

// The whole model against a plain fp64 decoder: log-probabilities and values directly, gradients by central differences of the fp64 one.
namespace collimate::test {
namespace {

struct Case {
  const char* name;
  ModelConfig config;
  int shards;
  LoraConfig lora = {};  ///< with adapters only they and a value head have gradients
};

std::vector<Case> cases() {
  ModelConfig gpt2_tied = small_gpt2();
  gpt2_tied.tied = true;
  ModelConfig uneven = small_gpt2();  // 3 heads, 50 MLP columns and 29 tokens over 4 shards: one shard has no head
  ModelConfig full = small_llama();
  full.kv_heads = 4;
  const ModelConfig qwen = small_qwen2();  // 6 query heads on 3 key/value heads: over 2 shards only the second begins inside a group
  ModelConfig all_biases = small_llama();  // what attention_bias and mlp_bias ask for
  all_biases.bias = Biases::all();
  ModelConfig linear = small_llama();
  linear.rope_scaling = {.type = RopeScaling::Type::linear, .factor = 3.5};
  const LoraConfig everywhere{.rank = 3, .alpha = 2, .targets = adapter_targets()};
  return {{"llama", small_llama(), 1},
          {"llama two shards", small_llama(), 2},
          {"llama four shards", full, 4},
          {"gpt2", small_gpt2(), 1},
          {"gpt2 tied", gpt2_tied, 2},
          {"gpt2 uneven", uneven, 4},
          {"qwen2", qwen, 1},
          {"qwen2, the last shard shares", qwen, 2},
          {"qwen2, all shards share", qwen, 4},
          {"llama with all biases", all_biases, 2},
          {"llama with linear scaling", linear, 1},
          {"adapters", small_llama(), 1, {.rank = 3, .alpha = 5}},
          {"adapters everywhere, two shards", small_llama(), 2, everywhere},
          {"adapters everywhere, shared heads", small_llama(), 4, everywhere},
          {"adapters on qwen2, shared heads", qwen, 4, everywhere},
          {"adapters on gpt2, uneven", uneven, 4, {.rank = 2, .alpha = 3, .targets = {"key", "output", "up", "down"}}}};
}

const std::vector<int> lengths = {7, 1, 12, 3, 5};
constexpr double temperature = 0.7;

// loss = sum over targets of a_r logprob_r + b_r entropy_r with fixed numbers a, b
double coefficient(std::int64_t row, int which) { return std::sin(1.0 + 3.0 * static_cast<double>(row) + 10.0 * which); }

double scale_of(const LoraConfig& lora) { return lora.on() ? lora.alpha / static_cast<double>(lora.rank) : 0; }

double policy_oracle(const Case& c, const Weights& weights, const std::vector<std::vector<int>>& sequences) {
  const ReferenceModel model(c.config, weights, scale_of(c.lora));
  double loss = 0;
  std::int64_t row = 0;
  for (const auto& sequence : sequences) {
    const auto hidden = model.hidden(sequence);
    for (std::size_t t = 0; t < sequence.size(); ++t, ++row) {
      if (t + 1 == sequence.size()) continue;
      double entropy = 0;
      loss += coefficient(row, 0) * model.logprob(hidden[t], sequence[t + 1], temperature, &entropy);
      loss += coefficient(row, 1) * entropy;
    }
  }
  return loss;
}

double value_oracle(const Case& c, const Weights& weights, const std::vector<std::vector<int>>& sequences) {
  const ReferenceModel model(c.config, weights, scale_of(c.lora));
  double loss = 0;
  std::int64_t row = 0;
  for (const auto& sequence : sequences)
    for (const Vector& hidden : model.hidden(sequence)) loss += coefficient(row++, 2) * model.value(hidden);
  return loss;
}

void compare_gradients(OneEngine& one, const Case& c, const std::vector<std::vector<int>>& sequences, auto oracle) {
  Weights weights = one.weights();
  for (const Parameter& p : one.engine.learning().layout().parameters()) {
    std::vector<float> gradient(p.shape.count());
    one.engine.learning().read(Kind::gradient, p.name, 0, gradient);
    double largest = 0;
    for (const float g : gradient) largest = std::max(largest, std::abs(static_cast<double>(g)));
    const RandomKey key(11, Purpose::data_order);
    for (int i = 0; i < 3; ++i) {
      const auto element = static_cast<std::int64_t>(key.below(p.shape.count(), i));
      double& w = weights.at(p.name)[element];
      const double keep = w, step = 1e-5;
      w = keep + step;
      const double up = oracle(c, weights, sequences);
      w = keep - step;
      const double down = oracle(c, weights, sequences);
      w = keep;
      EXPECT_NEAR(gradient[element], (up - down) / (2 * step), 3e-5 * (1 + largest)) << c.name << " " << p.name << " element " << element;
    }
  }
}

TEST(Model, PolicyMatchesTheOracleForwardAndBackward) {
  for (const Case& c : cases()) {
    OneEngine one(c.config, Head::policy, c.shards, {.rows = 64, .most_grains = 1, .lora = c.lora});
    roughen(one);
    const auto sequences = some_sequences(c.config.vocabulary, lengths);
    const HandGrain grain(sequences);
    std::vector<float> logprob(grain.tokens.size()), entropy(grain.tokens.size());
    one.engine.score(grain.view(), temperature, logprob, entropy);
    const Weights weights = one.weights();
    const ReferenceModel reference(c.config, weights, scale_of(c.lora));
    std::int64_t row = 0;
    for (const auto& sequence : sequences) {
      const auto hidden = reference.hidden(sequence);
      for (std::size_t t = 0; t < sequence.size(); ++t, ++row) {
        if (t + 1 == sequence.size()) continue;
        double expected_entropy = 0;
        EXPECT_NEAR(logprob[row], reference.logprob(hidden[t], sequence[t + 1], temperature, &expected_entropy), 2e-5) << c.name;
        EXPECT_NEAR(entropy[row], expected_entropy, 2e-5) << c.name;
      }
    }
    one.engine.begin_step(1);
    one.engine.forward_backward(grain.view(), temperature, {}, [&](std::int64_t first, auto lp, auto ent, auto dlp, auto dent) {
      for (std::size_t i = 0; i < lp.size(); ++i) {
        const std::int64_t r = first + static_cast<std::int64_t>(i);
        if (grain.targets[r] < 0) continue;
        EXPECT_EQ(lp[i], logprob[r]) << "training and scoring must give the same bits";
        EXPECT_EQ(ent[i], entropy[r]);
        dlp[i] = static_cast<float>(coefficient(r, 0));
        dent[i] = static_cast<float>(coefficient(r, 1));
      }
    });
    one.engine.finish_step();
    compare_gradients(one, c, sequences, policy_oracle);
  }
}

TEST(Model, ValuesMatchTheOracleForwardAndBackward) {
  for (const Case& c : cases()) {
    OneEngine one(c.config, Head::value, c.shards, {.rows = 64, .most_grains = 1, .lora = c.lora});
    roughen(one);
    const auto sequences = some_sequences(c.config.vocabulary, lengths);
    const HandGrain grain(sequences);
    std::vector<float> values(grain.tokens.size());
    one.engine.values(grain.view(), values);
    one.engine.begin_step(1);
    one.engine.forward_backward(grain.view(), Dropout{}, [&](auto got, auto gradient) {
      for (std::int64_t r = 0; r < grain.offsets.back(); ++r) {
        EXPECT_EQ(got[r], values[r]);
        gradient[r] = static_cast<float>(coefficient(r, 2));
      }
    });
    one.engine.finish_step();
    const Weights weights = one.weights();
    const ReferenceModel reference(c.config, weights, scale_of(c.lora));
    std::int64_t row = 0;
    for (const auto& sequence : sequences)
      for (const Vector& hidden : reference.hidden(sequence)) EXPECT_NEAR(values[row++], reference.value(hidden), 2e-5) << c.name;
    compare_gradients(one, c, sequences, value_oracle);
  }
}

}  // namespace
}  // namespace collimate::test
