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

/// Scores a thousandth apart before the first iteration, which are normalised by about a thousand, and one of 1e38 in it.
struct Exploding : Scorer {
  int calls = 0;
  std::vector<double> score(std::span<const ScoredSample> samples) override {
    ++calls;
    std::vector<double> scores;
    for (const ScoredSample& sample : samples) scores.push_back(calls == 2 && sample.index == 5 ? 1e38 : 1e-3 * static_cast<double>(sample.index % 2));
    return scores;
  }
};

TEST(Gates, AScoreThatIsTooLargeOnlyAfterNormalisationIsRefusedWithItsSample) {
  GateBench bench("exploding");
  bench.options.ppo.normalise_samples = 24;
  Exploding scorer;
  Session session = bench.session();
  if (session.first()) session.scorer = &scorer;
  PpoTrainer trainer(session);
  std::string sentence = "no error";
  try {
    trainer.run();
  } catch (const Error& error) {
    sentence = error.what();
  }
  EXPECT_NE(sentence.find("gives sample 5 the score 1e+38"), std::string::npos) << sentence;
}

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

// A loss that is finite and a gradient that is not: the first of the samples that have such a one is named.
TEST(Gates, OnEveryGridAGradientThatIsNotFiniteStopsAllRanksWithTheSample) {
  GateBench bench("gradient");
  bench.options.machine.tensor_shards = 2;
  for (const auto& [shape, zero] : layouts(bench.world.size())) {
    ProcessGrid grid(bench.world, shape);
    bench.options.machine.zero = zero;
    Session session{.world = bench.world, .grid = grid, .device = *bench.device, .log = bench.log, .options = bench.options};
    MemoryPlan plan(*bench.device);
    Workspace workspace(plan);
    Learner model;
    ModelConfig config = bench.options.model.config(300);
    std::vector<Sequence> sequences;
    for (int i = 0; i < 9; ++i) sequences.push_back({100 + i, std::vector<std::int32_t>(20, i), 1});
    const Batch batch = session.batch(sequences);
    model.engine = std::make_unique<Engine>("policy", config, Head::policy, session.division(),
                                            EngineUse{.rows = session.most_rows(), .most_grains = batch.grains()}, workspace);
    workspace.reserve();
    plan.commit();
    model.start({});
    model.engine->store().initialise(1);
    model.rate = {.peak = 1e-3};
    const std::uint64_t before = combine(model.store().layout(), model.store().hashes(Kind::value));
    const auto step = [&](const std::map<std::int64_t, float>& broken) {
      const auto loss_of = [&](std::int64_t, const PackedGrain& packed, GrainResult<SupervisedTotals>&) -> TokenLoss {
        return [&](std::int64_t row, auto, auto, auto dlogprob, auto dentropy) {
          for (std::size_t r = 0; r < dlogprob.size(); ++r) {
            const auto found = broken.find(packed.samples[row + r]);
            dlogprob[r] = found == broken.end() ? 1e-3f : found->second;
            dentropy[r] = 0;
          }
        };
      };
      return sentence_of(bench.world, [&] {
        optimizer_step<SupervisedTotals>(session, model, {"sft", 1}, batch, {}, loss_of, [](const std::string& what, std::int64_t sample) {
          return fmt::format("{} of {}", what, sample);
        });
      });
    };
    for (int one = 100; one < 109; ++one) EXPECT_EQ(step({{one, nan}}), fmt::format("gradient of {}", one)) << shape.text() << zero;
    EXPECT_EQ(step({{107, nan}, {105, nan}}), "gradient of 105") << shape.text() << zero;
    EXPECT_EQ(combine(model.store().layout(), model.store().hashes(Kind::value)), before);  // nothing has changed
    EXPECT_EQ(step({}), "no error");
  }
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

// A sample that cannot be computed, in one grain of many, and weights that break a generation: no rank waits for the one that found it.
TEST(Gates, OnEveryGridWhatOneRankCannotComputeStopsAllRanks) {
  World& world = *test_world();
  const auto device = make_device();
  ModelConfig config;
  config.vocabulary = 64, config.context = 32, config.layers = 2, config.width = 32, config.heads = config.kv_heads = 2, config.head_size = 16;
  config.mlp = 64;
  for (const auto& [shape, zero] : layouts(world.size())) {
    SCOPED_TRACE(fmt::format("{}, ZeRO {}", shape.text(), zero));
    const ProcessGrid grid(world, shape);
    const Division division{&grid, 2, zero};
    MemoryPlan plan(*device);
    Workspace workspace(plan);
    Engine engine("policy", config, Head::policy, division, {.rows = 32, .most_grains = 8, .slots = 3, .capacity = 30}, workspace);
    workspace.reserve();
    plan.commit();
    engine.prepare();
    engine.store().initialise(1);
    const auto expect = [&](const std::string& part, const std::function<void()>& run) {
      std::string sentence = "no error";
      try {
        run();
      } catch (const AgreedError& error) {
        sentence = error.what();
      }
      for (const std::string& other : gather_all(world.ranks(), sentence)) EXPECT_EQ(other, sentence);
      EXPECT_NE(sentence.find(part), std::string::npos) << sentence;
    };
    const auto batch_of = [&](int bad, int token, int length) {
      std::vector<Sequence> sequences;
      for (int i = 0; i < 7; ++i) sequences.push_back({i, std::vector<std::int32_t>(i == bad ? length : 20, i == bad ? token : i), 1});
      return Batch(sequences, 20, division);
    };
    const auto score = [&](const Batch& batch) {
      per_token(batch, division, [&](std::span<const Grain> grains, const EachValued& each) {
        engine.score(grains, 1, [&](std::size_t g, auto logprob, auto) { each(g, logprob); });
      });
    };
    const auto learn = [&](const Batch& batch) {
      const std::vector<PackedGrain> packed = batch.pack_mine();
      engine.begin_step(batch.grains());
      compute_grains(division, [&] { engine.forward_backward(views_of(packed), 1, {}, [](auto&&...) {}); });
      engine.finish_step();
    };
    const auto generate = [&](int bad) {
      std::vector<Prompt> prompts;
      for (int i = 0; i < 8; ++i) prompts.push_back({{1, i == bad ? 70 : 2}, static_cast<std::uint64_t>(i)});
      const Part share = part_of(8, division.rank(Axis::data), division.ranks(Axis::data));
      GenerateOptions how;
      how.max_new = 4;
      compute_grains(division, [&] { engine.generate(std::span(prompts).subspan(share.begin, share.count), how); });
    };
    for (const auto& run : std::initializer_list<std::function<void(const Batch&)>>{score, learn}) {
      expect("sample 5 has token 64 for the model policy", [&] { run(batch_of(5, 64, 20)); });
      expect("no error", [&] { run(batch_of(-1, 0, 0)); });
    }
    expect("sample 3 has the token 70 in its prompt", [&] { generate(3); });
    expect("no error", [&] { generate(-1); });
    const std::vector<float> broken(config.width, nan);
    engine.store().write(Kind::value, "final_norm.gain", 0, broken);
    expect("has logits that are not finite at token 2: its weights are broken", [&] { generate(-1); });
  }
}

}  // namespace
}  // namespace collimate::rlhf
