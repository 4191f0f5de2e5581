#include "data/special_texts.hpp"

#include <fmt/format.h>

namespace collimate {

SpecialTexts::SpecialTexts(const Tokenizer& tokenizer, bool are_tokens) : are_tokens_(are_tokens) {
  for (std::int32_t id = 0; id < tokenizer.vocabulary(); ++id) {
    if (!tokenizer.is_special(id) || tokenizer.piece(id).empty()) continue;
    special_.push_back(tokenizer.piece(id));
    first_[static_cast<unsigned char>(special_.back().front())] = true;
  }
}

/// The first special token whose text lies in data.
const std::string* SpecialTexts::in_data(const TemplateText& text) const {
  auto own = text.own.begin();
  for (std::size_t at = 0; at < text.text.size(); ++at) {
    while (own != text.own.end() && own->end <= at) ++own;
    const std::size_t end = own == text.own.end() ? text.text.size() : own->begin;  // of the data that `at` lies in
    if (at >= end || !first_[static_cast<unsigned char>(text.text[at])]) continue;
    const std::string_view rest = std::string_view(text.text).substr(at, end - at);
    for (const std::string& token : special_)
      if (rest.starts_with(token)) return &token;
  }
  return nullptr;
}

void SpecialTexts::look_at(TemplateText& text) {
  if (const std::string* token = in_data(text)) {
    if (++count_ == 1) example_ = *token;
  }
  if (are_tokens_) text.own = {{0, text.text.size()}};
}

std::string SpecialTexts::told() const {
  if (count_ == 0) return "";
  return fmt::format("{} texts hold the text of a special token, such as {}: {}\n", count_, example_,
                     are_tokens_ ? "it is that token" : "it stays letters (--special-in-text makes it that token)");
}

}  // namespace collimate
