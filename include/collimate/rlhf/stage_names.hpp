#pragma once
#include <algorithm>
#include <array>
#include <string_view>

namespace collimate::rlhf {

/// The stages that learn, in the order in which one builds on another. Each leaves checkpoints of its name.
inline constexpr std::array learning_stages = {"sft", "reward", "ppo"};

inline bool is_learning_stage(std::string_view name) {
  return std::find(learning_stages.begin(), learning_stages.end(), name) != learning_stages.end();
}

}  // namespace collimate::rlhf
