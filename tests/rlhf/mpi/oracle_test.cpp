#include "rlhf/mpi/twin.hpp"

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
  void write_pairs() const {  // groups of one to three pairs, with margins
    agree_on(world.ranks(), [&] {
      if (world.rank() != 0) return;
      std::ofstream out(file("pairs.jsonl"));
      for (int i = 0; i < 16; ++i)
        for (int k = 0; k <= i % 3; ++k)
          out << fmt::format("{{\"prompt\": \"say {}\", \"chosen\": \"{}\", \"rejected\": \"{}\", \"margin\": {}}}\n",
                             static_cast<char>('a' + i), std::string(1 + i % 4, 'x'), std::string(2 + k, 'z'), 0.25 * k);
      out.close();
      PrepareOptions prepare;
      prepare.inputs = {file("pairs.jsonl")};
      prepare.kind = DatasetKind::preference;
      prepare.output = file("pairs.h5");
      collimate::prepare(prepare);
    });
  }
  std::vector<nlohmann::json> lines(const std::string& key) const {
    std::vector<nlohmann::json> out;
    for (const auto& line : metrics())
      if (line.contains(key)) out.push_back(line);
    return out;
  }
};

TEST(Oracle, SupervisedTraining) {
  OracleBench bench("sft");
  bench.options.sft.heldout = bench.options.sft.data;
  bench.options.sft.steps = 0;
  bench.options.sft.epochs = 1.5;  // 4 steps
  bench.options.sft.batch = 12;
  Session session = bench.session();
  SupervisedTrainer(session).run();
  const Dataset data(bench.options.sft.data);
  const auto load = [&](std::int64_t i) {
    const SupervisedSample sample = data.supervised(i);
    return Sequence{i, sample.tokens, std::find(sample.mask.begin(), sample.mask.end(), 1) - sample.mask.begin()};
  };
  Twin twin(session, bench.options.model.config(data.vocabulary()), Head::policy, bench.options.sft.optimizer, 4);
  std::vector<double> losses, norms;
  std::vector<std::int64_t> counts;
  for (int step = 1; step <= 4; ++step) {
    std::vector<Sequence> batch;
    std::int64_t tokens = 0;
    for (const std::int64_t i : take(data.size(), 9, (step - 1) * 12, 12)) {
      batch.push_back(load(i));
      tokens += static_cast<std::int64_t>(batch.back().tokens.size()) - batch.back().prompt;
    }
    double loss = 0;
    for (const Sequence& sequence : batch)
      for (const double l : twin.score(sequence).logprob) loss -= l / static_cast<double>(tokens);
    norms.push_back(twin.step(batch, 1, [&](std::size_t i) {
      const std::size_t n = batch[i].tokens.size() - static_cast<std::size_t>(batch[i].prompt);
      return Twin::Scored{std::vector<double>(n, -1.0 / static_cast<double>(tokens)), std::vector<double>(n)};
    }));
    losses.push_back(loss), counts.push_back(tokens);
  }
  twin.expect_saved("sft", "policy");
  if (!session.first()) return;
  const auto lines = bench.lines("loss");
  ASSERT_EQ(lines.size(), 4);
  for (int step = 0; step < 4; ++step) {
    expect_close(lines[step], "loss", losses[step]);
    expect_close(lines[step], "gradient_norm", norms[step]);
    EXPECT_EQ(lines[step]["tokens"], counts[step]);
    EXPECT_EQ(lines[step]["samples"], 12 * (step + 1));
  }
  double nats = 0;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < data.size(); ++i)
    for (const double l : twin.score(load(i)).logprob) nats -= l, ++tokens;
  const auto line = bench.lines("eval_loss").back();
  expect_close(line, "eval_loss", nats / static_cast<double>(tokens));
  EXPECT_EQ(line["eval_tokens"], tokens);
}

TEST(Oracle, RewardTraining) {
  OracleBench bench("reward");
  bench.write_pairs();
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
  const auto load = [&](std::int64_t g) {
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
      for (const Row& row : load(g)) rows.push_back(row);
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
  for (std::int64_t g = 0; g < data.size(); ++g)
    for (const Row& row : load(g)) {
      all.push_back(twin.values(row.sequence).back());
      if (all.size() % 2 == 0) correct += all[all.size() - 2] > all.back();
    }
  const MeanStd spread = mean_std(all);
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
  EXPECT_EQ(line["eval_pairs"], all.size() / 2);
  expect_close(line, "eval_accuracy", correct / (static_cast<double>(all.size()) / 2));
}

}  // namespace
}  // namespace collimate::rlhf
