#include "rlhf/mpi/bench.hpp"

// A stage that stops and goes on writes the metrics and hashes of one that does not: steps, moments, learning rates, the place in the data, and
// what PPO remembers beside them are all in the checkpoint.
namespace collimate::rlhf {
namespace {

struct RestartBench : Bench {
  std::unique_ptr<Scorer> scorer = make_length_scorer(3, LengthUnit::characters);
  explicit RestartBench(const std::string& name) : Bench("restart-" + name) {
    options.run.hash_every = 1;
    options.sft.heldout = options.sft.data;
    options.sft.steps = options.reward.steps = 5;
    options.sft.batch = options.reward.batch = 7;  // passes of 32 end within steps
    options.sft.optimizer.warmup = options.reward.optimizer.warmup = 3;
    options.reward.init = "random";
    options.model.dropout = 0.1;
    options.ppo.scorer.kind = "length";
    options.ppo.actor = options.ppo.reference = options.ppo.critic = "random";
    options.ppo.iterations = 5;
    options.ppo.freeze_actor = 1;  // so that actor and critic have taken different numbers of steps
    options.ppo.normalise_samples = 24;
    options.ppo.kl = {.beta = 0.1, .target = 0.01, .horizon = 100};
  }
  /// The metrics of a stage that runs in this folder from its start, or goes on there. stopped: run.stop_after shall end it.
  template <class Trainer>
  std::vector<nlohmann::json> run(const std::string& restart, bool stopped) {
    options.run.restart = restart;
    agree_on(world.ranks(), [&] {
      if (world.rank() != 0 || restart != "none") return;
      folder.reset();  // its lock is free before it is made again
      folder = std::make_unique<RunFolder>(options.run.folder, Existing::replace, learning_stages);
    });
    Session session = this->session();
    if (session.first()) session.scorer = scorer.get();
    bool ended = true;
    try {
      Trainer(session).run();
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.code(), ExitCode::requeue) << error.what();
      ended = false;
    }
    EXPECT_EQ(ended, !stopped);
    return session.first() ? metrics() : std::vector<nlohmann::json>();
  }
};

template <class Trainer>
void expect_same(const std::string& name, std::size_t lines) {
  RestartBench bench(name);
  const auto whole = bench.run<Trainer>("none", false);
  bench.options.run.stop_after = 2;
  bench.run<Trainer>("none", true);
  bench.run<Trainer>("auto", true);
  bench.options.run.stop_after = 0;
  const auto parts = bench.run<Trainer>("auto", false);
  if (bench.world.rank() != 0) return;
  EXPECT_GE(whole.size(), lines);
  ASSERT_EQ(parts.size(), whole.size());
  for (std::size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(parts[i], whole[i]);
}

TEST(Restart, SupervisedTrainingGoesOnWithTheSameNumbers) { expect_same<SupervisedTrainer>("sft", 6); }
TEST(Restart, RewardTrainingGoesOnWithTheSameNumbers) { expect_same<RewardTrainer>("reward", 6); }
TEST(Restart, PpoGoesOnWithTheSameNumbers) { expect_same<PpoTrainer>("ppo", 7); }

}  // namespace
}  // namespace collimate::rlhf
