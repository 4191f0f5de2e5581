#pragma once
#include <cstdint>
#include <string>

#include "collimate/model/adapter.hpp"
#include "collimate/model/config.hpp"
#include "collimate/rlhf/statistics.hpp"

namespace collimate::rlhf {

/// What a checkpoint that holds a model's adapters alone says of them, and of the base: the frozen parameters beside which they learned.
struct AdapterNote {
  LoraConfig lora;          ///< rank 0: the checkpoint holds the whole model
  std::string base;         ///< checkpoint of the base, seen from this one's folder, or absolute; empty: random numbers
  std::string base_model;   ///< its name there
  std::int64_t seed = 0;    ///< of the random numbers
  std::string base_hash;    ///< see base_hash()
  std::string base_values = "f32";  ///< the type in which they rested: f32, or bf16, to which they had been rounded
};

/// What a checkpoint says of one of its models, beside the weights.
struct ModelCard {
  ModelConfig config;
  Head head = Head::policy;
  int shards = 1;                    ///< virtual tensor shards that the weights were trained with
  ScoreNormalisation normalisation;  ///< of a reward model; of a policy of PPO: of the scores that it learned from
  std::string scorer = {};           ///< of a policy of PPO: what gave these scores, see ScoreSource::name()
  AdapterNote adapters = {};
  double init_std = 0;  ///< model.init_std of the random weights that it began with
};

}  // namespace collimate::rlhf
