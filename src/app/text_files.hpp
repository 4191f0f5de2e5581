#pragma once
#include <string>

#include "collimate/data/model_files.hpp"
#include "collimate/rlhf/text_rules.hpp"

namespace collimate {

// What a Hugging Face folder says of texts beside its tokenizer: which tokens end one, and how other programs sample.

/// Notes the ends of text of an imported folder, and what else of its files is exported again. Returns the lines to print on them.
std::string take_text_files(rlhf::TextRules& text, const Tokenizer* tokenizer, const ModelFiles& files, std::int64_t rows);

/// Writes generation_config.json and names all ends in the config.json of a folder that is being exported.
void write_text_files(const std::string& folder, const rlhf::TextRules& text, const Tokenizer* tokenizer);

}  // namespace collimate
