#include "data/split.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/unicode.hpp"

namespace collimate {
namespace {

constexpr std::pair<const char*, SplitBehavior> behavior_names[] = {{"Isolated", SplitBehavior::isolated},
                                                                    {"Removed", SplitBehavior::removed},
                                                                    {"MergedWithPrevious", SplitBehavior::merged_with_previous},
                                                                    {"MergedWithNext", SplitBehavior::merged_with_next},
                                                                    {"Contiguous", SplitBehavior::contiguous}};

/// Joins a segment to the one before it (in the order of the list) where `joins(segment, whether the one before was a match)`.
template <class Joins>
std::vector<Segment> joined(const std::vector<Segment>& segments, Joins joins) {
  std::vector<Segment> out;
  bool previous = false;
  for (const Segment& segment : segments) {
    if (!out.empty() && joins(segment.match, previous)) {
      out.back().begin = std::min(out.back().begin, segment.begin);
      out.back().end = std::max(out.back().end, segment.end);
    } else {
      out.push_back(segment);
    }
    previous = segment.match;
  }
  return out;
}

}  // namespace

SplitBehavior split_behavior_named(const std::string& name, const std::string& place) {
  for (const auto& [known, behavior] : behavior_names)
    if (name == known) return behavior;
  fail("{}: the behavior \"{}\" is not known (Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous are)", place, name);
}

std::vector<Segment> segments_of(const Expression& expression, std::string_view text, bool inverted) {
  std::vector<Segment> segments;
  std::size_t done = 0;
  expression.for_each_match(text, [&](std::size_t begin, std::size_t end) {
    if (begin > done) segments.push_back({done, begin, inverted});
    segments.push_back({begin, end, !inverted});
    done = end;
  });
  if (done < text.size()) segments.push_back({done, text.size(), inverted});
  return segments;
}

std::vector<Segment> segments_of(std::string_view text, bool (*matches)(char32_t)) {
  std::vector<Segment> segments;
  std::size_t gap = 0, at = 0;
  for (std::string_view rest = text; !rest.empty(); at = text.size() - rest.size()) {
    const bool match = matches(take_code(rest));
    const std::size_t end = text.size() - rest.size();
    if (!match) continue;
    if (at > gap) segments.push_back({gap, at, false});
    segments.push_back({at, end, true});
    gap = end;
  }
  if (gap < text.size()) segments.push_back({gap, text.size(), false});
  return segments;
}

std::vector<Segment> words_of(std::vector<Segment> segments, SplitBehavior behavior) {
  const auto into_gap = [](bool match, bool previous) { return match && !previous; };
  switch (behavior) {
    case SplitBehavior::isolated: break;
    case SplitBehavior::removed: std::erase_if(segments, [](const Segment& segment) { return segment.match; }); break;
    case SplitBehavior::contiguous: segments = joined(segments, [](bool match, bool previous) { return match == previous; }); break;
    case SplitBehavior::merged_with_previous: segments = joined(segments, into_gap); break;
    case SplitBehavior::merged_with_next:
      std::reverse(segments.begin(), segments.end());
      segments = joined(segments, into_gap);
      std::reverse(segments.begin(), segments.end());
      break;
  }
  std::erase_if(segments, [](const Segment& segment) { return segment.begin == segment.end; });
  return segments;
}

Replacement::Replacement(const nlohmann::json& pattern, std::string content, const std::string& place) : content_(std::move(content)) {
  const std::string expression = pattern_of(pattern, place);
  literal_ = pattern.value("String", std::string());
  if (literal_.empty()) expression_ = std::make_unique<Expression>(expression, place);
}

std::string Replacement::apply(std::string text) const {
  if (!expression_) return replace_all(std::move(text), literal_, content_);
  std::string out;
  for_each_run(text, [&](std::string_view run, bool valid) {
    std::size_t done = 0;
    if (valid)
      expression_->for_each_match(run, [&](std::size_t begin, std::size_t end) {
        out.append(run.substr(done, begin - done)).append(content_);
        done = end;
      });
    out += run.substr(done);
  });
  return out;
}

std::string pattern_of(const nlohmann::json& pattern, const std::string& place) {
  require(pattern.is_object() && pattern.size() == 1 && (pattern.contains("String") || pattern.contains("Regex")),
          "{}: the pattern {} is neither a String nor a Regex", place, pattern.dump());
  return pattern.contains("Regex") ? pattern["Regex"].get<std::string>() : Expression::escaped(pattern["String"].get<std::string>());
}

}  // namespace collimate
