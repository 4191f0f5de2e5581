#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "collimate/params/store.hpp"
#include "collimate/rlhf/model_card.hpp"
#include "collimate/rlhf/text_rules.hpp"

// How models stand in a checkpoint: the names of their tensors, and the JSON beside them (the manifest's meta; see SavedModels).
namespace collimate::rlhf {

std::string tensor_of(const std::string& model, Kind kind, const std::string& parameter);

inline bool is_value_head(const Parameter& parameter) { return parameter.name.starts_with("value_head."); }
inline bool is_head(const Parameter& parameter) { return is_value_head(parameter) || parameter.name == "head.weight"; }

nlohmann::json card_to_json(const ModelCard& card);
ModelCard card_from_json(const nlohmann::json& card);

void add_text_rules(nlohmann::json& meta, const TextRules& text);
TextRules text_rules_of(const nlohmann::json& meta);

/// The tokenizer of a meta, serialised.
std::string tokenizer_of(const nlohmann::json& meta);

}  // namespace collimate::rlhf
