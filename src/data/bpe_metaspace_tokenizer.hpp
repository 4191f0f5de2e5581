#pragma once
#include <memory>
#include <string>

#include "collimate/data/tokenizer.hpp"
#include "data/bpe_json.hpp"

namespace collimate {

/// Reads a SentencePiece BPE model that was converted to tokenizer.json (LLaMA-2 and its kin): spaces are written as U+2581, characters
/// that are not in the vocabulary as bytes <0x00> to <0xFF>. `text` is the file that `file` was parsed from.
std::unique_ptr<Tokenizer> read_metaspace_tokenizer(const json& file, const std::string& text, const std::string& name);

}  // namespace collimate
