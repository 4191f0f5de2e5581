#include <cmath>
#include <functional>
#include <limits>

#include "app/diff.hpp"
#include "app/mpi/wire.hpp"
#include "rlhf/mpi/bench.hpp"

// Seeded faults: something goes wrong in the last of three steps, and must be told with step and tensor, and with the ranks where replicas
// disagree; where they do not, by the difference from the run without the fault.
namespace collimate::rlhf {
namespace {

using test::Harm;
using test::Saboteur;
using test::Wire;

constexpr std::int64_t steps = 3;

/// A trainer in which something happens before its last step, or after it.
struct Disturbed : SupervisedTrainer {
  using Event = std::function<void(ParameterStore&)>;
  Disturbed(Session& session, Event before_last, Event after_last)
      : SupervisedTrainer(session), before_last(std::move(before_last)), after_last(std::move(after_last)) {}
  void evaluate(std::int64_t step) override {
    if (step == steps - 1 && before_last) before_last(model_.store());
    if (step == steps && after_last) after_last(model_.store());
  }
  Event before_last, after_last;
};

struct FaultBench : Bench {
  explicit FaultBench(const std::string& name) : Bench("faults-" + name) {
    options.machine.grain_tokens = 48;  // some grains for each of four ranks
    options.machine.tensor_shards = 2;
    options.sft.heldout = options.sft.data;
    options.sft.steps = steps;
    options.sft.evaluate_every = 1;
    options.run.hash_every = 1;
  }
  /// Trains in a folder of this name; gives the sentence with which all ranks stopped, or "".
  std::string train(const std::string& name, const GridShape& shape, int zero, const Disturbed::Event& before_last = {},
                    const Disturbed::Event& after_last = {}) {
    ProcessGrid place(world, shape);
    place.wrap(Axis::data, [&](auto inner) { return std::make_unique<Wire>(std::move(inner), saboteur); });
    options.machine.zero = zero;
    options.run.folder = file(name);
    saboteur.harm = Harm::none;
    agree_on(world.ranks(), [&] {
      folder.reset();  // it holds its lock
      if (world.rank() == 0) folder = std::make_unique<RunFolder>(options.run.folder, Existing::replace, learning_stages);
    });
    Session session{.world = world, .grid = place, .device = *device, .log = log, .options = options, .folder = folder.get()};
    std::string sentence;
    try {
      Disturbed(session, before_last, after_last).run();
      if (folder) folder->write_summary(session.summary);
    } catch (const AgreedError& error) {
      sentence = error.what();
    }
    for (const std::string& other : gather_all(world.ranks(), sentence)) EXPECT_EQ(other, sentence);
    EXPECT_EQ(saboteur.harm, Harm::none) << "nothing was harmed";
    return sentence;
  }
  /// What diff says of two runs; only on rank 0.
  std::string diff(const std::string& a, const std::string& b) const { return world.rank() ? "" : diff_runs(file(a), file(b)).text; }

  Disturbed::Event harm(Harm what, int rank = -1) {  // -1: on all ranks
    return [this, what, rank](ParameterStore&) {
      if (rank < 0 || rank == world.rank()) saboteur.harm = what;
    };
  }
  /// One weight grows by one ulp, on one rank or (-1) wherever it is.
  Disturbed::Event nudge(const std::string& tensor, std::int64_t element, int rank = -1) const {
    return [=, me = world.rank()](ParameterStore& store) {
      store.for_each_run(Kind::value, store.layout().parameter(tensor), element, 1, Extent::held,
                         [&](std::int64_t, Tensor run) {
                           if (rank >= 0 && rank != me) return;
                           float value = 0;
                           store.staging().get(std::span(&value, 1), run, run.device().stream());
                           value = std::nextafter(value, std::numeric_limits<float>::infinity());
                           store.staging().put(run, std::span<const float>(&value, 1), run.device().stream());
                         });
    };
  }
  int ranks() const { return world.size(); }
  GridShape replicas() const { return {1, ranks(), 1}; }
  Saboteur saboteur;
};

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << "no '" << part << "' in: " << text;
}

/// How a sentence names a rank that differs from the other replicas.
std::string blamed(int rank, int ranks) { return ranks == 2 ? "the ranks 0 and 1 differ" : fmt::format("rank {} holds others than", rank); }

TEST(Faults, NothingIsFoundWhereNothingIsWrong) {
  FaultBench bench("none");
  EXPECT_EQ(bench.train("one", bench.replicas(), 0), "");
  for (int zero = 1; zero <= 3; ++zero) {
    EXPECT_EQ(bench.train("other", bench.replicas(), zero), "");
    if (bench.world.rank() == 0) expect_parts(bench.diff("one", "other"), {"equal: "});
  }
}

TEST(Faults, ARankThatSkipsAReductionIsNamed) {
  FaultBench bench("skip");
  if (bench.ranks() == 1) GTEST_SKIP() << "one rank has no replicas";
  for (const int rank : {0, bench.ranks() - 1})
    expect_parts(bench.train("run", bench.replicas(), 0, bench.harm(Harm::skip, rank)),
                 {"sft step 3: ", "gradient of embedding.weight of policy", blamed(rank, bench.ranks())});
  // New values that one rank does not get.
  expect_parts(bench.train("run", bench.replicas(), 1, bench.harm(Harm::skip, 1)),
               {"sft step 3: ", "value of embedding.weight of policy", blamed(1, bench.ranks())});
}

TEST(Faults, ADroppedGradientIsFound) {
  FaultBench bench("drop");
  if (bench.ranks() == 1) GTEST_SKIP() << "one rank sends nothing";
  EXPECT_EQ(bench.train("whole", bench.replicas(), 0), "");
  for (int zero = 0; zero <= 3; ++zero) {
    EXPECT_EQ(bench.train("dropped", bench.replicas(), zero, bench.harm(Harm::drop, 1)), "") << "replicas agree on a wrong sum";
    if (bench.world.rank()) continue;
    const std::string text = bench.diff("whole", "dropped");
    expect_parts(text, {"first difference: sft step 3, gradient of policy: ", "then value of policy: ", "then gradient_norm: ",
                        "In the checkpoints after step 3", "elements differ"});
    if (zero < 2) expect_parts(text, {"gradient of policy: embedding.weight", "policy/value/embedding.weight of shape [", "row 0, column"});
    EXPECT_EQ(text.find("loss:"), std::string::npos) << text;
  }
}

TEST(Faults, SwappedShardsAreFound) {
  FaultBench bench("swap");
  if (bench.ranks() == 1) GTEST_SKIP() << "one rank has all shards";
  EXPECT_EQ(bench.train("whole", bench.replicas(), 1), "");
  // On all ranks alike: replicas agree.
  EXPECT_EQ(bench.train("swapped", bench.replicas(), 1, bench.harm(Harm::swap)), "");
  if (bench.world.rank() == 0)
    expect_parts(bench.diff("whole", "swapped"), {"first difference: sft step 3, value of policy: embedding.weight",
                                                  "policy/value/embedding.weight of shape [", "row 0, column 0 (element 0) is "});
  expect_parts(bench.train("swapped", bench.replicas(), 1, bench.harm(Harm::swap, 0)),
               {"sft step 3: ", "value of embedding.weight of policy", blamed(0, bench.ranks())});
}

// The rows of a matrix that tensor-parallel ranks hold change places: nobody else holds them, so only the numbers tell.
TEST(Faults, SwappedTensorShardsAreFound) {
  FaultBench bench("tensor");
  if (bench.ranks() % 2) GTEST_SKIP() << "two ranks share a layer";
  const GridShape shape{2, bench.ranks() / 2, 1};
  EXPECT_EQ(bench.train("whole", shape, 0), "");
  const auto swap = [&](ParameterStore& store) {
    const Parameter& parameter = store.layout().parameter("block.0.up.weight");
    std::vector<float> mine;
    const auto each = [&](const ParameterStore::Run& run) {
      store.for_each_run(Kind::value, parameter, 0, parameter.shape.count(), Extent::held, run);
    };
    each([&](std::int64_t, Tensor run) {
      mine.resize(mine.size() + static_cast<std::size_t>(run.count()));
      store.staging().get(std::span(mine).last(run.count()), run, run.device().stream());
    });
    const auto all = gather_all(store.division().along(Axis::tensor), mine);
    const auto& theirs = all[1 - store.division().rank(Axis::tensor)];
    std::size_t at = 0;
    each([&](std::int64_t, Tensor run) {
      store.staging().put(run, std::span(theirs).subspan(at, run.count()), run.device().stream());
      at += static_cast<std::size_t>(run.count());
    });
  };
  EXPECT_EQ(bench.train("swapped", shape, 0, swap), "");
  if (bench.world.rank() == 0)
    expect_parts(bench.diff("whole", "swapped"), {"first difference: sft step 3, loss: ", "then gradient of policy: "});
  EXPECT_EQ(bench.train("swapped", shape, 0, {}, swap), "");
  if (bench.world.rank() == 0)
    expect_parts(bench.diff("whole", "swapped"),
                 {"first difference: end of the run, sft.state_hash", "policy/value/block.0.up.weight of shape ["});
}

TEST(Faults, OneUlpOfOneWeightOnOneRankIsNamed) {
  FaultBench bench("ulp");
  if (bench.ranks() == 1) GTEST_SKIP() << "one rank has no replicas";
  const int rank = bench.ranks() - 1;
  const std::string gain = "block.1.norm2.gain";
  for (int zero = 0; zero <= 2; ++zero)
    if (const std::string said = bench.train("run", bench.replicas(), zero, bench.nudge(gain, 5, rank)); zero == 0)
      expect_parts(said, {"sft step 3: ", "value of " + gain + " of policy", blamed(rank, bench.ranks())});
  expect_parts(bench.train("run", bench.replicas(), 0, {}, bench.nudge(gain, 5, rank)),
               {"end of sft: ", "value of " + gain + " of policy", blamed(rank, bench.ranks())});
  if (bench.ranks() % 2) return;
  // A parameter that tensor-parallel ranks share, and a tied matrix on two stages.
  expect_parts(bench.train("run", {2, bench.ranks() / 2, 1}, 0, bench.nudge(gain, 5, 1)),
               {"sft step 3: ", "of policy", "the ranks 0 and 1 differ"});
  const std::string stages = bench.train("run", {1, bench.ranks() / 2, 2}, 0, bench.nudge("embedding.weight", 5, rank));
  expect_parts(stages, {"sft step 3: ", "value of embedding.weight of policy"});
  if (bench.ranks() == 2) expect_parts(stages, {"the ranks 0 and 1 differ"});
}

TEST(Faults, OneUlpOfOneWeightIsFoundInTheCheckpoint) {
  FaultBench bench("element");
  EXPECT_EQ(bench.train("whole", bench.replicas(), 0), "");
  EXPECT_EQ(bench.train("nudged", bench.replicas(), 3, {}, bench.nudge("block.0.query.weight", 3 * 32 + 7)), "");
  if (bench.world.rank() == 0)
    expect_parts(bench.diff("whole", "nudged"), {"first difference: end of the run, sft.state_hash",
                                                 "policy/value/block.0.query.weight of shape [32, 32]: row 3, column 7 (element 103) is ",
                                                 ", 1 ulp apart; 1 of 1024 elements differ"});
}

}  // namespace
}  // namespace collimate::rlhf

int main(int argc, char** argv) { return collimate::run_mpi_tests(argc, argv); }
