#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/data/template.hpp"

namespace collimate {

/// What a folder's chat template, a Jinja text, was found to be.
struct KnownChatTemplate {
  std::string name;                           ///< a row of the table
  std::optional<std::string> default_system;  ///< where the text has another one than the row
};

/// The row that prints what the text prints; the text is compared in the form of canonical_jinja(). Nothing if none does.
std::optional<KnownChatTemplate> recognise_chat_template(std::string_view jinja);

/// What the table knows a text by: the hash of its canonical form without the words of its default system turn.
std::uint64_t chat_template_hash(std::string_view jinja);

/// The names of the rows, and the template of one, with this tokenizer's BOS and EOS where the chat template has them. A name that is no
/// row's is refused, and so is a row with an EOS for a tokenizer without one.
std::vector<std::string> chat_template_names();
Template chat_template_rules(const KnownChatTemplate& known, const Tokenizer& tokenizer);

/// The special token that ends an answer in this template: a sample ends there, whether or not it is the tokenizer's EOS. Nothing where
/// response_suffix ends in none.
std::optional<std::int32_t> end_of_answer(const Template& rules, const Tokenizer& tokenizer);

}  // namespace collimate
