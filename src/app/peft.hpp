#pragma once
#include <string>

#include "collimate/rlhf/saved_models.hpp"


namespace collimate {

// Adapters as PEFT stores them: adapter_config.json and adapter_model.safetensors, whose tensors are called
// base_model.model.<module>.lora_A.weight [rank, in] and .lora_B.weight [out, rank]; y += alpha / rank x A^T B^T, as here.

bool is_peft_folder(const std::string& folder);

/// Adapters that were read, for a checkpoint.
struct PeftAdapters {
  rlhf::ModelCard card;
  rlhf::TextRules text;                       ///< the base's
  std::unique_ptr<class AdapterModel> model;  ///< holds the numbers
  const ParameterStore& store() const;
  PeftAdapters();
  PeftAdapters(PeftAdapters&&) noexcept;
  ~PeftAdapters();
};

/// Reads a folder with adapters of the model in the checkpoint `base`; `output` is where they will be saved. What PEFT's LoRA can do and
/// adapters here cannot is refused by its key.
PeftAdapters read_peft(const std::string& folder, const std::string& base, const std::string& output);

/// Writes the adapters of a model of a checkpoint; the value head of a reward model, with the gain of its normalisation in it, goes beside
/// them as "score". Returns how many tensors there are.
std::size_t write_peft(const std::string& folder, const rlhf::SavedModels& saved, const std::string& model);

}  // namespace collimate
