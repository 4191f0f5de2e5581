#pragma once
#include <string>
#include <vector>

namespace collimate {

/// What a pipeline stage does next: the forward or the backward of a grain (its index among the replica's grains of this step).
struct Action {
  bool forward = true;
  int grain = 0;
  bool operator==(const Action&) const = default;
};

/// One forward, one backward (Narayanan et al., 2021): a stage starts stages - stage - 1 forwards ahead, then alternates, so that at most
/// grains_in_flight(stage, stages) grains are between their forward and their backward.
std::vector<Action> one_forward_one_backward(int stage, int stages, int grains);
inline int grains_in_flight(int stage, int stages) { return stages - stage; }

/// The schedule of all stages as text, a line a stage: "stage 0  F0 F1 B0 F2 B1 ...".
std::string schedule_text(int stages, int grains);

}  // namespace collimate
