#pragma once
#include <memory>
#include <string>
#include <vector>

#include "collimate/data/template.hpp"
#include "collimate/engine/engine.hpp"
#include "collimate/rlhf/model_card.hpp"

namespace collimate {

/// An engine with a model's weights, and memory for so many sequences.
struct Generator {
  std::unique_ptr<Device> device = make_cpu_device();
  MemoryPlan plan{*device};
  Workspace workspace{plan};
  Engine engine;
  Generator(const rlhf::SavedModels& saved, const std::string& model, const EngineUse& use);
};

/// The language model that a command generates with: the one named, or the checkpoint's own. Throws where it has a value head.
rlhf::ModelCard generating_model(const rlhf::SavedModels& saved, std::string& name);

/// Throws, with the remedy, where the checkpoint's model has no chat template.
void require_chat_template(const Template& rules, const std::string& checkpoint, const std::string& what);

}  // namespace collimate
