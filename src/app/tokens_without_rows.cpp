#include "app/tokens_without_rows.hpp"

#include "collimate/base/error.hpp"

namespace collimate {

std::vector<std::string> tokens_without_rows(const Tokenizer& tokenizer, const Template& rules, std::int64_t rows,
                                             const std::string& where) {
  std::vector<std::string> names;
  const std::string words = rules.to_json();
  for (std::int64_t i = rows; i < tokenizer.vocabulary(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    const std::string name = tokenizer.piece(id);
    if (name.empty()) continue;  // an unused id
    const bool named = tokenizer.bos() == id || tokenizer.eos() == id || tokenizer.unknown() == id;
    require(
        tokenizer.is_special(id) && !named && words.find(name) == std::string::npos,
        "the tokenizer of '{}' has {} tokens, and the model {} rows (vocab_size of its config.json), so its token {} ({}), which {}, "
        "cannot be "
        "fed: name the model's own tokenizer with --tokenizer, or give the model more rows before it is saved (resize_token_embeddings)",
        where, tokenizer.vocabulary(), rows, name, id,
        named                      ? "begins or ends texts"
        : tokenizer.is_special(id) ? "the template names"
                                   : "texts may hold");
    names.push_back(name);
  }
  return names;
}

}  // namespace collimate
