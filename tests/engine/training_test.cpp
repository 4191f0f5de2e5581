#include <gtest/gtest.h>
#include <omp.h>

#include "collimate/base/error.hpp"
#include "support/copy_task.hpp"

namespace collimate::test {
namespace {

/// OpenMP's number of threads for the life of this.
struct Threads {
  int before = omp_get_max_threads();
  explicit Threads(int n) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before); }
};

TEST(Training, ACopyTaskIsLearnt) {
  const CopyTask task;
  for (const ModelConfig& config : {task.llama(), task.gpt2()}) {
    Pupil pupil(task, config, {.shards = 2}, 2);
    const LearningRate rate{3e-3, 20, 300, "cosine", 0.1};
    double first = 0, last = 0;
    for (int step = 1; step <= 300; ++step) {
      const double loss = pupil.step(step, 2, rate.at(step));
      if (step <= 5) first += loss / 5;
      if (step > 295) last += loss / 5;
    }
    EXPECT_GT(first, 2.0) << "chance is log 11 = 2.4";
    EXPECT_LT(last, 0.5);
  }
}

TEST(Training, OneAndTwoThreadsGiveOneHash) {
  CopyTask task;
  task.letters = 20, task.samples_per_grain = 6;
  for (ModelConfig config : {task.llama(), task.gpt2()}) {
    config.width = 96, config.mlp = 200, config.vocabulary = 300;  // enough work for both threads
    std::vector<std::uint64_t> hashes;
    for (const int threads : {1, 2}) {
      const Threads set(threads);
      Pupil pupil(task, config, {.shards = 4}, 3);
      for (int step = 1; step <= 4; ++step) pupil.step(step, 3, 1e-3, 0.1);
      hashes.push_back(pupil.hash());
    }
    EXPECT_EQ(hashes[0], hashes[1]);
  }
}

TEST(Training, RateZeroLeavesEveryBit) {
  const CopyTask task;
  Pupil pupil(task, task.gpt2(), {.shards = 2}, 3);
  const std::uint64_t before = pupil.hash();
  for (int step = 1; step <= 5; ++step) pupil.step(step, 3, 0, 0.1);
  EXPECT_EQ(pupil.hash(), before);
  pupil.step(6, 3, 1e-6, 0.1);
  EXPECT_NE(pupil.hash(), before);
}

TEST(Training, ADroppedGrainChangesTheHash) {
  const CopyTask task;
  Pupil whole(task, task.llama(), {}, 5), dropping(task, task.llama(), {}, 5);
  whole.step(1, 5, 1e-3);
  dropping.step(1, 5, 1e-3, 0, 2);
  EXPECT_NE(whole.hash(), dropping.hash());
}

// The shards of a model are part of what it computes; with the same weights the loss agrees to rounding.
TEST(Training, ShardsAgreeToRounding) {
  const CopyTask task;
  std::vector<double> losses;
  for (const int shards : {1, 2, 4}) {
    Pupil pupil(task, task.llama(), {.shards = shards}, 2);
    double loss = 0;
    for (int step = 1; step <= 10; ++step) loss = pupil.step(step, 2, 1e-3);
    losses.push_back(loss);
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-4);
  EXPECT_NEAR(losses[0], losses[2], 1e-4);
}

TEST(Memory, PlannedIsAllocated) {
  for (const EngineUse& use : {EngineUse{.rows = 64}, EngineUse{.rows = 300, .most_grains = 7},
                              EngineUse{.rows = 128, .most_grains = 1, .slots = 5, .capacity = 40}}) {
    OneEngine one(small_gpt2(), Head::policy, 4, use);
    EXPECT_GT(one.plan.allocated_bytes(), 0u);
    EXPECT_EQ(one.plan.allocated_bytes(), one.plan.planned_bytes(Memory::device) + one.plan.planned_bytes(Memory::host) + one.plan.planned_bytes(Memory::pinned));
  }
}

TEST(Memory, EnginesShareOneWorkspace) {
  const auto device = make_device();
  MemoryPlan plan(*device);
  Workspace workspace(plan);
  Engine actor("actor", small_llama(), Head::policy, Division{.shards = 2}, {.rows = 64, .most_grains = 1}, workspace);
  const std::size_t of_one = [&] {
    MemoryPlan other(*device);
    Workspace alone(other);
    const std::size_t models = other.planned_bytes(Memory::device);
    Engine engine("actor", small_llama(), Head::policy, Division{.shards = 2}, {.rows = 64, .most_grains = 1}, alone);
    const std::size_t engines = other.planned_bytes(Memory::device);
    alone.reserve();
    return other.planned_bytes(Memory::device) - engines + models;
  }();
  Engine critic("critic", small_llama(), Head::value, Division{.shards = 2}, {.rows = 64, .most_grains = 1}, workspace);
  const std::size_t before = plan.planned_bytes(Memory::device);
  workspace.reserve();
  EXPECT_EQ(plan.planned_bytes(Memory::device) - before, of_one) << "the neediest engine's, not the sum";
}

TEST(Memory, AGrainThatWasNotPlannedIsRefused) {
  OneEngine one(small_llama(), Head::policy, 1, {.rows = 32});
  const HandGrain grain(some_sequences(37, {20, 20}));
  std::vector<float> out(grain.tokens.size());
  EXPECT_THROW(one.engine.score(grain.view(), 1, out, out), Error);
}

}  // namespace
}  // namespace collimate::test
