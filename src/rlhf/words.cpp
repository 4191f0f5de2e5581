#include "rlhf/words.hpp"

#include <utf8proc.h>

#include <cstdlib>

namespace collimate::rlhf {
namespace {

enum class Sort { word, symbol, joint, skipped, other };

struct Character {
  std::string_view bytes;
  Sort sort = Sort::other;
  char joint = 0;
  bool blank() const { return joint == ' '; }
};

Sort sort_of(utf8proc_int32_t code) {
  constexpr utf8proc_int32_t zero_width_space = 0x200B, first_skin_tone = 0x1F3FB, last_skin_tone = 0x1F3FF;
  if (code == 0xFE0E || code == 0xFE0F) return Sort::skipped;  // they choose how a symbol looks
  if (code >= first_skin_tone && code <= last_skin_tone) return Sort::skipped;
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return Sort::word;
    case UTF8PROC_CATEGORY_SO: return Sort::symbol;
    case UTF8PROC_CATEGORY_CF: return code == zero_width_space ? Sort::other : Sort::skipped;
    default: return Sort::other;
  }
}

char joint_of(utf8proc_int32_t code) {
  if (code == '\t' || code == '\n' || code == '\r' || utf8proc_category(code) == UTF8PROC_CATEGORY_ZS) return ' ';
  if (code == '-' || code == 0x2010 || code == 0x2011) return '-';  // hyphens, also one that does not break
  return code == '\'' || code == 0x2019 ? '\'' : 0;
}

Character character_at(std::string_view text, std::size_t at) {
  utf8proc_int32_t code = 0;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at);
  const utf8proc_ssize_t length = utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - at), &code);
  if (length <= 0) return {text.substr(at, 1)};
  const std::string_view all = text.substr(at, static_cast<std::size_t>(length));
  if (const char joint = joint_of(code)) return {all, Sort::joint, joint};
  return {all, sort_of(code)};
}

std::size_t end_of_token(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Character c = character_at(text, at);
    if (c.blank()) break;
    at += c.bytes.size();
  }
  return at;
}

}  // namespace

std::string folded(std::string_view text) {
  utf8proc_uint8_t* mapped = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD);
  const utf8proc_ssize_t length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                               static_cast<utf8proc_ssize_t>(text.size()), &mapped, options);
  if (length < 0) return std::string(text);  // broken UTF-8
  const std::string result(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length));
  std::free(mapped);
  return result;
}

std::vector<Word> words_of(std::string_view text, const FindSign& find_sign) {
  std::vector<Word> words;
  char joint = 0;                     // of the characters since the last word
  bool between = true, fresh = true;  // not inside a word; no character since the last word
  const auto begin_word = [&](Sort sort, bool sign = false) {
    const bool beside = fresh && !words.empty();  // only a symbol ends or begins a word without a character between
    words.push_back({"", words.empty() || sign ? '\0' : beside ? '+' : joint, sign});
    between = sort != Sort::word;
    fresh = true;
  };
  bool token = true;  // a token begins here
  for (std::size_t i = 0; i < text.size();) {
    if (const std::size_t size = token && find_sign ? find_sign(text.substr(i, end_of_token(text, i) - i)) : 0) {
      begin_word(Sort::other, true);
      words.back().text = text.substr(i, size);
      i += size;
      joint = 0, fresh = false, token = false;
      continue;
    }
    const Character c = character_at(text, i);
    i += c.bytes.size();
    token = c.blank();
    if (c.sort == Sort::skipped) continue;
    if (c.sort == Sort::word || c.sort == Sort::symbol) {
      if (between || c.sort == Sort::symbol) begin_word(c.sort);
      words.back().text += c.bytes;
      continue;
    }
    joint = fresh ? c.joint : (c.joint == ' ' && joint == ' ' ? ' ' : '\0');  // blanks may repeat, "--" and ", " join nothing
    between = true;
    fresh = false;
  }
  for (Word& word : words) word.text = folded(word.text);
  return words;
}

bool only_words(std::string_view text) {
  if (text.empty()) return false;
  std::size_t last = 0;
  for (std::size_t i = 0; i < text.size(); i += character_at(text, i).bytes.size()) last = i;
  for (const std::size_t end : {std::size_t{0}, last})
    if (const Sort sort = character_at(text, end).sort; sort == Sort::joint || sort == Sort::other) return false;
  const std::vector<Word> words = words_of(text);
  for (std::size_t i = 1; i < words.size(); ++i)
    if (!words[i].joint) return false;
  return !words.empty();
}

}  // namespace collimate::rlhf
