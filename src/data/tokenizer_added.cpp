#include "data/tokenizer_added.hpp"

#include "collimate/base/error.hpp"

namespace collimate {

namespace {
constexpr std::string_view blanks[] = {"\t",     "\n",     "\v",     "\f",     "\r",     " ",      "\u0085", "\u00a0", "\u1680",
                                       "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
                                       "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

/// The bytes of the blanks that text_has(blank, bytes found so far) finds one after the other.
template <class TextHas>
std::size_t count_blanks(TextHas text_has) {
  std::size_t bytes = 0;
  for (const std::string_view* next = std::begin(blanks); next != std::end(blanks);) {
    next = std::find_if(std::begin(blanks), std::end(blanks), [&](std::string_view blank) { return text_has(blank, bytes); });
    if (next != std::end(blanks)) bytes += next->size();
  }
  return bytes;
}
}  // namespace

std::size_t blanks_at_start(std::string_view text) {
  return count_blanks([&](std::string_view blank, std::size_t found) { return text.substr(found).starts_with(blank); });
}

std::size_t blanks_at_end(std::string_view text) {
  return count_blanks([&](std::string_view blank, std::size_t found) { return text.substr(0, text.size() - found).ends_with(blank); });
}

void AddedTokens::add(const std::string& text, std::int32_t id, bool special, Blanks blanks) {
  require(!text.empty(), "token {} is an added token without text", id);
  auto& tokens = by_first_byte_[static_cast<unsigned char>(text[0])];
  tokens.push_back({text, id, special, blanks});
  if (blanks.behind) before_blanks_.push_back(id);
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
      if ((!token.special || token.text.size() <= room) && text.substr(at).starts_with(token.text)) {
        const std::size_t end = at + token.text.size();
        const std::size_t before = token.blanks.before ? blanks_at_end(text.substr(from, at - from)) : 0;
        const std::size_t behind = token.blanks.behind ? blanks_at_start(text.substr(end)) : 0;
        return Match{at - before, before + token.text.size() + behind, token.id};
      }
  }
  return std::nullopt;
}

}  // namespace collimate
