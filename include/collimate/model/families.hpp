#pragma once
#include <string>
#include <vector>

#include "collimate/model/config.hpp"

namespace collimate {

/// The families of models that are settings of ModelConfig, by the names that Hugging Face gives them as model_type.
std::vector<std::string> family_names();

/// What all models of a family have in common: norm, activation, positions, biases; the sizes are left to the caller.
ModelConfig of_family(const std::string& name);

}  // namespace collimate
