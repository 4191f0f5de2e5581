#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "collimate/base/error.hpp"
#include "support/small_model.hpp"
#include "support/numbers.hpp"

namespace collimate::test {
namespace {

struct Case {
  const char* name;
  ModelConfig config;
  int shards;
};

std::vector<Case> cases() {
  ModelConfig full = small_llama();
  full.kv_heads = 4;
  return {{"llama", small_llama(), 1}, {"llama, 4 shards", full, 4}, {"gpt2", small_gpt2(), 2}, {"gpt2, uneven shards", small_gpt2(), 4}};
}

/// An engine that generates, with weights large enough that its distributions are far from uniform.
struct Speaker : OneEngine {
  Speaker(const ModelConfig& config, int shards, std::int64_t slots)
      : OneEngine(config, Head::policy, shards, {.rows = 128, .slots = slots, .capacity = config.context + 1}) {
    roughen(*this);
    for (const char* name : {"embedding.weight", "head.weight"}) {
      if (!engine.store().layout().has(name)) continue;
      std::vector<float> values(engine.store().layout().parameter(name).shape.count());
      engine.store().read(Kind::value, name, 0, values);
      for (float& x : values) x *= 20;
      engine.store().write(Kind::value, name, 0, values);
    }
  }
};

std::vector<Prompt> some_prompts(const ModelConfig& config, std::uint64_t seed = 5) {
  std::vector<Prompt> prompts;
  const std::vector<int> lengths = {1, 9, 4, 1, 17, 20, 2, 13, 6, 11};
  for (const auto& sequence : some_sequences(config.vocabulary, lengths, seed))
    prompts.push_back({{sequence.begin(), sequence.end()}, 500 + prompts.size()});
  return prompts;
}

GenerateOptions some_options(double temperature) {
  GenerateOptions how;
  how.sampling.temperature = temperature;
  how.max_new = 18;
  how.stop = {3, 11};
  how.key = RandomKey(99, Purpose::sampling);
  how.round = 2;
  return how;
}

std::string text(const Continuation& c) {  // every bit that a caller sees
  std::string out = c.finish == Finish::length ? "length" : "end";
  for (std::size_t i = 0; i < c.tokens.size(); ++i) out += fmt::format(" {}:{:a}", c.tokens[i], c.logprobs[i]);
  return out;
}

TEST(Generation, DoesNotDependOnSlotsOrderOrCompany) {
  for (const Case& c : cases())
    for (const double temperature : {0.0, 1.0}) {
      const auto prompts = some_prompts(c.config);
      const auto how = some_options(temperature);
      std::map<std::uint64_t, std::string> expected;
      Speaker alone(c.config, c.shards, 1);
      for (const Prompt& prompt : prompts) expected[prompt.sample] = text(alone.engine.generate({&prompt, 1}, how)[0]);
      for (const std::int64_t slots : {1, 3, 8, 16}) {
        Speaker speaker(c.config, c.shards, slots);
        for (std::uint64_t order = 0; order < 3; ++order) {
          auto shuffled = prompts;
          const RandomKey key(order, Purpose::minibatch);
          for (std::size_t i = shuffled.size(); order && i > 1; --i) std::swap(shuffled[i - 1], shuffled[key.below(i, i)]);
          if (order == 2) shuffled.resize(4);
          const auto out = speaker.engine.generate(shuffled, how);
          ASSERT_EQ(out.size(), shuffled.size());
          for (std::size_t i = 0; i < out.size(); ++i)
            EXPECT_EQ(text(out[i]), expected[shuffled[i].sample]) << c.name << ", " << slots << " slots, temperature " << temperature;
        }
      }
    }
}

TEST(Generation, StopsAtStopTokensAndAtTheLimit) {
  int ended = 0, cut = 0;
  for (const Case& c : cases()) {
    Speaker speaker(c.config, c.shards, 4);
    const auto how = some_options(1);
    for (const Continuation& said : speaker.engine.generate(some_prompts(c.config), how)) {
      ASSERT_EQ(said.tokens.size(), said.logprobs.size());
      ASSERT_FALSE(said.tokens.empty());
      const auto stops = [&](std::int32_t token) { return std::find(how.stop.begin(), how.stop.end(), token) != how.stop.end(); };
      EXPECT_EQ(std::find_if(said.tokens.begin(), said.tokens.end() - 1, stops), said.tokens.end() - 1) << "went on after a stop token";
      EXPECT_EQ(said.finish == Finish::end_of_text, stops(said.tokens.back()));
      EXPECT_TRUE(said.finish == Finish::end_of_text || said.tokens.size() == static_cast<std::size_t>(how.max_new));
      EXPECT_LE(said.tokens.size(), static_cast<std::size_t>(how.max_new));
      ++(said.finish == Finish::length ? cut : ended);
    }
  }
  EXPECT_GT(ended, 0);
  EXPECT_GT(cut, 0);
}

// Each token by the definition: the first in vocabulary order at which the fp64 model's cumulative probability passes the draw.
TEST(Generation, DrawsTheTokenThatTheDefinitionGives) {
  for (const Case& c : cases())
    for (const double temperature : {0.7, 1.0}) {
      Speaker speaker(c.config, c.shards, 3);
      const auto prompts = some_prompts(c.config);
      const auto how = some_options(temperature);
      const auto out = speaker.engine.generate(prompts, how);
      const Weights weights = speaker.weights();
      const ReferenceModel reference(c.config, weights);
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        std::vector<int> all(prompts[i].tokens.begin(), prompts[i].tokens.end());
        all.insert(all.end(), out[i].tokens.begin(), out[i].tokens.end());
        const auto hidden = reference.hidden(all);
        for (std::size_t t = 0; t < out[i].tokens.size(); ++t) {
          const Vector& h = hidden[prompts[i].tokens.size() + t - 1];
          EXPECT_NEAR(out[i].logprobs[t], reference.logprob(h, out[i].tokens[t], temperature), 2e-4) << c.name;
          double below = 0;
          for (int token = 0; token < out[i].tokens[t]; ++token) below += std::exp(reference.logprob(h, token, temperature));
          const double draw = how.key.uniform(prompts[i].sample, static_cast<std::uint32_t>(t), how.round);
          EXPECT_LE(below, draw + 1e-4) << c.name;
          EXPECT_GE(below + std::exp(reference.logprob(h, out[i].tokens[t], temperature)), draw - 1e-4) << c.name;
        }
      }
    }
}

TEST(Generation, LogprobabilitiesAreNearTheTrainingForwards) {
  for (const Case& c : cases()) {
    Speaker speaker(c.config, c.shards, 5);
    const auto prompts = some_prompts(c.config);
    const auto how = some_options(0.8);
    const auto out = speaker.engine.generate(prompts, how);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      std::vector<int> all(prompts[i].tokens.begin(), prompts[i].tokens.end());
      all.insert(all.end(), out[i].tokens.begin(), out[i].tokens.end());
      const HandGrain grain({all});
      std::vector<float> logprob(grain.tokens.size()), entropy(grain.tokens.size());
      speaker.engine.score(grain.view(), 0.8f, logprob, entropy);
      for (std::size_t t = 0; t < out[i].tokens.size(); ++t)
        EXPECT_NEAR(out[i].logprobs[t], logprob[prompts[i].tokens.size() + t - 1], 1e-4) << c.name;
    }
  }
}

TEST(Generation, TemperatureZeroTakesTheLargestLogit) {
  for (const Case& c : cases()) {
    Speaker speaker(c.config, c.shards, 8);
    const auto prompts = some_prompts(c.config);
    const auto out = speaker.engine.generate(prompts, some_options(0));
    const Weights weights = speaker.weights();
    const ReferenceModel reference(c.config, weights);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      std::vector<int> all(prompts[i].tokens.begin(), prompts[i].tokens.end());
      all.insert(all.end(), out[i].tokens.begin(), out[i].tokens.end());
      const auto hidden = reference.hidden(all);
      for (std::size_t t = 0; t < out[i].tokens.size(); ++t) {
        const Vector logits = reference.logits(hidden[prompts[i].tokens.size() + t - 1]);
        EXPECT_EQ(out[i].tokens[t], std::max_element(logits.begin(), logits.end()) - logits.begin()) << c.name << " token " << t;
      }
    }
  }
}

TEST(Generation, FillsTheContextToItsLastToken) {
  for (const Case& c : cases()) {
    Speaker speaker(c.config, c.shards, 2);
    GenerateOptions how = some_options(1);
    how.stop.clear();
    const auto sequences = some_sequences(c.config.vocabulary, {static_cast<int>(c.config.context), 1});
    const Prompt longest{{sequences[0].begin(), sequences[0].end()}, 1}, shortest{{sequences[1].begin(), sequences[1].end()}, 2};
    how.max_new = 1;  // the last token is drawn and never read
    EXPECT_EQ(speaker.engine.generate({&longest, 1}, how)[0].tokens.size(), 1u);
    how.max_new = c.config.context;
    const auto said = speaker.engine.generate({&shortest, 1}, how)[0];
    ASSERT_EQ(said.tokens.size(), static_cast<std::size_t>(c.config.context));
    std::vector<int> all(shortest.tokens.begin(), shortest.tokens.end());
    all.insert(all.end(), said.tokens.begin(), said.tokens.end() - 1);
    const Weights weights = speaker.weights();
    const ReferenceModel reference(c.config, weights);
    EXPECT_NEAR(said.logprobs.back(), reference.logprob(reference.hidden(all).back(), said.tokens.back()), 2e-4) << c.name;
    how.max_new = 2;
    EXPECT_THROW(speaker.engine.generate({&longest, 1}, how), Error);
  }
}

TEST(Generation, NewDrawsForEverySampleRoundAndSeed) {
  const ModelConfig config = small_llama();
  Speaker speaker(config, 1, 4);
  GenerateOptions how = some_options(1);
  how.stop.clear();
  const Prompt prompt{{5, 6, 7}, 1};
  const auto said = [&] { return speaker.engine.generate({&prompt, 1}, how)[0].tokens; };
  const auto first = said();
  EXPECT_EQ(said(), first);
  how.round = 3;
  EXPECT_NE(said(), first);
  how = some_options(1), how.stop.clear(), how.key = RandomKey(100, Purpose::sampling);
  EXPECT_NE(said(), first);
  how = some_options(1), how.stop.clear();
  const Prompt twin{{5, 6, 7}, 2};
  EXPECT_NE(speaker.engine.generate({&twin, 1}, how)[0].tokens, first);
}

TEST(Generation, TopKOfOneIsGreedy) {
  for (const Case& c : cases()) {
    Speaker speaker(c.config, c.shards, 4);
    const auto prompts = some_prompts(c.config);
    auto how = some_options(1);
    how.sampling.top_k = 1;
    const auto narrow = speaker.engine.generate(prompts, how);
    const auto greedy = speaker.engine.generate(prompts, some_options(0));
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_EQ(narrow[i].tokens, greedy[i].tokens);
      for (const float logprob : narrow[i].logprobs) EXPECT_EQ(logprob, 0);
    }
  }
}

TEST(Generation, WrongRequestsAreRefusedInASentence) {
  const ModelConfig config = small_gpt2();
  Speaker speaker(config, 2, 2);
  GenerateOptions how = some_options(1);
  const auto refused = [&](const Prompt& prompt, const std::string& part) {
    try {
      speaker.engine.generate({&prompt, 1}, how);
      ADD_FAILURE() << "was generated: " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused({{}, 7}, "sample 7 has an empty prompt");
  refused({{1, 2, 29}, 8}, "29");
  refused({{1, -1, 2}, 8}, "-1");
  refused({std::vector<std::int32_t>(config.context, 1), 9}, "sample 9");
  how.max_new = 0;
  const Prompt prompt{{1, 2}, 1};
  EXPECT_TRUE(speaker.engine.generate({&prompt, 1}, how)[0].tokens.empty());
  EXPECT_TRUE(speaker.engine.generate({}, some_options(1)).empty());
}

TEST(Generation, BrokenWeightsAreRefusedWithTheSample) {
  for (const double temperature : {0.0, 1.0}) {
    Speaker speaker(small_llama(), 2, 2);
    const std::vector<float> nan(1, std::numeric_limits<float>::quiet_NaN());
    speaker.engine.store().write(Kind::value, "final_norm.gain", 5, nan);
    const Prompt prompt{{1, 2}, 77};
    try {
      speaker.engine.generate({&prompt, 1}, some_options(temperature));
      ADD_FAILURE() << "NaN was sampled from";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("sample 77"), std::string::npos) << error.what();
    }
  }
}

// A cache slot is used again: what another sequence left behind its new one's tokens must not matter.
TEST(Generation, ANaNInTheCacheIsGoneWithItsSequence) {
  for (const Case& c : cases()) {
    Speaker speaker(c.config, c.shards, 3);
    const auto prompts = some_prompts(c.config);
    const auto how = some_options(1);
    const auto expected = speaker.engine.generate(prompts, how);
    const std::vector<Tensor> values = speaker.engine.store().units(Kind::value);
    const std::vector<float> kept = test::numbers_of(values);
    test::set_numbers(values, std::vector<float>(kept.size(), std::numeric_limits<float>::quiet_NaN()));
    const std::vector<Prompt> longest(3, {std::vector<std::int32_t>(c.config.context - 2, 1), 0});
    auto short_answers = how;
    short_answers.max_new = 2;
    EXPECT_THROW(speaker.engine.generate(longest, short_answers), Error);
    test::set_numbers(values, kept);
    const auto again = speaker.engine.generate(prompts, how);
    for (std::size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(text(again[i]), text(expected[i])) << c.name;
  }
}

TEST(Engine, RefusesWhatWasNotPlanned) {
  OneEngine critic(small_llama(), Head::value, 1, {.rows = 32}), policy(small_llama(), Head::policy, 1, {.rows = 32});
  const HandGrain grain({{1, 2, 3}});
  std::vector<float> out(grain.tokens.size());
  const Prompt prompt{{1}, 0};
  EXPECT_THROW(critic.engine.score(grain.view(), 1, out, out), Error);
  EXPECT_THROW(policy.engine.values(grain.view(), out), Error);
  EXPECT_THROW(policy.engine.generate({&prompt, 1}, some_options(1)), Error);
  EXPECT_THROW(policy.engine.begin_step(1), Error);
  EXPECT_THROW(policy.engine.forward_backward(grain.view(), 1, {}, [](auto...) {}), Error);
}

TEST(Grain, TokensOutsideTheVocabularyAndTooLongSamplesAreRefused) {
  for (const ModelConfig& config : {small_gpt2(), small_llama()}) {
    OneEngine one(config, Head::policy, 1, {.rows = 128});
    std::vector<float> out(128);
    const auto refused = [&](const HandGrain& grain, const std::string& part) {
      try {
        one.engine.score(grain.view(), 1, std::span(out).first(grain.tokens.size()), std::span(out).first(grain.tokens.size()));
        ADD_FAILURE() << "was computed: " << part;
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      }
    };
    HandGrain grain({{1, 2, 3}});
    grain.tokens[1] = static_cast<std::int32_t>(config.vocabulary);
    refused(grain, "token");
    grain.tokens[1] = 2, grain.targets[0] = static_cast<std::int32_t>(config.vocabulary) + 5;
    refused(grain, "token");
    refused(HandGrain({std::vector<int>(config.context + 1, 1)}), "context");
  }
}

}  // namespace
}  // namespace collimate::test
