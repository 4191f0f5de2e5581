#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <thread>

#include "collimate/rlhf/saved_models.hpp"
#include "collimate/rlhf/stages.hpp"
#include "collimate/rlhf/weights.hpp"
#include "rlhf/mpi/bench.hpp"
#include "support/refusal.hpp"

// The trainers on tiny data, every rank count of the test: the details of a right PPO that need a model.
namespace collimate::rlhf {
namespace {

/// A policy of a checkpoint, ready to generate.
struct Policy {
  MemoryPlan plan;
  Workspace workspace{plan};
  Source source;
  std::unique_ptr<Engine> engine;
  Policy(Session& session, const std::string& stage, const Dataset& prompts)
      : plan(session.device), source(find_source(session, "stage", stage, Head::policy, Accept::exact, prompts)) {
    engine = std::make_unique<Engine>("policy", source.card.config, Head::policy, session.division(),
                                      EngineUse{.rows = session.most_rows(), .slots = 7, .capacity = 40}, workspace);
    workspace.reserve();
    plan.commit();
    engine->prepare();
    load_source(session, source, *engine);
  }
};

TEST(Trainers, Detail02EndOfTextIsLearned) {
  Bench bench("detail02");
  Session session = bench.session();
  SupervisedTrainer(session).run();
  const Dataset prompts(bench.options.ppo.prompts);
  Policy policy(session, "sft", prompts);
  std::vector<PromptSample> asked;
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < prompts.size(); ++i) asked.push_back(prompts.prompt(i)), ids.push_back(i);
  const Rollout rollout = sample_responses(session, *policy.engine, policy.source.text, asked, ids, {.temperature = 0, .max_new = 12});
  for (std::int64_t i = 0; i < rollout.size(); ++i) {
    EXPECT_TRUE(rollout.ended(i)) << rollout.responses[i];
    EXPECT_EQ(rollout.responses[i], prompts.prompt(i).answer);
    // Details 6 and 8: what was sampled is what is trained, and the mask covers it with its end of text.
    const auto& tokens = rollout.sequences[i].tokens;
    EXPECT_EQ(rollout.sequences[i].learned(), rollout.offsets[i + 1] - rollout.offsets[i]);
    EXPECT_EQ(tokens.back(), *policy.source.text.make_tokenizer()->eos());
    const auto prompt = prompts.prompt(i).tokens;
    EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), tokens.begin()));
  }
  // Detail 15: a response that is cut short says so.
  const Rollout cut = sample_responses(session, *policy.engine, policy.source.text, asked, ids, {.temperature = 0, .max_new = 1});
  for (std::int64_t i = 0; i < cut.size(); ++i) EXPECT_FALSE(cut.ended(i));
  if (!session.first()) return;
  EXPECT_LT(bench.metrics().back()["loss"].get<double>(), 0.01);
}

// A preferred answer is a whole one: the same words without the end of the text are not.
TEST(Trainers, PreferredAnswersHaveAnEnd) {
  Bench bench("preferred");
  agree_on(bench.world.ranks(), [&] {
    if (bench.world.rank() != 0) return;
    std::ofstream sft(bench.file("sft.jsonl")), prompts(bench.file("prompts.jsonl"));
    for (char c = 'a'; c < 'e'; ++c) {
      sft << fmt::format("{{\"prompt\": \"say {}\", \"response\": \"Sure! It is {}.\"}}\n", c, c);
      prompts << fmt::format("{{\"prompt\": \"say {}\", \"answer\": \"{}\"}}\n", c, c);
    }
    sft.close(), prompts.close();
    bench.prepare("sft", DatasetKind::supervised), bench.prepare("prompts", DatasetKind::prompts);
  });
  bench.options.sft.steps = 300;
  bench.options.sft.batch = 4;
  bench.options.evaluate.temperature = 0;
  bench.options.evaluate.preferred = true;
  Session session = bench.session();
  SupervisedTrainer(session).run();
  const Dataset prompts(bench.options.ppo.prompts);
  Policy policy(session, "sft", prompts);
  MemoryPlan plan(session.device);
  Workspace workspace(plan);
  Engine scorer("reward", policy.source.card.config, Head::value, session.division(), {.rows = session.most_rows()}, workspace);
  workspace.reserve();
  plan.commit();
  scorer.prepare();
  const ScoreSource scores(session, &scorer, {});
  for (const auto& [max_new, share] : {std::pair{15, 1.0}, {14, 0.0}}) {
    bench.options.evaluate.max_new = max_new;
    const Evaluation e = evaluate_policy(session, *policy.engine, nullptr, policy.source.text, prompts, scores);
    EXPECT_EQ(e.rollout.responses[0], "Sure! It is a.");
    EXPECT_EQ(e.preferred, share);
    EXPECT_EQ(e.ended, share);
  }
}

// Two bytes are left of every response, and the end of text is cut with the rest: nats per byte counts what is learned.
TEST(Trainers, NatsPerByteCountTheBytesThatAreLearned) {
  Bench bench("bytes");
  agree_on(bench.world.ranks(), [&] {
    if (bench.world.rank() != 0) return;
    PrepareOptions cut;
    cut.inputs = {bench.file("sft.jsonl")};
    cut.rules.max_response_tokens = 2;
    cut.rules.response_rule = TooLong::cut;
    cut.output = bench.file("cut.h5");
    collimate::prepare(cut);
  });
  bench.options.sft.data = bench.options.sft.heldout = bench.file("cut.h5");
  bench.options.sft.steps = 2;
  Session session = bench.session();
  SupervisedTrainer(session).run();
  const auto summary = nlohmann::json::parse(session.summary.text());
  EXPECT_NEAR(summary["sft.eval_nats_per_byte"].get<double>(), summary["sft.eval_loss"].get<double>(), 1e-12);
  if (!session.first()) return;
  const auto line = bench.metrics().back();
  EXPECT_EQ(line["eval_tokens"], 64);
  EXPECT_EQ(line["eval_bytes"], 64);
  EXPECT_EQ(line["eval_nats_per_byte"], summary["sft.eval_nats_per_byte"]);
}

// Evaluations go over the data in pieces of 1,024 samples and 512 groups: none is lost between two of them.
TEST(Trainers, LongDatasetsAreEvaluatedWhole) {
  Bench bench("long");
  constexpr int samples = 1030, groups = 520;
  agree_on(bench.world.ranks(), [&] {
    if (bench.world.rank() != 0) return;
    std::ofstream sft(bench.file("many.jsonl")), pairs(bench.file("groups.jsonl"));
    for (int i = 0; i < samples; ++i) sft << fmt::format("{{\"prompt\": \"q\", \"response\": \"{}\"}}\n", std::string(1 + i % 2, 'a'));
    for (int i = 0; i < groups; ++i)
      pairs << fmt::format("{{\"prompt\": \"{}\", \"chosen\": \"y{}\", \"rejected\": \"n\"}}\n", i, i % 7);
    sft.close(), pairs.close();
    bench.prepare("many", DatasetKind::supervised), bench.prepare("groups", DatasetKind::preference);
  });
  bench.options.sft.heldout = bench.file("many.h5");
  bench.options.reward.heldout = bench.file("groups.h5");
  bench.options.sft.steps = bench.options.reward.steps = 1;
  bench.options.machine.grain_tokens = 512;
  Session session = bench.session();
  SupervisedTrainer(session).run();
  RewardTrainer(session).run();
  if (!session.first()) return;
  for (const auto& line : bench.metrics()) {
    if (line.contains("eval_tokens")) {
      EXPECT_EQ(line["eval_bytes"], samples / 2 * 3);
      EXPECT_EQ(line["eval_tokens"], samples / 2 * 3 + samples);  // an end of text each
    }
    if (line.contains("eval_pairs")) {
      EXPECT_EQ(line["eval_pairs"], groups);
    }
  }
  EXPECT_EQ(nlohmann::json::parse(session.summary.text())["reward.pairs"], groups);
}

// The sequences of a group are numbered, and the numbers key random numbers: a group never runs into those of the next one.
TEST(Trainers, PromptGroupsWithMorePairsThanHaveNumbersAreRefused) {
  Bench bench("pairs");
  agree_on(bench.world.ranks(), [&] {
    if (bench.world.rank() != 0) return;
    std::ofstream lines(bench.file("many.jsonl"));
    for (int i = 0; i < 32769; ++i) lines << fmt::format("{{\"prompt\": \"q\", \"chosen\": \"{:x}\", \"rejected\": \"n\"}}\n", i);
    lines.close();
    bench.prepare("many", DatasetKind::preference);
  });
  bench.options.machine.grain_tokens = 600000;
  bench.options.reward.init = "random";
  for (std::string* data : {&bench.options.reward.data, &bench.options.reward.heldout}) {
    const std::string before = std::exchange(*data, bench.file("many.h5"));
    Session session = bench.session();
    EXPECT_EQ(test::refusal([&] { RewardTrainer trainer(session); }),
              fmt::format("prompt group 0 of '{}' has 32769 pairs, and a group can have 32768 at most: prepare the pairs of a prompt apart "
                          "(--group-pairs none)",
                          bench.file("many.h5")));
    *data = before;
  }
}

TEST(Trainers, Detail21NormalisedScoresHaveMeanZeroAndDeviationOne) {
  Bench bench("detail21");
  bench.options.sft.steps = 2;
  Session session = bench.session();
  SupervisedTrainer(session).run();
  RewardTrainer(session).run();
  const ModelCard card = SavedModels(session.checkpoint("reward")).card("reward");
  const Dataset pairs(bench.options.reward.heldout);
  MemoryPlan plan(*bench.device);
  Workspace workspace(plan);
  Engine engine("reward", card.config, Head::value, session.division(), {.rows = session.most_rows()}, workspace);
  workspace.reserve();
  plan.commit();
  engine.prepare();
  SavedModels(session.checkpoint("reward")).load("reward", engine.store());
  std::vector<Sequence> sequences;
  for (std::int64_t i = 0; i < pairs.size(); ++i) {
    const PreferenceGroup group = pairs.preference(i);
    for (const auto* answer : {&group.pairs[0].chosen, &group.pairs[0].rejected}) {
      std::vector<std::int32_t> tokens = group.prompt;
      tokens.insert(tokens.end(), answer->begin(), answer->end());
      sequences.push_back({i, tokens, static_cast<std::int64_t>(group.prompt.size())});
    }
  }
  const Batch batch(sequences, 128, session.division());
  const auto values = [&](auto grains, const EachValued& each) { engine.values(grains, each); };
  const std::vector<float> raw = per_sequence(batch, session.division(), values);
  std::vector<double> normal;
  for (const float r : raw) normal.push_back(card.normalisation(r));
  EXPECT_NEAR(mean_std(normal).mean, 0, 1e-3);
  EXPECT_NEAR(mean_std(normal).std, 1, 1e-3);
  // Detail 43: a critic that starts from the reward model starts at its normalised score, one from a policy at 0.
  scale_value_head(engine.store(), card.normalisation.gain, card.normalisation.bias);
  const std::vector<float> critic = per_sequence(batch, session.division(), values);
  for (std::size_t i = 0; i < critic.size(); ++i) EXPECT_NEAR(critic[i], normal[i], 1e-4 * (1 + std::abs(normal[i])));
  scale_value_head(engine.store(), 0, 0);
  for (const float value : per_sequence(batch, session.division(), values)) EXPECT_EQ(value, 0.0f);
}

TEST(Trainers, Details13And29DropoutIsOffInPpoAndKlStartsAtZero) {
  Bench bench("detail29");
  bench.options.model.dropout = 0.2;
  bench.options.sft.steps = bench.options.reward.steps = 3;
  Session session = bench.session();
  SupervisedTrainer(session).run();
  RewardTrainer(session).run();
  PpoTrainer(session).run();  // stops by itself where the first ratio is not 1
  if (!session.first()) return;
  int iterations = 0;
  for (const auto& line : bench.metrics()) {
    if (line["stage"] != "ppo" || !line.contains("kl")) continue;
    EXPECT_EQ(line["first_ratio"].get<double>(), 1.0);
    if (line["iteration"] == 1)
      EXPECT_EQ(line["kl"].get<double>(), 0.0);
    else
      EXPECT_NE(line["kl"].get<double>(), 0.0);
    EXPECT_EQ(line["actor_steps"].get<int>(), 6);  // detail 40: 24 samples in minibatches of 10, 10, 4, twice
    ++iterations;
  }
  EXPECT_EQ(iterations, 2);
}

void expect_phase(const nlohmann::json& line, const std::string& phase, int ranks) {
  EXPECT_GT(line[phase + "_seconds"].get<double>(), 0) << line;
  EXPECT_LE(line[phase + "_seconds"].get<double>(), line["seconds"].get<double>()) << line;
  EXPECT_GT(line[phase + "_tokens_per_second"].get<double>(), 0) << line;
  const auto idle = line[phase + "_idle"].get<std::vector<double>>();
  EXPECT_EQ(idle.size(), ranks);
  for (const double share : idle) EXPECT_TRUE(share >= 0 && share <= 1) << line;
}

// The health metrics: what the deck defines in metrics.jsonl, times in timings.jsonl.
TEST(Trainers, HealthMetricsAreWritten) {
  Bench bench("health");
  bench.options.sft.steps = bench.options.reward.steps = 3;
  bench.options.run.stages = {"sft", "reward", "ppo"};
  Session session = bench.session();
  run_stages(session);
  if (!session.first()) return;
  std::map<std::string, int> steps, ends;
  for (const auto& line : bench.metrics()) {
    if (!line.contains("actor_steps")) continue;
    for (const char* key : {"first_ratio", "mult_prob_error", "clip_fraction", "approx_kl", "kl", "entropy", "explained_variance", "ended",
                            "length", "length_p95", "length_max", "actor_gradient_norm", "critic_gradient_norm"})
      EXPECT_TRUE(line[key].is_number()) << key;
    for (const auto& [key, value] : line.items()) EXPECT_EQ(key.find("second"), std::string::npos) << key;
  }
  for (const auto& line : bench.metrics("timings")) {
    const auto stage = line["stage"].get<std::string>();
    if (line.contains("stage_seconds")) {
      const auto memory = line["peak_memory_bytes"].get<std::vector<std::int64_t>>();
      EXPECT_EQ(memory.size(), bench.world.size());
      for (const std::int64_t bytes : memory) EXPECT_GT(bytes, 1 << 20);
      ++ends[stage];
      continue;
    }
    EXPECT_EQ(line["step"], ++steps[stage]);
    for (const char* phase : {"generate", "score", "update"})
      if (stage == "ppo" || phase == std::string("update")) expect_phase(line, phase, bench.world.size());
  }
  EXPECT_EQ(steps, (std::map<std::string, int>{{"sft", 3}, {"reward", 3}, {"ppo", 2}}));
  EXPECT_EQ(ends, (std::map<std::string, int>{{"sft", 1}, {"reward", 1}, {"ppo", 1}}));
}

// Rank 0 works for a while and the others wait for it.
TEST(Progress, IdleIsTheShareOfAPhaseInWhichARankWaits) {
  Bench bench("idle");
  Session session = bench.session();
  Progress progress(session, "test", 0, 1, 1);
  progress.begin(1);
  if (session.first()) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  progress.phase("work", 600);
  progress.end(600, "");
  if (!session.first()) return;
  const auto line = bench.metrics("timings").back();
  EXPECT_NEAR(line["work_seconds"].get<double>(), 0.3, 0.1);
  EXPECT_NEAR(line["work_tokens_per_second"].get<double>(), 600 / line["work_seconds"].get<double>(), 1e-6);
  const auto idle = line["work_idle"].get<std::vector<double>>();
  ASSERT_EQ(idle.size(), bench.world.size());
  EXPECT_LT(idle[0], 0.3);
  for (std::size_t rank = 1; rank < idle.size(); ++rank) EXPECT_GT(idle[rank], 0.7);
}

// A rate of 0 leaves the weights as they start. With model.init_std they are transformers' for GPT-2: 0.02, and 0.02 / sqrt(2 x 2 layers) where a
// matrix writes into the residual stream; a reward model that starts from such a model has its head alike. 0: 1 / sqrt(inputs).
TEST(Trainers, RandomWeightsStartAsTheDeckSays) {
  for (const double init_std : {0.02, 0.0})
    for (const char* family : {"gpt2", "llama"}) {
      Bench bench("init");
      bench.options.model.family = family;
      bench.options.model.init_std = init_std;
      bench.options.model.tied = false;
      bench.options.model.width = 64;
      bench.options.sft.steps = bench.options.reward.steps = 1;
      bench.options.sft.optimizer.rate = bench.options.reward.optimizer.rate = 0;
      Session session = bench.session();
      SupervisedTrainer(session).run();
      RewardTrainer(session).run();
      const bool gpt2 = family == std::string("gpt2");
      const double mlp = gpt2 ? 256 : 168;
      const auto expect = [&](const std::string& stage, const std::string& tensor, double own, double inputs) {
        const CheckpointReader reader(session.checkpoint(stage));
        std::vector<float> values(reader.find(tensor).shape.count());
        reader.read(tensor, 0, std::ssize(values), values.data());
        double squares = 0;
        for (const double x : values) squares += x * x;
        const double n = static_cast<double>(values.size()), deviation = init_std > 0 ? own : 1 / std::sqrt(inputs);
        EXPECT_NEAR(std::sqrt(squares / n) / deviation, 1, 4 / std::sqrt(2 * n)) << family << " " << init_std << " " << tensor;
      };
      for (const std::string block : {"sft policy/value/block.0.", "reward reward/value/block.1."}) {
        const std::string stage = block.substr(0, block.find(' ')), name = block.substr(block.find(' ') + 1);
        for (const char* matrix : {"query", "key", "value", "up"}) expect(stage, name + matrix + ".weight", 0.02, 64);
        expect(stage, name + "output.weight", 0.01, 64 * 4);
        expect(stage, name + "down.weight", 0.01, mlp * 4);
      }
      expect("sft", "policy/value/embedding.weight", 0.02, 2500);
      expect("sft", "policy/value/head.weight", 0.02, 2500);
      if (gpt2) expect("sft", "policy/value/position.weight", 0.02, 2500);
      expect("reward", "reward/value/value_head.weight", 0.02, 65);
      std::vector<float> norm(64);
      const CheckpointReader reader(session.checkpoint("sft"));
      reader.read("policy/value/block.0.norm1.gain", 0, 64, norm.data());
      EXPECT_EQ(norm, std::vector<float>(64, 1.0f));
      if (!gpt2) continue;
      reader.read("policy/value/block.0.query.bias", 0, 64, norm.data());
      EXPECT_EQ(norm, std::vector<float>(64, 0.0f));
    }
}

TEST(Trainers, Detail17ValueHeadStartsWithDeviationOneOverRootWidthPlusOne) {
  ModelConfig config;
  config.vocabulary = 3, config.context = 8, config.layers = 1, config.width = 4096, config.heads = 1, config.kv_heads = 1,
  config.head_size = 8, config.mlp = 8;
  double squares = 0;
  constexpr int seeds = 8;
  const auto device = make_device();
  for (int seed = 0; seed < seeds; ++seed) {
    MemoryPlan plan(*device);
    const Transformer model(config, Head::value, Division{}, plan);
    ParameterStore store("reward", model.layout(), plan);
    plan.commit();
    store.initialise(seed);
    std::vector<float> weight(4096), bias(1);
    store.read(Kind::value, "value_head.weight", 0, weight);
    store.read(Kind::value, "value_head.bias", 0, bias);
    EXPECT_EQ(bias[0], 0.0f);
    for (const float w : weight) squares += static_cast<double>(w) * w;
  }
  EXPECT_NEAR(std::sqrt(squares / (4096 * seeds)) * std::sqrt(4097.0), 1, 0.01);
}

}  // namespace
}  // namespace collimate::rlhf

int main(int argc, char** argv) { return collimate::run_mpi_tests(argc, argv); }
