#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/data/tokenizer.hpp"
#include "data/expression.hpp"

namespace collimate {

/// Whether a token takes the blanks (Unicode's White_Space) before and behind it with it.
struct Blanks {
  bool before = false, behind = false;
};
std::size_t blanks_at_start(std::string_view text);  ///< bytes
std::size_t blanks_at_end(std::string_view text);

/// A token that is found in the text itself.
struct AddedToken {
  std::string text;
  std::int32_t id = 0;
  bool special = false;
  bool single_word = false;  ///< only where neither a letter, digit, mark nor underscore stands beside it
  Blanks blanks = {};
};

/// Finds tokens that are matched in the text itself, before any other step: the leftmost, and there the longest.
class AddedTokens {
 public:
  struct Match {
    std::size_t position, length;
    std::int32_t id;
  };
  void add(const AddedToken& token);
  void add(const std::string& text, std::int32_t id, bool special) { add({text, id, special}); }
  /// The next match at or after `from`; special tokens count only where they lie wholly in one of these ranges.
  /// A match has the blanks that its token takes with it, but none before `from`.
  std::optional<Match> find(std::string_view text, std::size_t from, std::span<const TextRange> special_in) const;
  bool takes_blanks_behind(std::int32_t id) const { return std::count(before_blanks_.begin(), before_blanks_.end(), id) > 0; }

  /// Appends the ids of the matches, and by `plain(part)` those of the text before, between and after them.
  template <class Plain>
  void encode_around(std::string_view text, std::span<const TextRange> special_in, std::vector<std::int32_t>& ids, Plain plain) const {
    std::size_t done = 0;
    while (const auto match = find(text, done, special_in)) {
      plain(text.substr(done, match->position - done));
      ids.push_back(match->id);
      done = match->position + match->length;
    }
    plain(text.substr(done));
  }

 private:
  std::array<std::vector<AddedToken>, 256> by_first_byte_;  // longest first
  std::vector<std::int32_t> before_blanks_;            // ids of those that take the blanks behind them
  bool any_plain_ = false;
  std::optional<Expression> word_;  // a character of a word, where a token must stand alone

  bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) const;
};

}  // namespace collimate
