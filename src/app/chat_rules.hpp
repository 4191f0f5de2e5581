#pragma once
#include <string>

#include "app/command_line.hpp"
#include "collimate/data/model_files.hpp"
#include "collimate/rlhf/text_rules.hpp"

namespace collimate {

/// Which chat template an imported model gets.
class ChatOptions {
 public:
  void declare(OptionTable& table);  ///< this object must outlive the table's reading
  /// Sets the rules of `text`, what it keeps of the folder's chat template, and whether they are settled: from the row that is named or that
  /// the folder's text is, or from the options of `words`. Returns the lines to print on it.
  std::string choose(rlhf::TextRules& text, const TemplateOptions& words, const OptionTable& table, const ModelFiles& files,
                     const Tokenizer* tokenizer) const;

 private:
  Template named(const std::string& name, const TemplateOptions& words, const OptionTable& table, const Tokenizer* tokenizer) const;
  Template by_hand(Template rules, const OptionTable& table, const std::string* jinja, const Tokenizer* tokenizer) const;
  std::string name_ = "auto", default_system_;
};

/// An answer of a chat model also ends where its turn does. Adds that token to the ends of `text`; returns a line if it was none.
std::string add_end_of_answer(rlhf::TextRules& text, const Tokenizer* tokenizer);

/// Writes the chat template into the tokenizer_config.json of a folder that is being exported.
void write_chat_template(const std::string& folder, const rlhf::TextRules& text);

/// What whoever uses an exported folder must know of how texts were made: lines to print.
std::string tell_of_template(const rlhf::TextRules& text);

}  // namespace collimate
