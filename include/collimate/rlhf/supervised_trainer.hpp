#pragma once
#include "collimate/rlhf/batch.hpp"
#include "collimate/rlhf/session.hpp"

namespace collimate::rlhf {

/// Supervised fine-tuning: cross entropy of the response tokens of packed samples. Leaves the model "policy" in checkpoints/sft.
class SupervisedTrainer {
 public:
  explicit SupervisedTrainer(Session& session);
  std::string describe() const;  ///< data, steps and memory lines
  void run();

 private:
  std::vector<Sequence> load(const Dataset& data, std::span<const std::int64_t> samples) const;
  void learn(std::int64_t step);
  void evaluate(std::int64_t step);
  void save(std::int64_t step, bool complete);
  void resume(const std::string& folder);

  Session& session_;
  const SupervisedOptions& options_;
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

/// Optimizer steps of a stage: `steps`, or as many as `epochs` passes over n samples need.
std::int64_t steps_of(std::int64_t steps, double epochs, std::int64_t n, std::int64_t batch);
/// The most tokens that `batch` samples of a dataset can have together.
std::int64_t most_tokens(const Dataset& data, std::int64_t batch);

}  // namespace collimate::rlhf
