#include "data/bpe_json.hpp"

#include <algorithm>
#include <optional>

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/file_keys.hpp"

namespace collimate {

json parse_json(const std::string& text, const std::string& name) {
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    fail("{} is not valid JSON at byte {}: is the file complete?", name, error.byte);
  } catch (const json::out_of_range&) {
    fail("{} has a number beyond the range of JSON readers: correct it", name);
  }
}

std::int32_t id_in(const json& value, const std::string& key, const std::string& name) {
  constexpr std::int64_t most_ids = 1 << 24;
  require(value.is_number_integer() && value >= 0 && value < most_ids, "{}: the id of '{}' is {}, not a whole number from 0 to {}", name,
          key, value.dump(), most_ids - 1);
  return value.get<std::int32_t>();
}

std::pair<std::string, std::string> cut_merge(const std::string& line, const std::string& place) {
  const std::size_t space = line.find(' ');
  require(space != std::string::npos && space > 0 && space + 1 < line.size() && line.find(' ', space + 1) == std::string::npos,
          "{}: '{}' is not two tokens separated by a space", place, line);
  return {line.substr(0, space), line.substr(space + 1)};
}

std::pair<std::string, std::string> merge_in(const json& merge, const std::string& place) {
  if (merge.is_array()) return {merge.at(0).get<std::string>(), merge.at(1).get<std::string>()};
  return cut_merge(merge.get<std::string>(), place);
}

std::array<std::int32_t, 3> merge_ids(const IdOfName& ids, const std::string& left, const std::string& right, const std::string& place) {
  const auto id = [&](const std::string& piece) {
    const auto found = ids.find(piece);
    require(found != ids.end(), "{}: the merge '{} {}' needs the token '{}', which the vocabulary lacks", place, left, right, piece);
    return found->second;
  };
  return {id(left), id(right), id(left + right)};
}

namespace {

/// The name of a piece that no text gives: neither a single character nor the name of a byte, and made by no merge; in a model without
/// merges one that looks like a token.
std::optional<std::string> unreachable_name(const json& model, std::int32_t id) {
  const json& vocabulary = model.at("vocab");
  std::string name;
  if (vocabulary.is_array()) {
    if (id < static_cast<std::int32_t>(vocabulary.size())) name = vocabulary[static_cast<std::size_t>(id)].at(0);
  } else if (const auto found = std::find(vocabulary.begin(), vocabulary.end(), json(id)); found != vocabulary.end()) {
    name = found.key();
  }
  if (utf8_length(name) == name.size()) return std::nullopt;
  if (is_set(model, "byte_fallback") && name.starts_with("<0x")) return std::nullopt;
  if (!model.contains("merges"))
    return (name.starts_with('<') && name.ends_with('>')) || (name.starts_with('[') && name.ends_with(']')) ? std::optional(name) : std::nullopt;
  for (const json& merge : model["merges"]) {
    const auto [left, right] = merge_in(merge, "the tokenizer");
    if (left + right == name) return std::nullopt;
  }
  return name;
}

}  // namespace

std::string with_special_tokens(const std::string& text, std::span<const std::int32_t> ids) {
  json file = json::parse(text);
  json& added = file["added_tokens"];
  for (const std::int32_t id : ids) {
    const auto found = std::find_if(added.begin(), added.end(), [&](const json& token) { return token.at("id") == id; });
    if (found != added.end())
      (*found)["special"] = true;
    else if (const auto name = unreachable_name(file["model"], id))
      added.push_back({{"id", id},
                       {"content", *name},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
  }
  return file.dump(1) + "\n";
}

}  // namespace collimate
