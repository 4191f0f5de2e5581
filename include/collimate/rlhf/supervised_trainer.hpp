#pragma once
#include "collimate/rlhf/training.hpp"

namespace collimate::rlhf {

/// Supervised fine-tuning: cross entropy of the response tokens of packed samples. Leaves the model "policy" in checkpoints/sft.
class SupervisedTrainer : public BatchTrainer {
 public:
  explicit SupervisedTrainer(Session& session);
  std::string describe() const override;
  std::int64_t first_grains() const override;

 private:
  static Batch load(const Session& session, const Dataset& data, std::span<const std::int64_t> samples);
  void learn(std::int64_t step) override;
  void evaluate(std::int64_t step) override;

  const SupervisedOptions& options_;
};

}  // namespace collimate::rlhf
