#pragma once
#include "collimate/rlhf/evaluation.hpp"
#include "collimate/rlhf/training.hpp"

namespace collimate::rlhf {

/// What the scoring of a rollout adds: flat per-token arrays over response tokens, and one number per sample.
struct Experience {
  std::vector<float> old_logprob, reference_logprob, value, reward, advantage, returns;
  std::vector<double> raw_score, score, kl;  ///< before and after clip and missing-EOS rule; sum over a sample's tokens
};

/// Some samples of a rollout, as one batch.
struct Minibatch {
  std::vector<std::int64_t> samples;  ///< indices in the rollout
  Batch batch;
};

/// What the updates of an iteration did, added up over its optimizer steps.
struct Updates {
  PolicyTotals policy;
  ValueTotals value;
  std::int64_t actor_steps = 0, critic_steps = 0, tokens = 0;
  double first_ratio = 1;  ///< the largest of the first step, exactly 1 where training and scoring agree
  bool stopped = false;    ///< early, by ppo.target_kl
};

/// The rates of actor and critic in so many iterations.
LearningRate actor_rate(const PpoOptions& options, std::int64_t iterations);
LearningRate critic_rate(const PpoOptions& options, std::int64_t iterations);

/// Proximal policy optimisation with a critic (Schulman et al., 2017), a KL penalty in the reward and a frozen reference (Ziegler et al.,
/// 2019). Leaves the models "policy" and "critic" in checkpoints/ppo.
class PpoTrainer {
 public:
  explicit PpoTrainer(Session& session);
  std::string describe() const;  ///< prompts, iterations and memory lines
  std::int64_t first_grains() const;  ///< of the first minibatch, where all its responses are as long as they may be
  std::vector<std::string> warnings() const;  ///< of the deck's values, to be said before the run
  /// Plans the memory as the deck says now, without reading anything again; may be repeated before run. Throws where it does not fit (exit 3).
  void plan();
  const MemoryPlan& memory() const { return memory_->plan; }
  std::int64_t step_grains() const { return grains_; }  ///< most of an optimizer step, over all replicas
  Traffic traffic() const;
  void run();
  /// The models that learn; tests reach in here.
  Engine& actor() { return *actor_.engine; }
  Engine& critic() { return *critic_.engine; }

 private:
  void make_engines();
  void start();
  void iterate(std::int64_t iteration);
  // The steps of one iteration, in order.
  Rollout generate(std::int64_t iteration);
  Experience score(const Rollout& rollout);
  void estimate_advantages(const Rollout& rollout, Experience& experience);
  Updates update(std::int64_t iteration, const Rollout& rollout, const Experience& experience);
  void report(std::int64_t iteration, const Rollout& rollout, const Experience& experience, const Updates& updates);

  Minibatch take_minibatch(const Rollout& rollout, const std::vector<std::int64_t>& samples) const;
  PolicyTotals step_actor(const Minibatch& minibatch, const Rollout& rollout, const Experience& experience, const StepName& name);
  ValueTotals step_critic(const Minibatch& minibatch, const Rollout& rollout, const Experience& experience, const StepName& name);
  double require_first_ratio_one(const PolicyTotals& first, std::int64_t iteration) const;
  bool too_far(const PolicyTotals& totals) const;  ///< from the policy that sampled, by ppo.target_kl
  void normalise_scores();
  void write_samples(std::int64_t iteration, const Rollout& rollout, const Experience& experience) const;
  void evaluate(std::int64_t iteration, const std::string& when);
  void save(std::int64_t iteration, bool complete);
  void resume(const std::string& folder);
  void finish();

  Session& session_;
  const PpoOptions& options_;
  std::uint64_t seed_;
  Dataset prompts_;
  std::optional<Dataset> heldout_;
  Source actor_source_, reference_source_, critic_source_, reward_source_;
  std::int64_t done_ = 0;
  std::int64_t grains_ = 0, longest_ = 0;  // most of an optimizer step; tokens of a prompt and its response
  std::optional<StageMemory> memory_;
  Learner actor_, critic_;
  std::unique_ptr<Engine> reference_, reward_;
  std::unique_ptr<ScoreSource> scores_;
  bool equal_before_ = false;  ///< the samples of the last iteration had one score, and this was said
  std::string scorer_name_;
  KlController kl_;
  KlEstimator kl_estimator_;
  Aggregation aggregation_;
  ScoreOptions score_options_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace collimate::rlhf
