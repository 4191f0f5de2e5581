#include "data/tokenizer_added.hpp"

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"

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

void AddedTokens::add(const AddedToken& token) {
  require(!token.text.empty(), "token {} is an added token without text", token.id);
  auto& tokens = by_first_byte_[static_cast<unsigned char>(token.text[0])];
  tokens.push_back(token);
  if (token.blanks.behind) before_blanks_.push_back(token.id);
  std::stable_sort(tokens.begin(), tokens.end(), [](const AddedToken& a, const AddedToken& b) { return a.text.size() > b.text.size(); });
  any_plain_ = any_plain_ || !token.special;
  if (token.single_word && !word_) word_.emplace("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]", "an added token");
}

bool AddedTokens::stands_alone(std::string_view text, std::size_t begin, std::size_t end) const {
  const auto is_word = [&](std::string_view character) {
    bool found = false;
    if (utf8_length(character) == character.size()) word_->for_each_match(character, [&](std::size_t, std::size_t) { found = true; });
    return found;
  };
  std::size_t before = begin;
  while (before > 0 && begin - before < 4 && (before == begin || (static_cast<unsigned char>(text[before]) & 0xC0) == 0x80)) --before;
  const std::string_view behind = text.substr(end);
  return (before == begin || !is_word(text.substr(before, begin - before))) && (behind.empty() || !is_word(behind.substr(0, utf8_length(behind))));
}

std::optional<AddedTokens::Match> AddedTokens::find(std::string_view text, std::size_t from, std::span<const TextRange> special_in) const {
  for (std::size_t at = from; at < text.size(); ++at) {
    while (!special_in.empty() && special_in.front().end <= at) special_in = special_in.subspan(1);
    if (special_in.empty() && !any_plain_) return std::nullopt;
    const std::size_t room = special_in.empty() || at < special_in.front().begin ? 0 : special_in.front().end - at;
    for (const AddedToken& token : by_first_byte_[static_cast<unsigned char>(text[at])])
      if ((!token.special || token.text.size() <= room) && text.substr(at).starts_with(token.text)) {
        const std::size_t end = at + token.text.size();
        if (token.single_word && !stands_alone(text, at, end)) {  // nor is anything inside of it
          at = end - 1;
          break;
        }
        const std::size_t before = token.blanks.before ? blanks_at_end(text.substr(from, at - from)) : 0;
        const std::size_t behind = token.blanks.behind ? blanks_at_start(text.substr(end)) : 0;
        return Match{at - before, before + token.text.size() + behind, token.id};
      }
  }
  return std::nullopt;
}

}  // namespace collimate
