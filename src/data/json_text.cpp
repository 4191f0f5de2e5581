#include "data/json_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/utf8.hpp"

namespace collimate {
namespace {

using nlohmann::json;
constexpr int deepest = 100;  // the JSON library reads nested values by recursion

/// What is wrong with a JSON text, and where.
std::string parse_reason(const json::parse_error& error, std::string_view text) {
  const auto says = [&](const char* words) { return std::string_view(error.what()).find(words) != std::string_view::npos; };
  if (error.byte > text.size() || says("missing closing quote"))
    return fmt::format("the JSON text is cut off at byte {}; complete it or take it out{}", error.byte,
                       text.size() < 3 ? ". Records over several lines are read from a file whose name ends in .json" : "");
  if (says("backslash")) return fmt::format("the backslash before byte {} of the JSON text begins no escape; write it twice", error.byte);
  if (says("control character")) return fmt::format("byte {} of the JSON text is a control character; escape it, as in \\n", error.byte);
  std::size_t from = error.byte > 10 ? error.byte - 10 : 0, end = std::min(from + 20, text.size());
  const auto inside = [&](std::size_t i) { return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80; };
  while (inside(from)) ++from;  // whole characters
  while (inside(end)) ++end;
  return fmt::format("not JSON at byte {}, near '{}'; correct it or take it out", error.byte, text.substr(from, end - from));
}

/// Of a JSON text: how many brackets are open at once, and how many keys there are, that is colons, outside of strings.
struct Outline {
  int depth = 0;
  std::int64_t keys = 0;
};

Outline outline_of(std::string_view text) {
  Outline out;
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
      continue;
    }
    if (c == '"')
      in_string = true;
    else if (c == ':')
      ++out.keys;
    else if (c == '{' || c == '[')
      out.depth = std::max(out.depth, ++depth);
    else if (c == '}' || c == ']')
      --depth;
  }
  return out;
}

std::int64_t keys_in(const json& value) {
  std::int64_t keys = value.is_object() ? std::ssize(value) : 0;
  if (value.is_structured())
    for (const json& part : value) keys += keys_in(part);
  return keys;
}

/// The first key that stands twice in one object.
std::string doubled_key(std::string_view text) {
  std::string doubled;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  [[maybe_unused]] const json whole = json::parse(text, [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(parsed).second && doubled.empty()) doubled = parsed;
    return true;
  });
  return doubled;
}

/// Takes the parts of a list or an object one after the other.
class Parts {
 public:
  explicit Parts(std::string_view text) : text_(text) { ++at_; }  // behind the bracket
  /// False at the closing bracket.
  bool more() {
    skip();
    return text_[at_] != ']' && text_[at_] != '}';
  }
  std::string key() {
    const std::string_view name = take();
    skip();  // the colon
    return json::parse(name).get<std::string>();
  }
  Field value() {
    const std::string_view part = take();
    if (part.front() == '"') return {json::parse(part).get<std::string>()};
    return {std::string(part), true};
  }

 private:
  void skip() {
    while (std::string_view(" \t\r\n,:").find(text_[at_]) != std::string_view::npos) ++at_;
  }
  /// The text of the next value, to its closing quote or bracket, or to what ends a number or a word.
  std::string_view take() {
    skip();
    const std::size_t begin = at_;
    int depth = 0;
    do {
      const char c = text_[at_];
      if (c == '"')
        skip_string();
      else if (c == '[' || c == '{')
        ++depth, ++at_;
      else if (c == ']' || c == '}')
        --depth, ++at_;
      else if (depth > 0)
        ++at_;
      else
        while (std::string_view(" \t\r\n,:]}").find(text_[at_]) == std::string_view::npos) ++at_;
    } while (depth > 0);
    return text_.substr(begin, at_ - begin);
  }
  void skip_string() {
    for (++at_; text_[at_] != '"'; ++at_) at_ += text_[at_] == '\\';
    ++at_;
  }
  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

void require_utf8(std::string_view text, std::int64_t line) {
  const std::size_t at = find_invalid_utf8(text);
  if (at == std::string_view::npos) return;
  const auto before = text.substr(0, at);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const std::size_t column = at - (lines ? before.rfind('\n') + 1 : 0) + 1;
  throw BadRecord{line + lines,
                  fmt::format("byte {} of the line (0x{:02x}) is not UTF-8; convert the file, if it is in a Western European encoding with "
                              "`iconv -f WINDOWS-1252 -t UTF-8`",
                              column, static_cast<unsigned char>(text[at]))};
}

Record object_record(std::string_view text, std::int64_t line) {
  require_utf8(text, line);
  const Outline outline = outline_of(text);
  if (outline.depth > deepest) throw BadRecord{line, fmt::format("the JSON text is nested deeper than {} levels", deepest)};
  json value;
  try {
    value = json::parse(text);
  } catch (const json::parse_error& error) {
    throw BadRecord{line, parse_reason(error, text)};
  } catch (const json::out_of_range&) {
    throw BadRecord{line, "the JSON text has a number beyond the range of JSON readers; correct it or take it out"};
  }
  if (keys_in(value) != outline.keys)
    throw BadRecord{line, fmt::format("the key '{}' stands twice in one object; take one of them out", doubled_key(text))};
  if (!value.is_object()) throw BadRecord{line, fmt::format("a JSON object is expected, not {}", value.type_name())};
  Record record;
  record.line = line;
  for (auto& [key, field] : json_members(trim(text)))
    if (field.is_null())
      record.nulls.insert(key);
    else
      record.fields.emplace(key, std::move(field));
  return record;
}

std::map<std::string, Field, std::less<>> json_members(std::string_view object) {
  std::map<std::string, Field, std::less<>> members;
  for (Parts parts(object); parts.more();) {
    std::string key = parts.key();
    members.emplace(std::move(key), parts.value());
  }
  return members;
}

std::vector<Field> json_elements(std::string_view list) {
  std::vector<Field> elements;
  for (Parts parts(list); parts.more();) elements.push_back(parts.value());
  return elements;
}

}  // namespace collimate
