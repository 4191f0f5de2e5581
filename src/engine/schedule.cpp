#include "collimate/engine/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace collimate {

std::vector<Action> one_forward_one_backward(int stage, int stages, int groups) {
  std::vector<Action> actions;
  const int ahead = std::min(groups_in_flight(stage, stages) - 1, groups);
  for (int g = 0; g < ahead; ++g) actions.push_back({true, g});
  for (int g = 0; g < groups; ++g) {
    if (ahead + g < groups) actions.push_back({true, ahead + g});
    actions.push_back({false, g});
  }
  return actions;
}

std::string schedule_text(int stages, int groups) {
  std::string out;
  for (int stage = 0; stage < stages; ++stage) {
    out += fmt::format("  stage {} ", stage);
    for (const Action& action : one_forward_one_backward(stage, stages, groups)) out += fmt::format(" {}{}", action.forward ? 'F' : 'B', action.group);
    out += '\n';
  }
  return out;
}

}  // namespace collimate
