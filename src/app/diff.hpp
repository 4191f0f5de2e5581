#pragma once
#include <string>

namespace collimate {

/// What a comparison found.
struct Verdict {
  bool equal = true;
  std::string text;
};

/// The first element in which two checkpoints differ, in the order of models and their layouts; of `tensor` of `model` first, where given.
Verdict diff_checkpoints(const std::string& a, const std::string& b, const std::string& model = "", const std::string& tensor = "");

/// The first step in which two runs differ: what differs there, in the order in which it was computed, and the element, from checkpoints.
Verdict diff_runs(const std::string& a, const std::string& b);

}  // namespace collimate
