#include "support/traffic.hpp"

#include "comm/mpi_test.hpp"
#include "support/copy_task.hpp"

// Every byte that a step sends, by formula: traffic cannot grow unseen.
namespace collimate::test {
namespace {

/// Bytes sent in the second step of 5 grains, and what they should be.
void expect_formulas(const ModelConfig& config, const GridShape& shape, int zero, RecomputePlan recompute) {
  constexpr std::int64_t grains = 5;
  const ProcessGrid grid(*test_world(), shape);
  CopyTask task;
  task.samples_per_grain = 3;
  Pupil pupil(task, config, {.grid = &grid, .shards = 4, .zero = zero}, grains, recompute);
  std::vector<HandGrain> hand;
  std::vector<Grain> views;
  for (const std::int64_t g : pupil.one.engine.store().division().grains(grains)) hand.push_back(g < 0 ? HandGrain({}) : task.grain(2, g));
  for (const HandGrain& grain : hand) views.push_back(grain.tokens.empty() ? Grain{} : grain.view());
  pupil.step(1, grains, 1e-3);
  const Traffic before = sent_by(grid);
  pupil.step(2, grains, 1e-3);
  const Traffic sent = sent_by(grid) - before, formula = TrafficFormulas(pupil.one.engine, recompute).of_step(views, grains);
  const std::string where = fmt::format("{}, ZeRO {}, recompute {}", shape.text(), zero, static_cast<int>(recompute.how));
  EXPECT_EQ(sent.tensor, formula.tensor) << where;
  EXPECT_EQ(sent.data, formula.data) << where;
  EXPECT_EQ(sent.pipeline, formula.pipeline) << where;
  EXPECT_EQ(sent.world, formula.world) << where;
}

TEST(Traffic, AStepSendsWhatTheFormulasSay) {
  CopyTask task;
  ModelConfig shared = task.llama(), untied = task.gpt2();  // shards that share a key/value head; a head of its own
  shared.kv_heads = 2;
  untied.tied = false;
  const int ranks = test_world()->size();
  for (const ModelConfig& config : {task.gpt2(), shared, untied})
    for (int tensor = 1; tensor <= 4; tensor *= 2)
      for (int pipeline = 1; pipeline <= 2; ++pipeline) {
        if (ranks % (tensor * pipeline)) continue;
        const GridShape shape{tensor, ranks / tensor / pipeline, pipeline};
        for (int zero = 0; zero < 4; ++zero) expect_formulas(config, shape, zero, {});
        if (tensor > 1) expect_formulas(config, shape, 3, {Recompute::full, 1});
      }
}

}  // namespace
}  // namespace collimate::test
