#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "app/command_line.hpp"
#include "collimate/data/template.hpp"
#include "collimate/engine/engine.hpp"
#include "collimate/rlhf/saved_models.hpp"

namespace collimate {

/// An engine with a model's weights, and memory for so many sequences. Weights for which the device has no room under the caps rest on the host.
/// Those that are bf16 numbers rest as such, in half the memory and with the same results.
class Generator {
 public:
  Generator(const rlhf::SavedModels& saved, const std::string& model, const EngineUse& use, const MemoryCaps& caps);
  Engine& engine() { return made_->engine; }

 private:
  struct Made {
    Made(Device& device, const rlhf::ModelCard& card, const std::string& model, const EngineUse& use, double share_on_host);
    MemoryPlan plan;
    Workspace workspace{plan};
    Engine engine;
  };
  void make(const rlhf::ModelCard& card, const std::string& model, const EngineUse& use, const MemoryCaps& caps);
  std::unique_ptr<Device> device_ = make_device();
  std::unique_ptr<Made> made_;
};

/// Options of all commands that generate.
struct GenerateWords {
  std::string checkpoint, base, model, system;
  std::int64_t max_new = 0, top_k = 0, seed = 1;
  double temperature = 1, top_p = 1;
  CapWords memory;
};
void declare_model(OptionTable& table, GenerateWords& words);    ///< --checkpoint, --base and --model, --memory.device and --memory.host
void declare_drawing(OptionTable& table, GenerateWords& words);  ///< --temperature, --top-k, --top-p and --seed

/// The language model that a command generates with: the one named, or the checkpoint's own. Throws where it has a value head.
rlhf::ModelCard generating_model(const rlhf::SavedModels& saved, std::string& name);

/// Throws, with the remedy, where the checkpoint's model has no chat template.
void require_chat_template(const Template& rules, const std::string& checkpoint, const std::string& what);

}  // namespace collimate
