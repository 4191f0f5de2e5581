#pragma once
#include "collimate/rlhf/training.hpp"

namespace collimate::rlhf {

/// Reward-model training: the score of a sequence is the value of its last token; the loss ranks the chosen answers of a prompt over the
/// rejected ones. Leaves the model "reward" in checkpoints/reward, with the normalisation of its scores.
class RewardTrainer : public BatchTrainer {
 public:
  explicit RewardTrainer(Session& session);
  std::string describe() const override;
  std::int64_t first_grains() const override;

 private:
  struct Groups {
    std::vector<Sequence> sequences;  ///< chosen, rejected, chosen, rejected ...
    std::vector<std::int64_t> sizes;  ///< sequences of each prompt group
    std::vector<float> margins;       ///< one per pair, in order
  };
  static Groups load(const Dataset& data, std::span<const std::int64_t> groups);
  void learn(std::int64_t step) override;
  /// Scores of all sequences of a dataset's first groups, chosen and rejected alternating.
  std::vector<float> scores(const Dataset& data, std::int64_t groups);
  void evaluate(std::int64_t step) override;
  void finish(bool whole) override;  ///< normalises the scores

  const RewardOptions& options_;
};

}  // namespace collimate::rlhf
