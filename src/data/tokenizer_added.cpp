#include "data/tokenizer_added.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"

namespace collimate {

void AddedTokens::add(const std::string& text, std::int32_t id, bool special) {
  require(!text.empty(), "token {} is an added token without text", id);
  auto& tokens = by_first_byte_[static_cast<unsigned char>(text[0])];
  tokens.push_back({text, id, special});
  std::stable_sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) { return a.text.size() > b.text.size(); });
  longest_ = std::max(longest_, text.size());
  any_plain_ = any_plain_ || !special;
}

std::optional<AddedTokens::Match> AddedTokens::find(std::string_view text, std::size_t from, std::span<const TextRange> special_in) const {
  for (std::size_t at = from; at < text.size(); ++at) {
    while (!special_in.empty() && special_in.front().end <= at) special_in = special_in.subspan(1);
    if (special_in.empty() && !any_plain_) return std::nullopt;
    const std::size_t room = special_in.empty() || at < special_in.front().begin ? 0 : special_in.front().end - at;
    for (const Token& token : by_first_byte_[static_cast<unsigned char>(text[at])])
      if ((!token.special || token.text.size() <= room) && text.substr(at).starts_with(token.text))
        return Match{at, token.text.size(), token.id};
  }
  return std::nullopt;
}

}  // namespace collimate
