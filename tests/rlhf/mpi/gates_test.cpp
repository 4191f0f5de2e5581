#include <functional>
#include <limits>

#include "rlhf/mpi/bench.hpp"

// What must stop a run, broken on purpose on one rank: all ranks leave with the same sentence.
namespace collimate::rlhf {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// The sentence with which all ranks stop together.
std::string sentence_of(World& world, const std::function<void()>& run) {
  std::string sentence = "no error";
  try {
    run();
  } catch (const AgreedError& error) {
    sentence = error.what();
    EXPECT_EQ(error.code(), ExitCode::failure);
  }
  for (const std::string& other : gather_all(world.ranks(), sentence)) EXPECT_EQ(other, sentence);
  return sentence;
}

/// A token's row of the embedding becomes NaN: only samples that hold the token meet it.
void poison(ParameterStore& store, const ModelConfig& config, char letter) {
  std::vector<float> row(config.width, nan);
  store.write(Kind::value, "embedding.weight", letter * config.width, row);
}

/// A trainer whose model breaks after the first step: for samples with an h on all ranks, or for all samples (they say "say") on the last.
template <class Trainer>
struct Broken : Trainer {
  Broken(Session& session, bool everywhere) : Trainer(session), everywhere(everywhere) {}
  void evaluate(std::int64_t) override {
    if (everywhere || this->session_.world.rank() == this->session_.world.size() - 1)
      poison(this->model_.store(), this->model_.engine->transformer().config(), everywhere ? 'h' : 'y');
  }
  bool everywhere;
};

/// Small grains, so that each of four ranks has some, and a head of its own, so that a broken embedding does not reach every logit.
struct GateBench : Bench {
  explicit GateBench(const std::string& name) : Bench("gate-" + name) {
    options.machine.grain_tokens = 48;
    options.model.tied = false;
    options.sft.heldout = options.sft.data;
    options.sft.steps = options.reward.steps = 3;
    options.sft.evaluate_every = options.reward.evaluate_every = 1;
    options.ppo.batch = options.ppo.minibatch = 24;
    options.ppo.scorer.kind = "length";
    options.ppo.actor = options.ppo.reference = options.ppo.critic = "random";
    options.evaluate.prompts.clear();
  }
};

// The h is in samples 7, 15, 23 and 31.
template <class Trainer>
void expect_gate(const GateBench& bench, Session& session, const std::string& what, const std::string& step) {
  for (const bool everywhere : {true, false}) {
    const std::string sentence = sentence_of(bench.world, [&] { Trainer(session, everywhere).run(); });
    EXPECT_NE(sentence.find(what), std::string::npos) << sentence;
    EXPECT_NE(sentence.find("is not finite at " + step), std::string::npos) << sentence;
    const int sample = std::stoi(sentence.substr(sentence.find(what) + what.size()));
    EXPECT_TRUE(!everywhere || sample % 8 == 7) << sentence;
  }
}

TEST(Gates, SupervisedLossThatIsNotFiniteStopsAllRanksWithTheSample) {
  GateBench bench("sft");
  Session session = bench.session();
  expect_gate<Broken<SupervisedTrainer>>(bench, session, "the loss of sample ", "sft step 2");
}

/// A grid of all ranks, with its ZeRO stage.
struct Layout {
  GridShape shape;
  int zero;
};
std::vector<Layout> layouts(int ranks) {
  std::vector<Layout> out;
  for (int zero = 0; zero < 4; ++zero) {
    out.push_back({{1, ranks, 1}, zero});
    if (ranks % 2) continue;
    out.push_back({{1, ranks / 2, 2}, zero});
    out.push_back({{2, ranks / 2, 1}, zero});
  }
  return out;
}

// Where ranks need each other within a grain too: who meets the number goes on to the end of the step.
template <class Trainer>
void expect_gate_on_grids(GateBench& bench, const std::string& what, const std::string& step) {
  bench.options.machine.tensor_shards = 2;
  for (const auto& [shape, zero] : layouts(bench.world.size())) {
    SCOPED_TRACE(fmt::format("{}, ZeRO {}", shape.text(), zero));
    ProcessGrid grid(bench.world, shape);
    bench.options.machine.zero = zero;
    Session session{.world = bench.world, .grid = grid, .device = *bench.device, .log = bench.log, .options = bench.options,
                    .folder = bench.folder.get()};
    const std::string sentence = sentence_of(bench.world, [&] { Trainer(session, true).run(); });
    EXPECT_NE(sentence.find("is not finite at " + step), std::string::npos) << sentence;
    ASSERT_NE(sentence.find(what), std::string::npos) << sentence;
    EXPECT_EQ(std::stoi(sentence.substr(sentence.find(what) + what.size())) % 8, 7) << sentence;
  }
}

TEST(Gates, OnEveryGridAllRanksStopWithTheSample) {
  GateBench bench("grids");
  expect_gate_on_grids<Broken<SupervisedTrainer>>(bench, "the loss of sample ", "sft step 2");
  bench.options.reward.init = "random";
  expect_gate_on_grids<Broken<RewardTrainer>>(bench, " of prompt group ", "reward step 2");
}

TEST(Gates, ScoreThatIsNotFiniteStopsAllRanksWithThePromptGroup) {
  GateBench bench("reward");
  bench.options.reward.init = "random";
  Session session = bench.session();
  expect_gate<Broken<RewardTrainer>>(bench, session, "the score of pair 0 of prompt group ", "reward step 2");
}

/// A scorer that does something to the trainer (on rank 0, between scoring and updates) and likes all responses more or less.
struct Saboteur : Scorer {
  std::function<void()> deed;
  std::vector<double> score(std::span<const ScoredSample> samples) override {
    deed();
    std::vector<double> scores;
    for (const ScoredSample& sample : samples) scores.push_back(static_cast<double>(sample.index % 3));
    return scores;
  }
};

std::string sabotaged(const std::string& name, const std::function<void(PpoTrainer&)>& deed) {
  GateBench bench(name);
  Saboteur scorer;
  Session session = bench.session();
  if (session.first()) session.scorer = &scorer;
  PpoTrainer trainer(session);
  int calls = 0;
  scorer.deed = [&] {
    if (++calls == 2) deed(trainer);  // in the second iteration
  };
  return sentence_of(bench.world, [&] { trainer.run(); });
}

TEST(Gates, WithoutAFaultARunEnds) {
  EXPECT_EQ(sabotaged("none", [](PpoTrainer&) {}), "no error");
}

// One weight moves by a ten-thousandth on one rank: the training forward is not the scoring one, and the first ratio says so.
TEST(Gates, FirstRatioThatIsNotOneStopsAllRanks) {
  const std::string sentence = sabotaged("ratio", [](PpoTrainer& trainer) {
    ParameterStore& store = trainer.actor().store();
    std::vector<float> weight(1);
    store.read(Kind::value, "final_norm.gain", 0, weight);
    weight[0] += 1e-4f;
    store.write(Kind::value, "final_norm.gain", 0, weight);
  });
  EXPECT_NE(sentence.find("the first ratio of iteration 2 is not 1"), std::string::npos) << sentence;
}

TEST(Gates, PolicyLossThatIsNotFiniteStopsAllRanksWithTheSample) {
  const std::string sentence = sabotaged("policy", [](PpoTrainer& trainer) {
    poison(trainer.actor().store(), trainer.actor().transformer().config(), 'y');  // every prompt says "say"
  });
  EXPECT_NE(sentence.find("the policy loss of sample "), std::string::npos) << sentence;
  EXPECT_NE(sentence.find("is not finite in iteration 2"), std::string::npos) << sentence;
  EXPECT_GE(std::stoi(sentence.substr(sentence.find("sample ") + 7)), 24) << sentence;  // the second iteration's
}

TEST(Gates, ValueThatIsNotFiniteStopsAllRanksWithTheSample) {
  const std::string sentence =
      sabotaged("value", [](PpoTrainer& trainer) { poison(trainer.critic().store(), trainer.critic().transformer().config(), 'y'); });
  EXPECT_NE(sentence.find("the value of sample "), std::string::npos) << sentence;
  EXPECT_GE(std::stoi(sentence.substr(sentence.find("sample ") + 7)), 24) << sentence;
}

TEST(Gates, EnginesThatThrowOnOneRankStopAllRanks) {
  GateBench bench("engine");
  Session session = bench.session();
  const bool last = bench.world.rank() == bench.world.size() - 1;
  std::vector<Sequence> sequences;
  for (int i = 0; i < 24; ++i) sequences.push_back({i, std::vector<std::int32_t>(20, i), 1});
  const Batch batch = session.batch(sequences);
  const auto fault = [&] {
    if (last) fail_with(ExitCode::failure, "rows are broken");
  };
  for (const auto& run : std::initializer_list<std::function<void()>>{
           [&] { compute_grains(session.division(), fault); },
           [&] { per_token(batch, session.division(), [&](std::span<const Grain>, const EachValued&) { fault(); }); }})
    EXPECT_NE(sentence_of(bench.world, run).find("rows are broken"), std::string::npos);
}

}  // namespace
}  // namespace collimate::rlhf
