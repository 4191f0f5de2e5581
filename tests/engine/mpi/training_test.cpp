#include <cmath>

#include "comm/mpi_test.hpp"
#include "support/copy_task.hpp"
#include "support/numbers.hpp"

// Numerics contract R3 on whole optimizer steps: any number of ranks gives the bits of one.
namespace collimate::test {
namespace {

double norm_of(const std::vector<Tensor>& tensor) {
  double squares = 0;
  for (const double x : test::numbers_of(tensor)) squares += x * x;
  return std::sqrt(squares);
}

Communicator& ranks() { return test_world()->ranks(); }

constexpr std::int64_t steps = 4;
constexpr double rate = 3e-3, dropout = 0.1;

CopyTask small_task() {
  CopyTask task;
  task.samples_per_grain = 3;
  return task;
}

ProcessGrid data_grid() { return {*test_world(), {1, ranks().size(), 1}}; }

std::vector<std::uint64_t> on_one_rank(const ModelConfig& config, int shards, std::int64_t grains) {
  Pupil pupil(small_task(), config, {.shards = shards}, grains);
  for (std::int64_t step = 1; step <= steps; ++step) pupil.step(step, grains, rate, dropout);
  return pupil.state();
}

std::vector<std::uint64_t> on_all_ranks(const ModelConfig& config, int shards, std::int64_t grains, std::int64_t dropped = -2) {
  const ProcessGrid grid = data_grid();
  Pupil pupil(small_task(), config, {.grid = &grid, .shards = shards}, grains);
  for (std::int64_t step = 1; step <= steps; ++step) pupil.step(step, grains, rate, dropout, step == 2 ? dropped : -2);
  return pupil.state();
}

/// The same steps, but gradients are added as they come: each rank's grains from left to right, then the ranks.
struct PlainSum {
  std::vector<std::uint64_t> state;
  double norm = 0;  // of the last step's gradient
};
PlainSum with_a_plain_sum(const ModelConfig& config, int shards, std::int64_t grains) {
  Pupil pupil(small_task(), config, {.shards = shards}, 1);
  ParameterStore& store = pupil.one.engine.store();
  const std::int64_t size = store.layout().size();
  const Part run = part_of(grains, ranks().rank(), ranks().size());
  for (std::int64_t step = 1; step <= steps; ++step) {
    std::vector<float> mine(size);
    for (std::int64_t g = run.begin; g < run.begin + run.count; ++g) {
      pupil.one.engine.begin_step(1);
      pupil.add_grains(step, {g}, grains, dropout);
      pupil.one.engine.finish_step();
      const std::vector<float> gradient = test::numbers_of(store.units(Kind::gradient));
      for (std::int64_t i = 0; i < size; ++i) mine[i] += gradient[i];
    }
    pupil.one.engine.begin_step(1);
    for (int unit = 0; unit < std::ssize(store.layout().units()); ++unit) {
      store.gradient(unit);
      store.reduce(unit);
    }
    pupil.one.engine.finish_step();
    std::vector<float> gradient = test::numbers_of(store.units(Kind::gradient));
    for (const auto& part : gather_all(ranks(), mine))
      for (std::int64_t i = 0; i < size; ++i) gradient[i] += part[i];
    test::set_numbers(store.units(Kind::gradient), gradient);
    pupil.optimizer.step(rate);
  }
  return {pupil.state(), norm_of(store.units(Kind::gradient))};
}

TEST(Training, AnyNumberOfRanksGivesTheBitsOfOne) {
  for (const ModelConfig& config : {small_task().llama(), small_task().gpt2()})
    for (const std::int64_t grains : {1, 5, 7, 12}) {
      const auto mine = on_all_ranks(config, 2, grains);
      EXPECT_EQ(mine, on_one_rank(config, 2, grains)) << grains << " grains on " << ranks().size() << " ranks";
      for (const auto& other : gather_all(ranks(), mine)) EXPECT_EQ(other, mine) << "ranks must agree";
    }
}

// Rules R2 and R3 together: every grid of these ranks, every ZeRO stage, every kind of recomputation.
TEST(Training, EveryGridAndZeroStageGivesTheBitsOfOne) {
  ModelConfig shared = small_task().llama();  // shards cut its groups of query heads
  shared.kv_heads = 1, shared.layers = 3, shared.mlp = 37;
  for (const ModelConfig& config : {shared, small_task().gpt2()}) {
    const auto one = on_one_rank(config, 4, 5);
    int layouts = 0;
    for (const int tensor : {1, 2, 4})
      for (int pipeline = 1; pipeline <= config.layers; ++pipeline) {
        if (ranks().size() % (tensor * pipeline)) continue;
        const ProcessGrid grid(*test_world(), {tensor, ranks().size() / tensor / pipeline, pipeline});
        for (int zero = 0; zero <= 3; ++zero) {
          const RecomputePlan plan{static_cast<Recompute>(layouts++ % 3), 1 + zero % 2};
          Pupil pupil(small_task(), config, {.grid = &grid, .shards = 4, .zero = zero}, 5, plan);
          for (std::int64_t step = 1; step <= steps; ++step) pupil.step(step, 5, rate, dropout);
          EXPECT_EQ(pupil.state(), one) << grid.shape().text() << ", ZeRO " << zero << ", recompute " << static_cast<int>(plan.how);
        }
      }
  }
}

TEST(Training, TheNumberOfGrainsMayChangeFromStepToStep) {
  const ModelConfig config = small_task().llama();
  const auto train = [&](const ProcessGrid* over) {
    Pupil pupil(small_task(), config, {.grid = over, .shards = 4}, 12);
    std::int64_t step = 0;
    for (const std::int64_t grains : {12, 1, 7, 3, 5}) pupil.step(++step, grains, rate, dropout);
    return pupil.state();
  };
  const ProcessGrid grid = data_grid();
  EXPECT_EQ(train(&grid), train(nullptr));
}

// Proves that the tests above can fail: numbers that are as right, in another order, give other bits.
TEST(Training, APlainSumOverRanksDiffers) {
  const ModelConfig config = small_task().gpt2();
  for (const std::int64_t grains : {7, 12}) {
    const auto ordered = on_one_rank(config, 2, grains);
    const PlainSum plain = with_a_plain_sum(config, 2, grains);
    Pupil pupil(small_task(), config, {.shards = 2}, grains);
    for (std::int64_t step = 1; step <= steps; ++step) pupil.step(step, grains, rate, dropout);
    const double norm = norm_of(pupil.one.engine.store().units(Kind::gradient));
    EXPECT_NEAR(plain.norm / norm, 1, 1e-3) << "the same gradient up to rounding";
    EXPECT_TRUE(ranks().size() < 3 || plain.state != ordered) << grains << " grains on " << ranks().size() << " ranks";
  }
}

// Fast mode adds gradients in whatever order is quickest: the same sum up to rounding, of tied and of untied heads.
TEST(Training, FastModeGivesTheSameGradientUpToRounding) {
  for (const bool tied : {true, false}) {
    ModelConfig config = small_task().llama();
    config.tied = tied;
    const auto norm_of = [&](const Division& division) {
      Pupil pupil(small_task(), config, division, 5);
      ParameterStore& store = pupil.one.engine.store();
      pupil.one.engine.begin_step(5);
      pupil.add_grains(1, store.division().grains(5), 5, dropout);
      pupil.one.engine.finish_step();
      return std::sqrt(store.gradient_squares());
    };
    const double one = norm_of({.shards = 4});
    for (const int tensor : {1, 2, 4})
      for (int pipeline = 1; pipeline <= config.layers; ++pipeline) {
        if (ranks().size() % (tensor * pipeline)) continue;
        const ProcessGrid grid(*test_world(), {tensor, ranks().size() / tensor / pipeline, pipeline});
        for (int zero = 0; zero <= 3; ++zero)
          EXPECT_NEAR(norm_of({.grid = &grid, .shards = 4, .zero = zero, .ordered = false}) / one, 1, 1e-5)
              << grid.shape().text() << ", ZeRO " << zero << (tied ? ", tied" : "");
      }
  }
}

TEST(Training, ADroppedGradientIsCaught) {
  const ModelConfig config = small_task().llama();
  for (const std::int64_t dropped : {0, 3, 6})
    EXPECT_NE(on_all_ranks(config, 1, 7, dropped), on_one_rank(config, 1, 7)) << "grain " << dropped;
}

TEST(Generation, EveryRankSaysTheSame) {
  const ModelConfig config = small_task().gpt2();
  OneEngine one(config, Head::policy, 2, {.rows = 64, .slots = 1 + ranks().rank(), .capacity = config.context});
  std::vector<Prompt> prompts;
  for (std::uint64_t s = 0; s < 6; ++s) prompts.push_back({{1, static_cast<std::int32_t>(s)}, s});
  std::vector<std::int32_t> said;
  GenerateOptions how;
  how.max_new = 8;
  for (const Continuation& c : one.engine.generate(prompts, how)) said.insert(said.end(), c.tokens.begin(), c.tokens.end());
  for (const auto& other : gather_all(ranks(), said)) EXPECT_EQ(other, said);
}

}  // namespace
}  // namespace collimate::test

int main(int argc, char** argv) { return collimate::run_mpi_tests(argc, argv); }
