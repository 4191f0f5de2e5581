#pragma once
#include "collimate/model/families.hpp"
#include "collimate/model/hugging_face.hpp"
#include "model/config_file.hpp"

namespace collimate {

/// A family of models: how its config.json is read and written, and what its tensors are called. One row of a table.
struct Family {
  std::string name;          ///< model_type of config.json
  std::string architecture;  ///< the first part of its classes' names: LlamaForCausalLM
  ModelConfig settings;      ///< what all its models have in common
  void (*read)(const ConfigFile& file, ModelConfig& config);
  void (*write)(const ModelConfig& config, nlohmann::json& json);
  void (*add_tensors)(const ModelConfig& config, std::vector<HuggingFaceTensor>& tensors);  ///< all but the head
  bool (*fits)(const ModelConfig& config);                                                 ///< its config.json can say all of it
  std::vector<std::string> harmless;  ///< keys of its config.json that change no number, beside those of every family
};

const Family& family_of(const ModelConfig& config);  ///< refuses numbers that are not of the family that they name

/// The row of a model_type. Where it is not supported, the refusal says which family is nearest, and what differs.
const Family& family_named(const std::string& type, const std::string& path);

}  // namespace collimate
