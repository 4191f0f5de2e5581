#include "collimate/rlhf/strategies.hpp"

#include <algorithm>
#include <vector>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"

namespace collimate::rlhf {
namespace {

struct Strategy {
  std::string name;
  std::int64_t zero;          // params.zero
  std::string values, state;  // placement.values; placement.moments and placement.gradients
};
const std::vector<Strategy> strategies = {{"ddp", 0, "device", "device"},      {"zero1", 1, "device", "device"},
                                          {"zero2", 2, "device", "device"},    {"zero3", 3, "device", "device"},
                                          {"gemini", 3, "device", "device"},   {"zero1_cpu", 1, "device", "host"},
                                          {"zero2_cpu", 2, "device", "host"},  {"zero3_cpu", 3, "host", "host"},
                                          {"gemini_cpu", 3, "host", "host"}};

}  // namespace

std::string strategies_text() {
  std::vector<std::string> words;
  for (const Strategy& s : strategies)
    words.push_back(fmt::format("{}: params.zero = {}{}", s.name, s.zero,
                                s.values == "host"  ? ", everything on the host"
                                : s.state == "host" ? ", moments and gradients on the host"
                                                    : ""));
  return join(words, "; ");
}

void apply_strategy(MachineOptions& machine) {
  if (machine.strategy.empty()) return;
  std::string word = machine.strategy;
  if (const std::string_view prefix = "colossalai_"; word.starts_with(prefix)) word.erase(0, prefix.size());
  const auto found = std::ranges::find(strategies, word, &Strategy::name);
  std::vector<std::string> names;
  for (const Strategy& s : strategies) names.push_back(s.name);
  require(found != strategies.end(), "--strategy = {} is unknown: one of {}; {}", machine.strategy, join(names, ", "), did_you_mean(word, names));
  machine.zero = found->zero;
  machine.values = found->values;
  machine.moments = machine.gradients = found->state;
}

}  // namespace collimate::rlhf
