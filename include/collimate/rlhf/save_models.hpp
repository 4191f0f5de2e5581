#pragma once
#include <string>
#include <vector>

#include "collimate/params/store.hpp"
#include "collimate/rlhf/model_card.hpp"
#include "collimate/rlhf/text_rules.hpp"

namespace collimate::rlhf {

/// What to save.
struct ModelToSave {
  std::string name;  ///< "policy" or "reward", "actor", "critic" ...
  ModelCard card;
  const ParameterStore* store = nullptr;
  bool moments = false;
};

/// What a checkpoint holds beside its models.
struct CheckpointNotes {
  std::string stage;
  bool complete = false;
  std::string progress = "{}";  ///< JSON object
  std::string deck;             ///< the part of the resolved deck that defines the numbers
  std::string build = "{}";     ///< JSON object: program, processor, instruction_set, libraries
  TextRules text;
};

/// Every rank writes its share of every tensor; rank 0 publishes. Collective; errors are agreed on.
void save_models(const std::string& folder, const std::vector<ModelToSave>& models, const CheckpointNotes& notes, Communicator& ranks);

}  // namespace collimate::rlhf
