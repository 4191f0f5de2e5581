#pragma once
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>


namespace collimate {

// What the readers of tokenizer.json files share. `name` and `place` go into messages.

using nlohmann::json;
using IdOfName = std::unordered_map<std::string, std::int32_t>;

json parse_json(const std::string& text, const std::string& name);
/// The id of the token `key`; refuses what is not a whole number from 0 to 2^24.
std::int32_t id_in(const json& value, const std::string& key, const std::string& name);
/// "a b" -> (a, b)
std::pair<std::string, std::string> cut_merge(const std::string& line, const std::string& place);
/// A merge written as "a b" or as ["a", "b"].
std::pair<std::string, std::string> merge_in(const json& merge, const std::string& place);
/// Ids of both tokens of a merge and of what it makes; refuses what the vocabulary lacks.
std::array<std::int32_t, 3> merge_ids(const IdOfName& ids, const std::string& left, const std::string& right, const std::string& place);
/// A tokenizer.json in which these tokens are special: those among its added tokens, and those that become such because no text gives them.
std::string with_special_tokens(const std::string& text, std::span<const std::int32_t> ids);

}  // namespace collimate
