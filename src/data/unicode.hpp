#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace collimate {

// Unicode by utf8proc. A text is bytes and may hold some that are not UTF-8; these are left as they are, and no rule reaches across them.

enum class NormalForm { nfc, nfd, nfkc, nfkd };
void normalize(std::string& text, NormalForm form);

bool is_white_space(char32_t code);   ///< property White_Space
bool is_numeric(char32_t code);       ///< categories Nd, Nl, No
bool is_punctuation(char32_t code);   ///< categories P*, and ASCII's punctuation, which has symbols too
bool is_mark(char32_t code);          ///< categories M*
bool is_nonspacing_mark(char32_t code);
bool is_other(char32_t code);         ///< categories Cc, Cf, Co
void append_lower(std::string& out, char32_t code);  ///< one by one, so a final sigma is as any other

/// The first code point of valid UTF-8, which is not empty; takes it off `text`.
char32_t take_code(std::string_view& text);
void append_code(std::string& out, char32_t code);

/// Hands over the runs of a text in order: run(part, whether it is valid UTF-8).
template <class Run>
void for_each_run(std::string_view text, Run&& run);

/// Hands over the code points of a text; bytes that are not UTF-8 go to `broken`, one run at a time.
template <class Code, class Broken>
void for_each_code(std::string_view text, Code&& code, Broken&& broken);

/// Hands over the grapheme clusters of valid UTF-8.
template <class Cluster>
void for_each_grapheme(std::string_view text, Cluster&& cluster);

namespace unicode {
std::size_t valid_length(std::string_view text);    ///< bytes of the valid UTF-8 that `text` begins with
std::size_t invalid_length(std::string_view text);  ///< bytes before the first valid character
bool breaks_between(char32_t before, char32_t after, std::int32_t& state);
}  // namespace unicode

template <class Run>
void for_each_run(std::string_view text, Run&& run) {
  while (!text.empty()) {
    if (const std::size_t valid = unicode::valid_length(text)) {
      run(text.substr(0, valid), true);
      text.remove_prefix(valid);
    }
    if (const std::size_t invalid = unicode::invalid_length(text)) {
      run(text.substr(0, invalid), false);
      text.remove_prefix(invalid);
    }
  }
}

template <class Code, class Broken>
void for_each_code(std::string_view text, Code&& code, Broken&& broken) {
  for_each_run(text, [&](std::string_view run, bool valid) {
    if (!valid) broken(run);
    else
      while (!run.empty()) code(take_code(run));
  });
}

template <class Cluster>
void for_each_grapheme(std::string_view text, Cluster&& cluster) {
  std::string_view rest = text;
  std::int32_t state = 0;
  std::size_t begin = 0, at = 0;
  for (char32_t before = 0; !rest.empty(); at = text.size() - rest.size()) {
    const char32_t code = take_code(rest);
    if (at > 0 && unicode::breaks_between(before, code, state)) {
      cluster(text.substr(begin, at - begin));
      begin = at;
    }
    before = code;
  }
  if (begin < text.size()) cluster(text.substr(begin));
}

}  // namespace collimate
