#include <gtest/gtest.h>

#include <limits>

#include "support/copy_task.hpp"
#include "support/numbers.hpp"

namespace collimate {
namespace {

constexpr std::int64_t steps = 4;

struct Outcome {
  std::vector<std::uint64_t> gradients;  // of each step
  std::uint64_t values = 0, moments = 0;
  ParameterStore::PendingSteps pending;
  std::int64_t units = 0;  // whose state rests on the host
  bool same_numbers(const Outcome& other) const { return gradients == other.gradients && values == other.values && moments == other.moments; }
};

/// Some steps, between which nobody looks at values. `between` is called after each.
Outcome learn(const ModelConfig& config, Division division, const std::function<void(test::Pupil&)>& between = {}, DType type = DType::f32) {
  const test::CopyTask task;
  test::Pupil pupil(task, config, division, 3, {}, type);
  ParameterStore& store = pupil.one.engine.store();
  const auto hash = [&](Kind kind) { return combine(store.layout(), store.hashes(kind)); };
  Outcome out;
  for (std::int64_t step = 1; step <= steps; ++step) {
    pupil.one.engine.begin_step(3);
    pupil.add_grains(step, {0, 1, 2}, 3, 0);
    pupil.one.engine.finish_step();
    out.gradients.push_back(hash(Kind::gradient));
    pupil.optimizer.step(3e-3);
    if (between) between(pupil);
  }
  for (const bool on_host : store.layout().last_units(division.host.state)) out.units += on_host;
  out.values = hash(Kind::value);
  out.moments = hash(Kind::first_moment);
  out.pending = store.pending_steps();
  return out;
}

constexpr HostShares shares[] = {{1, 1}, {0, 1}, {0.3, 0.6}, {0, 0.5}};

// All but the last step of each unit happen when its values are fetched next; the numbers are those of steps done at once, and of the device.
TEST(PendingSteps, AreDoneAtTheNextFetch) {
  const test::CopyTask task;
  for (const ModelConfig& config : {task.llama(), task.gpt2()})
    for (const DType type : {DType::f32, DType::bf16}) {
      const Outcome right = learn(config, {.shards = 2}, {}, type);
      EXPECT_EQ(right.pending.at_fetch + right.pending.settled, 0) << "on the device nothing is pending";
      for (const HostShares& host : shares) {
        const Outcome pending = learn(config, {.shards = 2, .host = host}, {}, type),
                      at_once = learn(config, {.shards = 2, .host = host, .pending = false}, {}, type);
        EXPECT_TRUE(pending.same_numbers(right)) << host.values << " " << host.state;
        EXPECT_TRUE(at_once.same_numbers(right)) << host.values << " " << host.state;
        EXPECT_GT(pending.units, 0);
        EXPECT_EQ(pending.pending.at_fetch, (steps - 1) * pending.units);
        EXPECT_EQ(pending.pending.settled, pending.units) << "the last step, by the hash";
        EXPECT_EQ(at_once.pending.at_fetch + at_once.pending.settled, 0);
      }
    }
}

// Whoever looks at values or moments between two steps sees those of the last step.
TEST(PendingSteps, WhoLooksSettlesThem) {
  const test::CopyTask task;
  using Look = std::function<std::vector<float>(test::Pupil&)>;
  const auto read = [](Kind kind) {
    return [kind](test::Pupil& pupil) {
      const ParameterStore& store = pupil.one.engine.store();
      std::vector<float> numbers;
      for (const Parameter& p : store.layout().parameters()) {
        std::vector<float> part(p.shape.count());
        store.read(kind, p.name, 0, part);
        numbers.insert(numbers.end(), part.begin(), part.end());
      }
      return numbers;
    };
  };
  const Look score = [&](test::Pupil& pupil) {
    const test::HandGrain grain = task.grain(9, 0);
    std::vector<float> logprob(grain.tokens.size()), entropy(grain.tokens.size());
    pupil.one.engine.score(grain.view(), 1, logprob, entropy);
    return logprob;
  };
  const Look hash = [](test::Pupil& pupil) {
    std::vector<float> halves;
    for (const std::uint64_t h : pupil.one.engine.store().hashes(Kind::value)) halves.insert(halves.end(), {static_cast<float>(h >> 40), static_cast<float>(h & 0xffffff)});
    return halves;
  };
  const Look one_row = [](test::Pupil& pupil) {  // a part of one parameter
    std::vector<float> some(3);
    pupil.one.engine.store().read(Kind::second_moment, "final_norm.gain", 1, some);
    return some;
  };
  for (const Look& look : {Look(read(Kind::value)), Look(read(Kind::first_moment)), Look(read(Kind::second_moment)), score, hash, one_row}) {
    const auto seen = [&](const Division& division) {
      std::vector<std::vector<float>> all;
      const Outcome out = learn(task.llama(), division, [&](test::Pupil& pupil) { all.push_back(look(pupil)); });
      return std::pair{all, out.values};
    };
    const auto right = seen({.shards = 2});
    EXPECT_NE(right.first[0], right.first[1]) << "a step changes what is seen";
    for (const HostShares& host : shares) EXPECT_EQ(seen({.shards = 2, .host = host}), right) << host.values << " " << host.state;
  }
}

// What is written after a step stays: it is not stepped later.
TEST(PendingSteps, WhatIsWrittenIsNotStepped) {
  const test::CopyTask task;
  const auto write = [](test::Pupil& pupil) {
    const std::vector<float> gains = {0.5f, 0.25f};
    pupil.one.engine.store().write(Kind::value, "final_norm.gain", 2, gains);
    pupil.one.engine.store().round_values();
  };
  for (const DType type : {DType::f32, DType::bf16}) {
    const Outcome right = learn(task.llama(), {.shards = 2}, write, type);
    for (const HostShares& host : shares) EXPECT_TRUE(learn(task.llama(), {.shards = 2, .host = host}, write, type).same_numbers(right));
  }
}

// A step whose gradient is not finite is refused before anything changes; the one before it is done by then.
TEST(PendingSteps, ARefusedStepLeavesTheLastOne) {
  const test::CopyTask task;
  const auto values_after = [&](const Division& division, bool refused) {
    test::Pupil pupil(task, task.llama(), division, 3);
    ParameterStore& store = pupil.one.engine.store();
    pupil.step(1, 3, 3e-3);
    if (refused) {
      const test::HandGrain grain = task.grain(2, 0);
      pupil.one.engine.begin_step(1);
      pupil.one.engine.forward_backward(grain.view(), 1, {}, [](auto, auto, auto, auto dlogprob, auto) { std::ranges::fill(dlogprob, std::numeric_limits<float>::infinity()); });
      pupil.one.engine.finish_step();
      EXPECT_THROW(pupil.optimizer.step(3e-3), AgreedError);
    }
    return combine(store.layout(), store.hashes(Kind::value));
  };
  const std::uint64_t right = values_after({.shards = 2}, false);
  for (const HostShares& host : shares) EXPECT_EQ(values_after({.shards = 2, .host = host}, true), right);
}

// A step that nobody computes in between, such as one without a grain on this replica, finishes what was pending before it gathers new gradients.
TEST(PendingSteps, AStepWithoutAFetchSettlesThem) {
  const test::CopyTask task;
  const auto without = [](test::Pupil& pupil) {
    pupil.one.engine.begin_step(0);
    pupil.one.engine.finish_step();
  };
  const Outcome right = learn(task.llama(), {.shards = 2}, without), host = learn(task.llama(), {.shards = 2, .host = {1, 1}}, without);
  EXPECT_TRUE(host.same_numbers(right));
  EXPECT_EQ(host.pending.settled, steps * host.units);
}

}  // namespace
}  // namespace collimate
