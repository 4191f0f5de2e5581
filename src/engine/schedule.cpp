#include "collimate/engine/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace collimate {

std::vector<Action> one_forward_one_backward(int stage, int stages, int grains) {
  std::vector<Action> actions;
  const int ahead = std::min(grains_in_flight(stage, stages) - 1, grains);
  for (int g = 0; g < ahead; ++g) actions.push_back({true, g});
  for (int g = 0; g < grains; ++g) {
    if (ahead + g < grains) actions.push_back({true, ahead + g});
    actions.push_back({false, g});
  }
  return actions;
}

std::string schedule_text(int stages, int grains) {
  std::string out;
  for (int stage = 0; stage < stages; ++stage) {
    out += fmt::format("  stage {} ", stage);
    for (const Action& action : one_forward_one_backward(stage, stages, grains)) out += fmt::format(" {}{}", action.forward ? 'F' : 'B', action.grain);
    out += '\n';
  }
  return out;
}

}  // namespace collimate
