#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "collimate/data/template.hpp"
#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// Counts the texts in whose data, apart from the template's own words, the text of a special token stands.
class SpecialTexts {
 public:
  /// `are_tokens`: what is looked at is marked so that such texts become their tokens, wherever they stand.
  SpecialTexts(const Tokenizer& tokenizer, bool are_tokens);
  void look_at(TemplateText& text);
  std::string told() const;  ///< a line with the count, or ""

 private:
  const std::string* in_data(const TemplateText& text) const;
  bool are_tokens_;
  std::vector<std::string> special_;
  std::array<bool, 256> first_{};  // whether a special token begins with this byte
  std::int64_t count_ = 0;
  std::string example_;
};

}  // namespace collimate
