#pragma once
#include "collimate/rlhf/batch.hpp"
#include "collimate/rlhf/session.hpp"

namespace collimate::rlhf {

/// Reward-model training: the score of a sequence is the value of its last token; the loss ranks the chosen answers of a prompt over the
/// rejected ones. Leaves the model "reward" in checkpoints/reward, with the normalisation of its scores.
class RewardTrainer {
 public:
  explicit RewardTrainer(Session& session);
  std::string describe() const;  ///< data, steps and memory lines
  void run();

 private:
  struct Groups {
    std::vector<Sequence> sequences;  ///< chosen, rejected, chosen, rejected ...
    std::vector<std::int64_t> sizes;  ///< sequences of each prompt group
    std::vector<float> margins;       ///< one per pair, in order
  };
  Groups load(const Dataset& data, std::span<const std::int64_t> groups) const;
  void learn(std::int64_t step);
  /// Scores of all sequences of a dataset, chosen and rejected alternating.
  std::vector<float> scores(const Dataset& data, std::int64_t groups);
  void evaluate(std::int64_t step);
  void normalise();
  void save(std::int64_t step, bool complete);
  void resume(const std::string& folder);

  Session& session_;
  const RewardOptions& options_;
  Dataset data_;
  std::optional<Dataset> heldout_;
  Source source_;
  std::int64_t steps_, first_ = 0;
  MemoryPlan plan_;
  Workspace workspace_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Optimizer> optimizer_;
  LearningRate rate_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace collimate::rlhf
