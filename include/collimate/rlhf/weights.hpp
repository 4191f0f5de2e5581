#pragma once
#include <cstdint>
#include <string>

#include "collimate/params/store.hpp"
#include "collimate/rlhf/model_card.hpp"

namespace collimate::rlhf {

enum class RandomPart {
  all,
  head  ///< what a checkpoint may lack: the rest is read from it
};

/// Fills a store with random weights. init_std 0: each matrix as its layers say, 1/sqrt(inputs). Otherwise as the families' own programs
/// (transformers, GPT2PreTrainedModel): init_std everywhere, heads and tables too, but init_std / sqrt(2 layers) where a matrix writes
/// into the residual stream (output, down). Adapters start as ever.
void random_weights(ParameterStore& store, const ModelCard& card, std::uint64_t seed, RandomPart part = RandomPart::all);

/// A hash of a model's parameters but those of its head, as text: equal for policies and reward models with the same blocks. Collective.
std::string base_hash(const ParameterStore& store);

/// The value head becomes gain * head + bias, so that its values do: a critic that starts from a reward model starts at its normalised
/// score (gain and bias of the normalisation), one made of a policy at 0 (gain and bias 0).
void scale_value_head(ParameterStore& store, double gain, double bias);

}  // namespace collimate::rlhf
