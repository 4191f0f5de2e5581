#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "collimate/base/options.hpp"
#include "collimate/device/memory_plan.hpp"
#include "collimate/model/adapter.hpp"
#include "collimate/model/config.hpp"
#include "collimate/optim/optimizer.hpp"
#include "collimate/params/division.hpp"
#include "collimate/rlhf/advantages.hpp"
#include "collimate/rlhf/kl_controller.hpp"
#include "collimate/rlhf/losses.hpp"

namespace collimate::rlhf {

/// Of a batch or an evaluation: far more than any run, few enough to be held.
constexpr std::int64_t most_samples = 1 << 24;

/// The deck, section by section. Every struct declares its own options; what it holds before is the default.

struct RunOptions {
  std::string folder = "runs/collimate";
  std::vector<std::string> stages = {"sft", "reward", "ppo"};
  std::int64_t seed = 1;
  std::string restart = "none";  ///< none, auto, replace
  std::int64_t stop_after = 0;
  bool allow_new_bits = false, check = false;
  std::int64_t hash_every = 10;
  std::string hash = "all";  ///< all, or gradients
  bool sample_ids = false;
  std::int64_t keep_last = 1, keep_every = 0;
  bool keep_best = false;
  void declare(OptionTable& table);
};

struct MachineOptions {
  std::int64_t tensor = 1, data = 0, pipeline = 1;  ///< data 0: all ranks
  std::vector<std::string> order = {"tensor", "data", "pipeline"};
  std::int64_t zero = 0;
  std::string mode = "exact", value_type = "f32", recompute = "none";
  std::int64_t recompute_every = 1, group = 1;  ///< group 0: all grains of a step
  std::int64_t tensor_shards = 1, grain_tokens = 1024;
  std::int64_t device_memory = 0, host_memory = 0;  ///< bytes; 0: no limit
  std::string strategy;         ///< a word that chooses zero and the places below; see strategies.hpp
  std::string layout = "manual";  ///< manual, or auto: as little of them on the host as memory.device allows
  std::string values = "device", moments = "device", gradients = "device";  ///< where they rest: device, host, or "host:0.75"
  std::string rollouts = "held";  ///< parameters that replicas share: held or streamed
  std::string steps = "pending";  ///< of what rests on the host: pending or at_once
  HostShares host_shares() const;  ///< of values and of the optimizer's state; refuses what is no place, and what cannot be together
  MemoryCaps caps() const { return {static_cast<std::size_t>(device_memory), static_cast<std::size_t>(host_memory)}; }
  void declare(OptionTable& table);
};

/// The model that starts from random numbers; ignored where a stage starts from a checkpoint.
struct ModelOptions {
  std::string family = "llama", rope_scaling = "none";
  RopeScaling rope;  ///< of rope_scaling, but for its type
  std::int64_t layers = 4, width = 128, heads = 4, kv_heads = 0, head_size = 0, mlp = 0, context = 256;
  bool tied = true;
  double dropout = 0, rope_theta = 10000, init_std = 0;
  void declare(OptionTable& table);
  ModelConfig config(std::int64_t vocabulary) const;
};

/// Adapters that learn instead of a model's own parameters.
struct LoraOptions : LoraConfig {
  std::vector<std::string> stages = {"sft", "reward", "ppo"};
  std::string base;
  void declare(OptionTable& table);
  LoraConfig of(const std::string& stage) const;  ///< rank 0 where the stage learns all
};

struct OptimizerOptions {
  double rate = 1e-4, final_share = 0, clip = 1;
  std::int64_t warmup = 0;
  std::string schedule = "linear", epsilon_form = "torch";
  kernels::AdamW adamw{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .decay = 0};
  void declare(OptionTable& table, const std::string& prefix);
  kernels::AdamW how() const;
  LearningRate learning_rate(std::int64_t steps) const;
};

/// What supervised and reward training have in common.
struct TrainingOptions {
  std::string init, data, heldout;
  std::int64_t steps = 0, batch = 32, evaluate_every = 0, checkpoint_every = 200, log_every = 1;
  double epochs = 1;
  OptimizerOptions optimizer;
};

struct SupervisedOptions : TrainingOptions {
  bool shuffle = true;
  SupervisedOptions() { init = "random", optimizer.rate = 2e-5; }
  void declare(OptionTable& table);
};

struct RewardOptions : TrainingOptions {
  RewardOptions() { init = "sft", optimizer.rate = 9e-6; }
  void declare(OptionTable& table);
};

struct ScorerOptions {
  std::string kind = "model";  ///< model, lexicon, regex, length, exact, process
  std::string lexicon, pattern, command, exact_answer = "marked";
  std::int64_t word_column = 1, value_column = 0;
  double sign = 1, deadline = 60;
  std::int64_t length = 100;
  void declare(OptionTable& table);
};

struct PpoOptions {
  std::string actor = "sft", critic = "reward", reference = "sft", reward = "reward", prompts;
  std::int64_t iterations = 100, batch = 128, minibatch = 64, epochs = 1, max_new = 128, slots = 128, freeze_actor = 0;
  std::int64_t evaluate_every = 0, checkpoint_every = 10, normalise_samples = 0, samples_logged = 4;
  double temperature = 1, gamma = 1, lambda = 0.95, target_kl = 0;
  std::string aggregation = "token-mean", kl_estimator = "k1", missing_eos = "ignore";
  bool whiten_rewards = false, whiten = true;
  PolicyLossOptions policy;
  ValueLossOptions value;
  ScoreOptions score;
  KlControllerOptions kl;
  OptimizerOptions actor_optimizer{.rate = 1e-6}, critic_optimizer{.rate = 9e-6};
  ScorerOptions scorer;
  void declare(OptionTable& table);
};

struct EvaluateOptions {
  std::string prompts, model = "ppo", reference;
  double temperature = 1;
  std::int64_t samples = 1, max_new = 0, shown = 4;
  bool preferred = false;
  void declare(OptionTable& table);
};

struct PrepareStageOptions {
  std::int64_t vocabulary = 735, seed = 1;
  void declare(OptionTable& table);
};

struct Options {
  RunOptions run;
  MachineOptions machine;
  ModelOptions model;
  LoraOptions lora;
  PrepareStageOptions prepare;
  SupervisedOptions sft;
  RewardOptions reward;
  PpoOptions ppo;
  EvaluateOptions evaluate;
  void declare(OptionTable& table);
};

}  // namespace collimate::rlhf
