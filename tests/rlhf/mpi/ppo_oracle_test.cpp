#include <algorithm>
#include <numeric>

#include "collimate/rlhf/minibatches.hpp"
#include "collimate/rlhf/saved_models.hpp"
#include "collimate/rlhf/weights.hpp"
#include "rlhf/mpi/twin.hpp"

// PPO written down once more, sample by sample, in double precision, straight from the formulas; every switch is on.
namespace collimate::rlhf {
namespace {

/// A score without sense that every response can have.
struct Whim : Scorer {
  static double of(const std::string& response) { return std::accumulate(response.begin(), response.end(), 0) % 7 - 2.5; }
  std::vector<double> score(std::span<const ScoredSample> samples) override {
    std::vector<double> scores;
    for (const ScoredSample& sample : samples) scores.push_back(of(sample.response));
    return scores;
  }
};

struct PpoBench : Bench {
  explicit PpoBench(const std::string& name) : Bench("ppo-" + name) {
    options.machine.grain_tokens = 96;
    options.model.layers = 1;
    options.run.seed = 9;
    options.sft.steps = 60;
    PpoOptions& o = options.ppo;
    o.reference = o.critic = "random";
    o.scorer.kind = "length";  // stands for our own
    o.scorer.sign = -2;
    o.iterations = 3, o.freeze_actor = 1, o.normalise_samples = 16;
    o.temperature = 0.8, o.gamma = 0.95, o.lambda = 0.9;
    o.kl.beta = 0.3, o.kl.target = 2, o.kl.horizon = 50;
    o.policy.clip_low = 0.1, o.policy.clip_high = 0.15, o.policy.dual_clip = 1.2;
    o.policy.entropy_coefficient = 0.02, o.policy.kl_coefficient = 0.05;
    o.value.clip = 0.1, o.value.coefficient = 0.7;
    o.score.clip = 1, o.missing_eos = "subtract", o.score.missing_eos_value = 0.5;
    o.whiten_rewards = o.whiten = true;
    o.aggregation = "sequence-mean-token-mean";
    o.actor_optimizer = o.critic_optimizer = smooth();
    options.evaluate.temperature = 0.9, options.evaluate.samples = 2, options.evaluate.max_new = 6;
  }
};

using Rows = std::vector<std::vector<double>>;  // of each sample, one for each token

double mean_of(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size()); }

void whiten(Rows& rows, bool keep_mean) {
  std::vector<double> all;
  for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
  const double mean = mean_of(all);
  double variance = 0;
  for (const double x : all) variance += (x - mean) * (x - mean) / static_cast<double>(all.size());
  for (auto& row : rows)
    for (double& x : row) x = (x - mean) / std::sqrt(variance + 1e-8) + (keep_mean ? mean : 0);
}

struct Samples {
  std::vector<Sequence> sequences;
  std::vector<double> raw;
  std::vector<bool> ended;
  std::int64_t tokens = 0;  // of responses
};

struct PpoTwin {
  PpoTwin(Session& session, const Dataset& prompts, int steps)
      : session(session),
        o(session.options.ppo),
        prompts(prompts),
        config(session.options.model.config(prompts.vocabulary())),
        tokenizer(deserialize_tokenizer(prompts.tokenizer())),
        actor(session, config, Head::policy, o.actor_optimizer, steps * 2 / 3),
        reference(session, config, Head::policy, o.actor_optimizer),
        critic(session, config, Head::value, o.critic_optimizer, steps),
        reward(session, config, Head::value, o.critic_optimizer),
        beta(o.kl.beta) {
    actor.load("sft", "policy");
    if (o.scorer.kind != "model") return;
    reward.load("reward", "reward");
    critic.load("reward", "reward");
  }

  Samples sample(const std::vector<std::int64_t>& which, std::int64_t first_id, Purpose purpose, double temperature, std::int64_t max_new) {
    std::vector<Prompt> asked;
    for (std::size_t i = 0; i < which.size(); ++i)
      asked.push_back({prompts.prompt(which[i]).tokens, static_cast<std::uint64_t>(first_id) + i});
    GenerateOptions how;
    how.sampling.temperature = temperature;
    how.max_new = max_new;
    how.stop = {*tokenizer->eos()};
    how.key = RandomKey(9, purpose);
    Samples out;
    for (const Continuation& c : actor.engine().generate(asked, how)) {
      const Prompt& prompt = asked[out.sequences.size()];
      Sequence sequence{static_cast<std::int64_t>(prompt.sample), prompt.tokens, static_cast<std::int64_t>(prompt.tokens.size())};
      sequence.tokens.insert(sequence.tokens.end(), c.tokens.begin(), c.tokens.end());
      out.sequences.push_back(sequence);
      const double raw = o.scorer.kind == "model" ? reward.values(sequence).back() : -2 * Whim::of(tokenizer->decode(c.tokens));
      out.raw.push_back(gain * raw + bias);
      out.ended.push_back(c.tokens.back() == *tokenizer->eos());
      out.tokens += static_cast<std::int64_t>(c.tokens.size());
    }
    return out;
  }

  void normalise() {
    std::vector<double> raw = sample(take(prompts.size(), 9, 0, 16), 0, Purpose::normalise, o.temperature, o.max_new).raw;
    const double mean = mean_of(raw);
    double variance = 0;
    for (const double x : raw) variance += (x - mean) * (x - mean) / 16;
    gain = 1 / std::sqrt(variance), bias = -mean * gain;
    if (o.scorer.kind == "model") scale_value_head(critic.engine().store(), gain, bias);  // the critic starts as the reward
  }

  double divergence(double gap) const {
    return o.kl_estimator == "k2" ? gap * gap / 2 : o.kl_estimator == "k3" ? std::exp(-gap) - 1 + gap : gap;
  }

  nlohmann::json evaluate() {
    std::vector<std::int64_t> which;
    for (std::int64_t i = 0; i < prompts.size(); ++i) which.insert(which.end(), 2, i);
    const Samples s = sample(which, 0, Purpose::evaluation, 0.9, 6);
    double kl = 0;
    for (const Sequence& sequence : s.sequences) {
      const auto ours = actor.score(sequence, 0.9).logprob, theirs = reference.score(sequence, 0.9).logprob;
      for (std::size_t t = 0; t < ours.size(); ++t) kl += ours[t] - theirs[t];
    }
    const auto n = static_cast<double>(s.raw.size());
    return {{"eval_reward", mean_of(s.raw)},
            {"eval_kl", kl / n},
            {"eval_ended", static_cast<double>(std::count(s.ended.begin(), s.ended.end(), true)) / n},
            {"eval_length", static_cast<double>(s.tokens) / n}};
  }

  nlohmann::json iterate(int iteration) {
    const std::int64_t cursor = (iteration - 1) * o.batch;
    const Samples s = sample(take(prompts.size(), 9, cursor, o.batch), cursor, Purpose::sampling, o.temperature, o.max_new);
    const std::size_t n = s.sequences.size();
    Rows old, theirs, value, reward, advantage(n), returns(n);
    std::vector<double> score, kl;
    for (std::size_t i = 0; i < n; ++i) {
      const Sequence& sequence = s.sequences[i];
      old.push_back(actor.score(sequence, o.temperature).logprob);
      theirs.push_back(reference.score(sequence, o.temperature).logprob);
      const std::vector<double> values = critic.values(sequence);
      value.emplace_back(values.begin() + sequence.prompt - 1, values.end() - 1);
      score.push_back(std::clamp(s.raw[i], -1.0, 1.0));
      if (!s.ended[i]) score.back() = o.missing_eos == "replace" ? -1.5 : score.back() - 0.5;
      kl.push_back(0);
      reward.emplace_back();
      for (std::size_t t = 0; t < old[i].size(); ++t) {
        kl[i] += divergence(old[i][t] - theirs[i][t]);
        reward[i].push_back(-beta * divergence(old[i][t] - theirs[i][t]));
      }
      reward[i].back() += score[i];
    }
    whiten(reward, true);
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t length = reward[i].size();
      advantage[i].resize(length), returns[i].resize(length);
      for (std::size_t t = length; t-- > 0;) {
        const bool last = t + 1 == length;
        const double delta = reward[i][t] + (last ? 0 : o.gamma * value[i][t + 1]) - value[i][t];
        advantage[i][t] = delta + (last ? 0 : o.gamma * o.lambda * advantage[i][t + 1]);
        returns[i][t] = advantage[i][t] + value[i][t];
      }
    }
    whiten(advantage, false);
    nlohmann::json line = update(iteration, s, old, theirs, value, advantage, returns);
    line.update({{"score", mean_of(s.raw)}, {"shaped_score", mean_of(score)}, {"kl", mean_of(kl)}, {"beta", beta}});
    line["ended"] = static_cast<double>(std::count(s.ended.begin(), s.ended.end(), true)) / static_cast<double>(n);
    line["length"] = static_cast<double>(s.tokens) / static_cast<double>(n);
    beta *= 1 + std::clamp(mean_of(kl) / 2 - 1, -0.2, 0.2) * static_cast<double>(n) / 50;
    return line;
  }

  nlohmann::json update(int iteration, const Samples& s, const Rows& old, const Rows& theirs, const Rows& value, const Rows& advantage,
                        const Rows& returns) {
    double policy_loss = 0, value_loss = 0, clipped = 0, dual_clipped = 0, approx_kl = 0, loss_kl = 0, entropy = 0, tokens = 0;
    double value_clipped = 0, values = 0, actor_norm = 0, critic_norm = 0;
    int actor_steps = 0, critic_steps = 0;
    bool stop = false;
    for (std::uint32_t epoch = 0; epoch < 2 && !stop; ++epoch)
      for (const auto& mine : minibatches(o.batch, o.minibatch, 9, static_cast<std::uint64_t>(iteration), epoch)) {
        std::vector<Sequence> batch;
        for (const std::int64_t i : mine) batch.push_back(s.sequences[i]);
        const auto weight = [&](std::int64_t i) { return 1.0 / static_cast<double>(mine.size() * old[i].size()); };
        if (iteration > o.freeze_actor) {
          double far = 0, near = 0;
          std::vector<Twin::Scored> slopes;
          for (const std::int64_t i : mine) {
            const Twin::Scored now = actor.score(s.sequences[i], o.temperature);
            Twin::Scored& slope = slopes.emplace_back();
            for (std::size_t t = 0; t < old[i].size(); ++t) {
              const double a = advantage[i][t], gap = now.logprob[t] - old[i][t], ratio = std::exp(gap);
              double loss = -a * ratio, d = -a * ratio;
              bool clip = false, dual = false;
              if (const double limited = -a * std::clamp(ratio, 0.9, 1.15); limited > loss) loss = limited, d = 0, clip = true;
              if (a < 0 && loss > -1.2 * a) loss = -1.2 * a, d = 0, dual = true, clip = false;
              const double away = now.logprob[t] - theirs[i][t];
              policy_loss += weight(i) * (loss - 0.02 * now.entropy[t] + 0.05 * 0.5 * away * away);
              slope.logprob.push_back(weight(i) * (d + 0.05 * away));
              slope.entropy.push_back(-0.02 * weight(i));
              far += ratio - 1 - gap, near += 1;
              clipped += clip, dual_clipped += dual, loss_kl += 0.5 * away * away, entropy += now.entropy[t];
            }
          }
          approx_kl += far, tokens += near;
          actor_norm = actor.step(batch, o.temperature, [&](std::size_t i) { return slopes[i]; });
          ++actor_steps;
          stop = o.target_kl > 0 && far / near > o.target_kl;
        }
        std::vector<std::vector<double>> slopes;
        for (const std::int64_t i : mine) {
          const std::vector<double> now = critic.values(s.sequences[i]);
          std::vector<double>& slope = slopes.emplace_back(now.size());
          for (std::size_t t = 0; t < old[i].size(); ++t) {
            const auto row = static_cast<std::size_t>(s.sequences[i].prompt) - 1 + t;
            const double v = now[row], r = returns[i][t], held = std::clamp(v, value[i][t] - 0.1, value[i][t] + 0.1);
            const bool clip = (held - r) * (held - r) > (v - r) * (v - r);
            value_loss += weight(i) * 0.7 * 0.5 * std::max((v - r) * (v - r), (held - r) * (held - r));
            slope[row] = clip ? 0 : weight(i) * 0.7 * (v - r);
            value_clipped += clip, values += 1;
          }
        }
        critic_norm = critic.step(batch, [&](std::size_t i) { return slopes[i]; });
        ++critic_steps;
        if (stop) break;
      }
    tokens = std::max(tokens, 1.0);
    return {{"actor_steps", actor_steps},
            {"policy_loss", policy_loss / std::max(actor_steps, 1)},
            {"value_loss", value_loss / critic_steps},
            {"clip_fraction", clipped / tokens},
            {"dual_clip_fraction", dual_clipped / tokens},
            {"approx_kl", approx_kl / tokens},
            {"loss_kl", loss_kl / tokens},
            {"entropy", entropy / tokens},
            {"value_clip_fraction", value_clipped / values},
            {"actor_gradient_norm", iteration > o.freeze_actor ? actor_norm : 0},
            {"critic_gradient_norm", critic_norm},
            {"stopped_early", stop}};
  }

  Session& session;
  const PpoOptions& o;
  const Dataset& prompts;
  ModelConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  Twin actor, reference, critic, reward;
  double beta, gain = 1, bias = 0;
};

void expect_line(const nlohmann::json& line, const nlohmann::json& expected) {
  for (const auto& [key, value] : expected.items())
    if (value.is_boolean())
      EXPECT_EQ(line[key], value) << key;
    else
      expect_close(line, key, value.get<double>());
}

/// Trains, and compares every iteration with the twin's.
void compare(PpoBench& bench, int* stopped, int critic_steps = 18) {
  Whim whim;
  Session session = bench.session();
  if (session.first()) session.scorer = &whim;
  SupervisedTrainer(session).run();
  if (bench.options.ppo.scorer.kind == "model") RewardTrainer(session).run();
  const Dataset prompts(bench.options.ppo.prompts);
  PpoTwin twin(session, prompts, critic_steps);
  PpoTrainer(session).run();
  twin.normalise();
  std::vector<nlohmann::json> expected = {{{"score_gain", twin.gain}, {"score_bias", twin.bias}}, twin.evaluate()};
  for (int iteration = 1; iteration <= 3; ++iteration) expected.push_back(twin.iterate(iteration));
  expected.push_back(twin.evaluate());
  twin.actor.expect_saved("ppo", "policy");
  twin.critic.expect_saved("ppo", "critic");
  for (const auto& line : expected)
    if (line.contains("stopped_early")) *stopped += line["stopped_early"].get<bool>();
  if (!session.first()) return;
  std::vector<nlohmann::json> lines;
  for (const auto& line : bench.metrics())
    if (line["stage"] == "ppo") lines.push_back(line);
  ASSERT_EQ(lines.size(), expected.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    SCOPED_TRACE(lines[i].dump());
    expect_line(lines[i], expected[i]);
  }
}

TEST(Oracle, PpoWithEverySwitch) {
  PpoBench bench("switches");
  int stopped = 0;
  compare(bench, &stopped);
  EXPECT_EQ(stopped, 0);
}

// Grains of several blocks of 256 rows.
TEST(Oracle, PpoWithLargeGrains) {
  PpoBench bench("large");
  bench.options.ppo.batch = 60;
  bench.options.ppo.minibatch = 45;
  bench.options.ppo.kl_estimator = "k2";
  bench.options.machine.grain_tokens = 600;
  int stopped = 0;
  compare(bench, &stopped, 12);
}

TEST(Oracle, PpoThatStopsEarly) {
  PpoBench bench("early");
  bench.options.ppo.target_kl = 0.3;
  bench.options.ppo.kl_estimator = "k3";
  int stopped = 0;
  compare(bench, &stopped);
  EXPECT_GT(stopped, 0);
}

TEST(Oracle, PpoWithARewardModel) {
  PpoBench bench("model");
  bench.options.ppo.scorer.kind = "model";
  bench.options.ppo.critic = "reward";
  bench.options.ppo.missing_eos = "replace";
  bench.options.ppo.score.missing_eos_value = -1.5;
  bench.options.reward.init = "random";
  int stopped = 0;
  compare(bench, &stopped);
  Session session = bench.session();
  const ModelCard critic = SavedModels(session.checkpoint("ppo")).card("critic");  // no reward model any more
  EXPECT_EQ(critic.normalisation.gain, 1);
  EXPECT_EQ(critic.normalisation.bias, 0);
}

// A critic made of a policy knows nothing yet: its values are 0 and explain nothing.
TEST(Oracle, CriticOfAPolicyStartsAtZero) {
  PpoBench bench("zero");
  bench.options.ppo.critic = "sft";
  bench.options.ppo.iterations = 1;
  Whim whim;
  Session session = bench.session();
  if (session.first()) session.scorer = &whim;
  SupervisedTrainer(session).run();
  PpoTrainer(session).run();
  if (!session.first()) return;
  for (const auto& line : bench.metrics())
    if (line.contains("explained_variance")) {
      EXPECT_EQ(line["explained_variance"].get<double>(), 0.0);
    }
}

}  // namespace
}  // namespace collimate::rlhf
