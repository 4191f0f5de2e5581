#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "collimate/data/tokenizer.hpp"

namespace collimate {

// What each key of the files of a tokenizer does. Nothing is ignored without a word: a key is used, or refused, or skipped with a line.

enum class KeyUse {
  used,     ///< it changes ids or what else Collimate does, and is read
  silent,   ///< it says nothing that could change ids: a version, an author
  skipped,  ///< not read; the line of the table says why that changes nothing here
  refused,  ///< Collimate cannot do it
};

struct KeyRow {
  std::string_view key;
  KeyUse use;
  std::string_view why = "";  ///< of skipped and refused keys: "... is not used: WHY", "... is not supported: WHY"
};

/// Keys that no row names.
enum class OtherKeys { skipped, refused };

/// Applies the rows to the keys of `object` that are set (not null, false, 0, "" nor empty). `place` begins the lines and sentences:
/// a file, or a part of one. A refused key ends with a sentence; a skipped one adds a line to `notes`.
void check_keys(const nlohmann::json& object, std::span<const KeyRow> rows, OtherKeys others, const std::string& place, Notes& notes);

/// Present, and not null, false, "", 0 nor empty.
bool is_set(const nlohmann::json& object, const std::string& key);

extern const std::span<const KeyRow> tokenizer_json_keys;        ///< of tokenizer.json itself
extern const std::span<const KeyRow> tokenizer_json_token_keys;  ///< of an entry of its "added_tokens"

}  // namespace collimate
