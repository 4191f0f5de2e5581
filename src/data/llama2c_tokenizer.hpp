#pragma once
#include <memory>
#include <optional>
#include <string>

#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// Parses a tok*.bin of karpathy/llama2.c: int32 longest piece; then per token float score, int32 length, bytes.
std::unique_ptr<Tokenizer> parse_llama2c(const std::string& bytes, const std::string& name);

/// The tok*.bin as a tokenizer.json that gives the same ids, but where run.c merges the leftmost of several pairs with equal scores: there
/// the parts of a piece that come first in the file are merged first. Nothing where a piece is not UTF-8.
std::optional<std::string> llama2c_to_json(const std::string& bytes, const std::string& name);

}  // namespace collimate
