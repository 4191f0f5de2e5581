#pragma once
#include <memory>
#include <string>

#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// Parses a tok*.bin of karpathy/llama2.c: int32 longest piece; then per token float score, int32 length, bytes.
std::unique_ptr<Tokenizer> parse_llama2c(const std::string& bytes, const std::string& name);

}  // namespace collimate
