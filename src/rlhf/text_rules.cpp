#include "collimate/rlhf/text_rules.hpp"

#include <algorithm>

namespace collimate::rlhf {

std::vector<std::int32_t> TextRules::stops(const Tokenizer* tokenizer) const {
  std::vector<std::int32_t> all = ends;
  if (tokenizer != nullptr && tokenizer->eos() && std::find(all.begin(), all.end(), *tokenizer->eos()) == all.end())
    all.insert(all.begin(), *tokenizer->eos());
  return all;
}

}  // namespace collimate::rlhf
