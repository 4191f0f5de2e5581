#include "data/tokenizer_keys.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"

namespace collimate {
namespace {

constexpr KeyRow json_rows[] = {
    {"version", KeyUse::silent},
    {"truncation", KeyUse::skipped, "texts are cut by --max-prompt-tokens and --max-response-tokens alone"},
    {"padding", KeyUse::skipped, "samples are never padded"},
    {"added_tokens", KeyUse::used},
    {"normalizer", KeyUse::used},
    {"pre_tokenizer", KeyUse::used},
    {"post_processor", KeyUse::used},
    {"decoder", KeyUse::used},
    {"model", KeyUse::used},
};

constexpr KeyRow token_rows[] = {
    {"id", KeyUse::used},     {"content", KeyUse::used},    {"single_word", KeyUse::used}, {"lstrip", KeyUse::used},
    {"rstrip", KeyUse::used}, {"normalized", KeyUse::used}, {"special", KeyUse::used},
};

}  // namespace

constinit const std::span<const KeyRow> tokenizer_json_keys = json_rows, tokenizer_json_token_keys = token_rows;

bool is_set(const nlohmann::json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null() || *found == false || *found == "") return false;
  return found->is_number() ? *found != 0.0 : !found->is_structured() || !found->empty();
}

void check_keys(const nlohmann::json& object, std::span<const KeyRow> rows, OtherKeys others, const std::string& place, Notes& notes) {
  for (const auto& [key, value] : object.items()) {
    if (!is_set(object, key)) continue;
    const auto row = std::ranges::find(rows, std::string_view(key), &KeyRow::key);
    const bool known = row != rows.end();
    const KeyUse use = known ? row->use : others == OtherKeys::skipped ? KeyUse::skipped : KeyUse::refused;
    require(use != KeyUse::refused, "{}: \"{}\" is not supported: {}", place, key,
            known ? row->why : "no program that Collimate follows has such a key, and it could change the ids; take it out if it does not");
    if (use == KeyUse::skipped)
      notes.push_back(fmt::format("{}: \"{}\" is not used: {}", place, key, known ? row->why : "Collimate does not know it"));
  }
}

}  // namespace collimate
