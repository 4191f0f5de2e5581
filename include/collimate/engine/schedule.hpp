#pragma once
#include <string>
#include <vector>

namespace collimate {

/// What a pipeline stage does next: the forward or the backward of a group of grains (its index among the replica's groups of this step).
struct Action {
  bool forward = true;
  int group = 0;
  bool operator==(const Action&) const = default;
};

/// One forward, one backward (Narayanan et al., 2021): a stage starts stages - stage - 1 forwards ahead, then alternates, so that at most
/// groups_in_flight(stage, stages) groups are between their forward and their backward.
std::vector<Action> one_forward_one_backward(int stage, int stages, int groups);
inline int groups_in_flight(int stage, int stages) { return stages - stage; }

/// The schedule of all stages as text, a line a stage: "stage 0  F0 F1 B0 F2 B1 ...".
std::string schedule_text(int stages, int groups);

}  // namespace collimate
