#pragma once
#include "collimate/rlhf/rollout.hpp"

namespace collimate::rlhf {

/// What the scoring of a rollout adds: flat per-token arrays over response tokens, and one number per sample.
struct Experience {
  std::vector<float> old_logprob, reference_logprob, value, reward, advantage, returns;
  std::vector<double> raw_score, score, kl;  ///< before and after clip and missing-EOS rule; sum over a sample's tokens
};

/// Proximal policy optimisation with a critic (Schulman et al., 2017), a KL penalty in the reward and a frozen reference (Ziegler et al.,
/// 2019). Leaves the models "policy" and "critic" in checkpoints/ppo.
class PpoTrainer {
 public:
  explicit PpoTrainer(Session& session);
  std::string describe() const;  ///< prompts, iterations and memory lines
  void run();

 private:
  // The steps of one iteration, in order.
  Rollout generate(std::int64_t iteration);
  Experience score(const Rollout& rollout, const Batch& batch);
  void estimate_advantages(const Rollout& rollout, Experience& experience);
  void update(std::int64_t iteration, const Rollout& rollout, const Experience& experience);
  void report(std::int64_t iteration, const Rollout& rollout, const Experience& experience, const Batch& batch);

  PolicyTotals step_actor(const Batch& batch, const Rollout& rollout, const Experience& experience, std::span<const std::int64_t> samples,
                          std::int64_t iteration);
  ValueTotals step_critic(const Batch& batch, const Rollout& rollout, const Experience& experience, std::span<const std::int64_t> samples);
  /// Per-token numbers of the rollout, put on the rows that predict the tokens; 0 elsewhere.
  static std::vector<float> spread_over_rows(const Batch& batch, std::int64_t grain_index, const PackedGrain& grain, const Rollout& rollout,
                                             std::span<const std::int64_t> samples, std::span<const float> flat);
  void load_models();
  void normalise_scores();
  void evaluate(std::int64_t iteration, const std::string& when);
  void save(std::int64_t iteration, bool complete);
  void resume(const std::string& folder);

  Session& session_;
  const PpoOptions& options_;
  Dataset prompts_;
  std::optional<Dataset> heldout_;
  Source actor_source_, reference_source_, critic_source_, reward_source_;
  std::int64_t first_ = 0;
  MemoryPlan plan_;
  Workspace workspace_;
  std::unique_ptr<Engine> actor_, reference_, critic_, reward_;
  std::unique_ptr<Optimizer> actor_optimizer_, critic_optimizer_;
  LearningRate actor_rate_, critic_rate_;
  std::unique_ptr<ScoreSource> scores_;
  KlController kl_;
  KlEstimator kl_estimator_;
  Aggregation aggregation_;
  ScoreOptions score_options_;
  double actor_norm_ = 0, critic_norm_ = 0;  // of the last step
  JsonLine metrics_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace collimate::rlhf
