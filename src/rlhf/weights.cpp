#include "collimate/rlhf/weights.hpp"

#include <algorithm>
#include <cmath>

#include "rlhf/checkpoint_form.hpp"

namespace collimate::rlhf {

void random_weights(ParameterStore& store, const ModelCard& card, std::uint64_t seed, RandomPart part) {
  const auto wanted = [&](const Parameter& parameter) { return part == RandomPart::all || is_head(parameter); };
  store.initialise(seed, wanted, [&](const Parameter& parameter) {
    const std::string& name = parameter.name;
    if (card.init_std == 0 || parameter.initial.deviation == 0 || name.ends_with(".lora_a")) return 1.0;
    const bool residual = name.ends_with(".output.weight") || name.ends_with(".down.weight");
    const double deviation = residual ? card.init_std / std::sqrt(2.0 * static_cast<double>(card.config.layers)) : card.init_std;
    return deviation / parameter.initial.deviation;
  });
}

std::string base_hash(const ParameterStore& store) {
  std::vector<std::uint64_t> hashes = store.hashes(Kind::value);
  const auto& parameters = store.layout().parameters();
  hashes.resize(std::find_if(parameters.begin(), parameters.end(), is_head) - parameters.begin());  // a head comes last
  return fmt::format("{:016x}", combine(store.layout(), hashes));
}

void scale_value_head(ParameterStore& store, double gain, double bias) {
  for (const char* name : {"value_head.weight", "value_head.bias"}) {
    const Parameter& parameter = store.layout().parameter(name);
    const double shift = parameter.shape.rank() == 1 ? bias : 0;
    store.change(parameter, [&](std::int64_t, std::span<float> values) {
      for (float& value : values) value = static_cast<float>(gain * value + shift);
    });
  }
  store.round_values();
}

}  // namespace collimate::rlhf
