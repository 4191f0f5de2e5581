#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/data/model_files.hpp"

namespace collimate {

// Changes to the text of a tokenizer.json.

/// Puts tokens into "added_tokens", in place of what it says of the same ids. A token beyond the vocabulary gets a row; rows that no
/// token names in between are filled, because other programs count on. `name` goes into messages.
template <class Json>  // json or ordered_json
void add_tokens(Json& file, const std::vector<AddedTokenEntry>& tokens, const std::string& name);

/// A "post_processor" that puts one token before a text, and nothing behind it.
nlohmann::ordered_json token_before(const std::string& token, std::int32_t id);

std::string to_base64(std::string_view bytes);
std::string from_base64(std::string_view text);  ///< "" for what is none
/// A regular expression that matches this text alone.
std::string escaped_for_regex(std::string_view literal);

}  // namespace collimate
