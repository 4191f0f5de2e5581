#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// Finds tokens that are matched in the text itself, before any other step: the leftmost, and there the longest.
class AddedTokens {
 public:
  struct Match {
    std::size_t position, length;
    std::int32_t id;
  };
  void add(const std::string& text, std::int32_t id, bool special);
  /// The next match at or after `from`; special tokens count only where they lie wholly in one of these ranges.
  std::optional<Match> find(std::string_view text, std::size_t from, std::span<const TextRange> special_in) const;
  std::size_t longest() const { return longest_; }  ///< bytes

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
  struct Token {
    std::string text;
    std::int32_t id;
    bool special;
  };
  std::array<std::vector<Token>, 256> by_first_byte_;  // longest first
  std::size_t longest_ = 0;
  bool any_plain_ = false;
};

}  // namespace collimate
