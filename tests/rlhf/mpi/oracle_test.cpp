#include "rlhf/mpi/twin.hpp"

#include "collimate/rlhf/saved_models.hpp"

// Whole stages against the same stage written down once more: sample by sample on one rank, in double precision, straight from the
// formulas. What the deck says must be in the weights and in metrics.jsonl.
namespace collimate::rlhf {
namespace {

struct OracleBench : Bench {
  explicit OracleBench(const std::string& name) : Bench("oracle-" + name) {
    options.machine.grain_tokens = 96;
    options.model.layers = 1;
    options.run.seed = 9;
    options.sft.optimizer = options.reward.optimizer = options.ppo.actor_optimizer = options.ppo.critic_optimizer = smooth();
  }
  /// Groups of one to three pairs, with margins. In the held-out ones the answers are longer, so that their scores have another mean and
  /// deviation, and every fourth group is the other way round, so that not all come out right.
  void write_pairs(const std::string& name, bool heldout) const {
    agree_on(world.ranks(), [&] {
      if (world.rank() != 0) return;
      std::ofstream out(file(name + ".jsonl"));
      for (int i = 0; i < 16; ++i)
        for (int k = 0; k <= i % 3; ++k) {
          std::string chosen(1 + i % 4, 'x'), rejected(2 + k, 'z');
          if (heldout) chosen += "xyx", rejected += "yy";
          if (heldout && i % 4 == 0) chosen.swap(rejected);
          out << fmt::format("{{\"prompt\": \"say {}\", \"chosen\": \"{}\", \"rejected\": \"{}\", \"margin\": {}}}\n",
                             static_cast<char>('a' + i), chosen, rejected, 0.25 * k);
        }
      out.close();
      prepare(name, DatasetKind::preference);
    });
  }
  /// The supervised data once more, with responses of which some tokens are not learned, as dialogues have them.
  void punch_holes() {
    agree_on(world.ranks(), [&] {
      if (world.rank() != 0) return;
      const Dataset whole(options.sft.data);
      DatasetWriter out(file("holes.h5"), DatasetKind::supervised, whole.rules(), *deserialize_tokenizer(whole.tokenizer()));
      for (std::int64_t i = 0; i < whole.size(); ++i) {
        SupervisedSample sample = whole.supervised(i);
        for (std::size_t t = 0; t + 1 < sample.mask.size(); ++t) sample.mask[t] &= (t + static_cast<std::size_t>(i)) % 3 != 0;
        out.add(sample);
      }
      out.finish();
    });
    options.sft.data = file("holes.h5");
  }
  std::vector<nlohmann::json> lines(const std::string& key) const {
    std::vector<nlohmann::json> out;
    for (const auto& line : metrics())
      if (line.contains(key)) out.push_back(line);
    return out;
  }
};

void compare_supervised(bool shuffle, double dropout, std::int64_t samples = 12, bool holes = false) {
  OracleBench bench("sft");
  if (holes) bench.punch_holes();
  bench.options.sft.shuffle = shuffle;
  bench.options.model.dropout = dropout;
  bench.options.sft.heldout = bench.options.sft.data;
  bench.options.sft.steps = 0;
  bench.options.sft.epochs = static_cast<double>(samples) / 8;  // of 32 samples: 4 steps
  bench.options.sft.batch = samples;
  bench.options.machine.grain_tokens = 8 * samples;
  Session session = bench.session();
  SupervisedTrainer(session).run();
  const Dataset data(bench.options.sft.data);
  const auto load = [&](std::int64_t i) {
    const SupervisedSample sample = data.supervised(i);
    return Sequence{i, sample.tokens, std::find(sample.mask.begin(), sample.mask.end(), 1) - sample.mask.begin(), sample.mask};
  };
  Twin twin(session, bench.options.model.config(data.vocabulary()), Head::policy, bench.options.sft.optimizer, 4);
  std::vector<double> losses, norms;
  std::vector<std::int64_t> counts;
  for (int step = 1; step <= 4; ++step) {
    std::vector<Sequence> batch;
    std::int64_t tokens = 0;
    for (const std::int64_t i : take(data.size(), 9, (step - 1) * samples, samples, shuffle)) {
      batch.push_back(load(i));
      tokens += std::count(batch.back().mask.begin(), batch.back().mask.end(), 1);
    }
    twin.dropout = {dropout, 9, step};
    norms.push_back(twin.step(batch, 1, [&](std::size_t i) {
      const std::size_t n = batch[i].tokens.size() - static_cast<std::size_t>(batch[i].prompt);
      Twin::Scored out{std::vector<double>(n), std::vector<double>(n)};
      for (std::size_t t = 0; t < n; ++t) out.logprob[t] = batch[i].mask[batch[i].mask.size() - n + t] ? -1.0 / static_cast<double>(tokens) : 0;
      return out;
    }));
    losses.push_back(-twin.sum_logprob / static_cast<double>(tokens)), counts.push_back(tokens);
  }
  twin.expect_saved("sft", "policy");
  if (!session.first()) return;
  const auto lines = bench.lines("loss");
  ASSERT_EQ(lines.size(), 4);
  for (int step = 0; step < 4; ++step) {
    expect_close(lines[step], "loss", losses[step]);
    expect_close(lines[step], "gradient_norm", norms[step]);
    EXPECT_EQ(lines[step]["tokens"], counts[step]);
    EXPECT_EQ(lines[step]["samples"], samples * (step + 1));
  }
  double nats = 0;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const Sequence sequence = load(i);
    const std::vector<double> logprob = twin.score(sequence).logprob;
    for (std::size_t t = 0; t < logprob.size(); ++t)
      if (sequence.mask[sequence.mask.size() - logprob.size() + t]) nats -= logprob[t], ++tokens;
  }
  const auto line = bench.lines("eval_loss").back();
  expect_close(line, "eval_loss", nats / static_cast<double>(tokens));
  EXPECT_EQ(line["eval_tokens"], tokens);
}

TEST(Oracle, SupervisedTraining) {
  compare_supervised(true, 0.1);
  compare_supervised(false, 0);
  compare_supervised(true, 0, 60);  // grains of several blocks of 256 rows
  compare_supervised(true, 0, 12, true);
}

TEST(Oracle, RewardTraining) {
  OracleBench bench("reward");
  bench.write_pairs("pairs", false);
  bench.write_pairs("heldout", true);
  bench.options.reward.heldout = bench.file("heldout.h5");
  bench.options.reward.init = "random";
  bench.options.reward.steps = 3;
  bench.options.reward.batch = 7;  // 21 of 16 groups
  Session session = bench.session();
  RewardTrainer(session).run();
  const Dataset data(bench.options.reward.data);
  ASSERT_EQ(data.size(), 16);
  struct Row {
    Sequence sequence;
    std::int64_t group;
    double margin, weight;
  };
  const auto load = [&](const Dataset& data, std::int64_t g) {
    const PreferenceGroup group = data.preference(g);
    std::vector<Row> rows;
    for (const PreferencePair& pair : group.pairs)
      for (const auto* answer : {&pair.chosen, &pair.rejected}) {
        Sequence sequence{0, group.prompt, static_cast<std::int64_t>(group.prompt.size())};
        sequence.tokens.insert(sequence.tokens.end(), answer->begin(), answer->end());
        rows.push_back({sequence, g, pair.margin, 1.0 / static_cast<double>(group.pairs.size())});
      }
    return rows;
  };
  Twin twin(session, bench.options.model.config(data.vocabulary()), Head::value, bench.options.reward.optimizer, 3);
  std::vector<double> losses, norms, accuracies;
  for (int step = 1; step <= 3; ++step) {
    std::vector<Row> rows;
    for (const std::int64_t g : take(data.size(), 9, (step - 1) * 7, 7))
      for (const Row& row : load(data, g)) rows.push_back(row);
    std::vector<Sequence> batch;
    std::vector<double> scores, slopes(rows.size());
    for (const Row& row : rows) batch.push_back(row.sequence), scores.push_back(twin.values(row.sequence).back());
    double loss = 0, correct = 0;
    for (std::size_t i = 0; i < rows.size(); i += 2) {
      const double x = scores[i] - scores[i + 1] - rows[i].margin, weight = rows[i].weight / 7;
      loss += weight * std::log(1 + std::exp(-x));
      slopes[i] = -weight / (1 + std::exp(x)), slopes[i + 1] = -slopes[i];
      correct += scores[i] > scores[i + 1];
    }
    losses.push_back(loss), accuracies.push_back(correct / (static_cast<double>(rows.size()) / 2));
    norms.push_back(twin.step(batch, [&](std::size_t i) {
      std::vector<double> slope(batch[i].tokens.size());
      slope.back() = slopes[i];
      return slope;
    }));
  }
  twin.expect_saved("reward", "reward");
  std::vector<double> all;
  double correct = 0;
  const Dataset heldout(bench.options.reward.heldout);
  for (std::int64_t g = 0; g < heldout.size(); ++g)
    for (const Row& row : load(heldout, g)) {
      all.push_back(twin.values(row.sequence).back());
      if (all.size() % 2 == 0) correct += all[all.size() - 2] > all.back();
    }
  const MeanStd spread = mean_std(all);
  std::vector<double> training;
  for (std::int64_t g = 0; g < data.size(); ++g)
    for (const Row& row : load(data, g)) training.push_back(twin.values(row.sequence).back());
  EXPECT_GT(std::abs(mean_std(training).mean - spread.mean), 0.005 * spread.std) << "a normalisation over the training pairs would not be seen";
  EXPECT_GT(std::abs(mean_std(training).std / spread.std - 1), 0.005);
  const ScoreNormalisation normal = SavedModels(session.checkpoint("reward")).card("reward").normalisation;
  EXPECT_NEAR(normal.gain * spread.std, 1, 1e-3);
  EXPECT_NEAR(normal.gain * spread.mean + normal.bias, 0, 1e-3);
  if (!session.first()) return;
  const auto lines = bench.lines("loss");
  ASSERT_EQ(lines.size(), 3);
  for (int step = 0; step < 3; ++step) {
    expect_close(lines[step], "loss", losses[step]);
    expect_close(lines[step], "gradient_norm", norms[step]);
    expect_close(lines[step], "accuracy", accuracies[step]);
    EXPECT_EQ(lines[step]["groups"], 7 * (step + 1));
  }
  const auto line = bench.lines("eval_accuracy").back();
  EXPECT_LT(line["eval_accuracy"].get<double>(), 1);
  EXPECT_EQ(line["eval_pairs"], all.size() / 2);
  expect_close(line, "eval_accuracy", correct / (static_cast<double>(all.size()) / 2));
}

TEST(Oracle, RewardTrainingHasDropout) {
  std::vector<double> losses;
  for (const double dropout : {0.0, 0.2}) {
    OracleBench bench("reward-dropout");
    bench.options.reward.init = "random";
    bench.options.reward.steps = 1;
    bench.options.model.dropout = dropout;
    Session session = bench.session();
    RewardTrainer(session).run();
    if (session.first()) losses.push_back(bench.lines("loss").back()["loss"].get<double>());
  }
  if (losses.empty()) return;
  EXPECT_GT(std::abs(losses[0] - losses[1]), 1e-4);
}

}  // namespace
}  // namespace collimate::rlhf
