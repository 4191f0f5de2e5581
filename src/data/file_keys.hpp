#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// Objects whose keys file_keys.cpp lists: the files beside a model, tokenizer.json itself, an entry of its "added_tokens", and its "model"
/// by type. The steps of its other parts have readers of their own, which refuse every key that they do not ask for (json_step.hpp).
enum KeysOf : unsigned {
  tokenizer_config = 1,
  special_tokens_map = 2,
  generation_config = 4,
  tokenizer_json = 8,
  added_token = 16,
  bpe_model = 32,
  unigram_model = 64,
  wordpiece_model = 128,
  wordlevel_model = 256,
};

/// Applies the table to the keys of `object` that say something (not null, false, 0, "" nor empty). A key is used, or refused in a
/// sentence, or passed over; lines that name those passed over are the answer. A key that the table lacks is refused in a tokenizer.json,
/// and elsewhere passed over. `place` begins lines and sentences: a file, or a part of one.
Notes check_keys(const nlohmann::json& object, KeysOf kind, const std::string& place);

/// Present, and not null, false, "", 0 nor empty.
bool is_set(const nlohmann::json& object, const std::string& key);

}  // namespace collimate
