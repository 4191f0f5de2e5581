#include <gtest/gtest.h>

#include <cmath>

#include "collimate/optim/optimizer.hpp"
#include "support/small_model.hpp"

// Engines whose parameters are frozen beside adapters; their gradients are in tests/gradients.
namespace collimate::test {
namespace {

const LoraConfig everywhere{.rank = 3, .alpha = 6, .targets = adapter_targets()};

std::vector<float> logprobs(Engine& engine, const HandGrain& grain) {
  std::vector<float> logprob(grain.tokens.size()), entropy(grain.tokens.size());
  engine.score(grain.view(), 1, logprob, entropy);
  return logprob;
}

// The sum of all log-probabilities of a grain, and its gradient.
double learn(OneEngine& one, const HandGrain& grain, const Dropout& dropout) {
  double sum = 0;
  one.engine.begin_step(1);
  one.engine.forward_backward(grain.view(), 1, dropout, [&](std::int64_t, auto logprob, auto, auto dlogprob, auto) {
    for (std::size_t i = 0; i < logprob.size(); ++i) {
      sum += logprob[i];
      dlogprob[i] = 1;
    }
  });
  one.engine.finish_step();
  return sum;
}

TEST(Adapters, FreshOnesChangeNothingAndFrozenParametersStay) {
  for (const int shards : {1, 4}) {
    const EngineUse use{.rows = 64, .most_grains = 1};
    EngineUse with = use;
    with.lora = everywhere;
    OneEngine plain(small_llama(), Head::policy, shards, use), one(small_llama(), Head::policy, shards, with);
    const HandGrain grain(some_sequences(37, {7, 1, 12, 3, 5}));
    const auto before = one.engine.store().hashes(Kind::value);
    EXPECT_EQ(before, plain.engine.store().hashes(Kind::value));
    const auto own = logprobs(plain.engine, grain);
    EXPECT_EQ(logprobs(one.engine, grain), own);
    Optimizer optimizer(one.engine.learning(), {.rate = 0}, 0);
    for (int step = 0; step < 2; ++step) {
      learn(one, grain, {});
      optimizer.step(0.01);
    }
    EXPECT_EQ(one.engine.store().hashes(Kind::value), before);
    EXPECT_NE(logprobs(one.engine, grain), own);
    for (const Parameter& p : one.engine.adapters()->layout().parameters()) EXPECT_NE(p.name.find(".lora_"), std::string::npos) << p.name;
  }
}

TEST(Adapters, AnEngineThatSharesTheParametersIsTheModelWithThemOff) {
  EngineUse with{.rows = 64, .most_grains = 1, .lora = everywhere};
  const auto device = make_device();
  MemoryPlan plan(*device);
  Workspace workspace(plan);
  Engine actor("actor", small_llama(), Head::policy, {}, with, workspace);
  const std::size_t planned = plan.planned_bytes(Memory::device);
  Engine reference("reference", small_llama(), Head::policy, {}, {.rows = 64, .frozen = &actor.store()}, workspace);
  EXPECT_LT(plan.planned_bytes(Memory::device), planned + 4096) << "no second copy";  // its rotary table
  workspace.reserve();
  plan.commit();
  actor.prepare();
  reference.prepare();
  actor.store().initialise(1);
  actor.adapters()->initialise(1);
  const HandGrain grain(some_sequences(37, {7, 1, 12, 3, 5}));
  const auto start = logprobs(actor, grain);
  EXPECT_EQ(logprobs(reference, grain), start);
  for (const Parameter& p : actor.adapters()->layout().parameters())
    actor.adapters()->write(Kind::value, p.name, 0, std::vector<float>(p.shape.count(), 0.1f));
  EXPECT_NE(logprobs(actor, grain), start);
  EXPECT_EQ(logprobs(reference, grain), start);
}

TEST(Adapters, AreThereWhenTokensAreDrawn) {
  for (const int shards : {1, 4}) {
    OneEngine one(small_llama(), Head::policy, shards, {.rows = 64, .slots = 3, .capacity = 40, .lora = everywhere});
    roughen(one);
    std::vector<Prompt> prompts;
    for (const auto& sequence : some_sequences(37, {3, 9, 1, 6, 4}))
      prompts.push_back({{sequence.begin(), sequence.end()}, prompts.size()});
    GenerateOptions how;
    how.max_new = 8;
    const auto out = one.engine.generate(prompts, how);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      std::vector<int> whole(prompts[i].tokens.begin(), prompts[i].tokens.end());
      whole.insert(whole.end(), out[i].tokens.begin(), out[i].tokens.end());
      const auto scored = logprobs(one.engine, HandGrain({whole}));
      for (std::size_t t = 0; t < out[i].tokens.size(); ++t)
        EXPECT_NEAR(out[i].logprobs[t], scored[prompts[i].tokens.size() - 1 + t], 2e-5) << shards << " shards, token " << t;
    }
  }
}

// Along its own gradient a parameter's change moves the loss by step times the gradient's square, with the masks of the same step.
TEST(Adapters, DropoutHasItsGradient) {
  LoraConfig lora = everywhere;
  lora.dropout = 0.3;
  for (const int shards : {1, 2}) {
    OneEngine one(small_llama(), Head::policy, shards, {.rows = 64, .most_grains = 1, .lora = lora});
    roughen(one);
    const HandGrain grain(some_sequences(37, {7, 1, 12, 3, 5}));
    const Dropout dropout{.seed = 3, .step = 5, .adapters = lora.dropout};
    const double dropped = learn(one, grain, dropout);
    EXPECT_EQ(learn(one, grain, dropout), dropped);
    EXPECT_NE(learn(one, grain, {}), dropped);
    learn(one, grain, dropout);
    ParameterStore& adapters = *one.engine.adapters();
    for (const Parameter& p : adapters.layout().parameters()) {
      std::vector<float> values(p.shape.count()), gradient(values.size()), moved(values.size());
      learn(one, grain, dropout);
      adapters.read(Kind::value, p.name, 0, values);
      adapters.read(Kind::gradient, p.name, 0, gradient);
      double square = 0;
      for (const float g : gradient) square += static_cast<double>(g) * g;
      const double step = 3e-3 / std::sqrt(square), expected = 2 * step * square;
      const auto at = [&](double distance) {
        for (std::size_t i = 0; i < values.size(); ++i) moved[i] = static_cast<float>(values[i] + distance * gradient[i]);
        adapters.write(Kind::value, p.name, 0, moved);
        return learn(one, grain, dropout);
      };
      EXPECT_NEAR(at(step) - at(-step), expected, 2e-5 + 0.01 * expected) << p.name << ", " << shards << " shards";
      adapters.write(Kind::value, p.name, 0, values);
    }
  }
}

TEST(Adapters, WhatDoesNotFitIsRefused) {
  const auto refused = [](LoraConfig lora, const ModelConfig& config, const std::string& words) {
    try {
      lora.check(config);
      ADD_FAILURE() << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  refused({.rank = 100}, small_llama(), "lora.rank = 100");
  refused({.rank = 2, .targets = {"gate"}}, small_gpt2(), "gate");
}

}  // namespace
}  // namespace collimate::test
