#pragma once
#include "collimate/rlhf/evaluation.hpp"

namespace collimate::rlhf {

/// The stage `evaluate`: what one policy does on held-out prompts. The score is that of ppo.reward or ppo.scorer; with evaluate.reference
/// it also tells the KL to that policy. Defined as PPO's evaluations before and after.
class Evaluator {
 public:
  explicit Evaluator(Session& session);
  std::string describe() const;  ///< prompts and memory lines
  /// Plans the memory as the deck says now, without reading anything again; may be repeated before run. Throws where it does not fit (exit 3).
  void plan();
  const MemoryPlan& memory() const { return memory_->plan; }
  Traffic traffic() const;
  void run();

 private:
  /// A model that is only looked at.
  struct Model {
    Source source;
    std::unique_ptr<Engine> engine;
  };
  Source find_policy(const std::string& option, const std::string& name) const;
  void check_lengths(const Model& model, const std::string& name) const;
  void make_engine(Model& model, const std::string& name, Head head, std::int64_t slots = 0);

  Session& session_;
  Dataset prompts_;
  std::int64_t longest_;  ///< most tokens of a prompt and its response
  std::optional<StageMemory> memory_;
  Model policy_, reference_, reward_;  ///< the last two only where the deck has them
};

}  // namespace collimate::rlhf
