#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace collimate::rlhf {

/// A run of letters, marks and digits (Unicode's categories L, M and N), or one symbol such as an emoji (So), or a sign that the caller
/// knows; in the form that is equal for all cases of its letters (Unicode's full case folding, then NFC).
struct Word {
  std::string text;
  char joint = 0;  ///< what joins it to the word before: ' ', '-', '\'', or '+' for a symbol right beside it; 0 for anything else
  bool sign = false;
};

/// Of the text up to the next blank: the bytes of the sign that it is, or 0.
using FindSign = std::function<std::size_t(std::string_view token)>;

/// Broken UTF-8 parts words and does no harm. Format characters (soft hyphens, joiners, byte order marks) are passed over.
std::vector<Word> words_of(std::string_view text, const FindSign& find_sign = {});

/// The text with all letters in one case: words_of's form.
std::string folded(std::string_view text);

/// Whether the text is nothing but words and single joints: "can't stand", and not ":-)" or "well, done".
bool only_words(std::string_view text);

}  // namespace collimate::rlhf
