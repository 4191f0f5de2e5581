#pragma once
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "collimate/rlhf/batch.hpp"

namespace collimate::rlhf {

/// Computes this rank's grains. What it throws on one rank all throw; but where ranks ask others for something meanwhile, only a LateError,
/// and a rank that throws another ends the others (World::abort).
template <class Compute>
void compute_grains(const Division& division, const Compute& compute) {
  if (!division.grid) return compute();
  if (division.computes_alone()) return agree_on(division.grid->world(), compute);
  std::optional<LateError> late;
  try {
    compute();
  } catch (const LateError& error) {
    late = error;
  }
  agree_on(division.grid->world(), [&] {
    if (late) throw *late;
  });
}

/// Runs a forward of some grains: calls `each` for every one of them with a number for each row, where this rank has the model's end.
using Forward = std::function<void(std::span<const Grain>, const EachValued&)>;

/// A number for every learned token of the batch, in sequence order, on every rank.
std::vector<float> per_token(const Batch& batch, const Division& division, const Forward& forward);
/// A number for every sequence: the value of its last row.
std::vector<float> per_sequence(const Batch& batch, const Division& division, const Forward& forward);
/// Log-probability of every learned token of the batch, in sequence order, on every rank.
std::vector<float> token_logprobs(const Batch& batch, const Division& division, Engine& policy, float temperature);

}  // namespace collimate::rlhf
