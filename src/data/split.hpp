#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/expression.hpp"

namespace collimate {

/// What becomes of the places where a text is cut (the matches): words of their own, nothing, part of the word before or behind, or joined
/// with their like.
enum class SplitBehavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };
SplitBehavior split_behavior_named(const std::string& name, const std::string& place);

/// A part [begin, end) of a text that is cut, and whether it is a match.
struct Segment {
  std::size_t begin, end;
  bool match;
};

/// Matches and the gaps between them. `inverted`: gaps are the matches.
std::vector<Segment> segments_of(const Expression& expression, std::string_view text, bool inverted);
/// Every code point that `matches(code)` is a match.
std::vector<Segment> segments_of(std::string_view text, bool (*matches)(char32_t));
/// The words, none of them empty, as {begin, end, _}.
std::vector<Segment> words_of(std::vector<Segment> segments, SplitBehavior behavior);

/// Replaces every match of a pattern.
class Replacement {
 public:
  Replacement(const nlohmann::json& pattern, std::string content, const std::string& place);
  std::string apply(std::string text) const;  ///< of any bytes; those that are not UTF-8 match no Regex

 private:
  std::string literal_, content_;
  std::unique_ptr<Expression> expression_;
};

/// The "pattern" of a step: {"String": ...} or {"Regex": ...}.
std::string pattern_of(const nlohmann::json& pattern, const std::string& place);

}  // namespace collimate
