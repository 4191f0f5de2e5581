#pragma once
#include <cstdint>
#include <vector>

#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// Tokens around a text.
struct Surround {
  std::vector<std::int32_t> before, behind;
  bool operator==(const Surround&) const = default;
};

/// What other programs put around a text by the tokenizer file's own rule, the "post_processor" of a tokenizer.json; encode() adds none of
/// it. Empty for the other kinds.
Surround surround_of(const Tokenizer& tokenizer);

}  // namespace collimate
