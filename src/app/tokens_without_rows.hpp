#pragma once
#include <string>
#include <vector>

#include "collimate/data/template.hpp"
#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// The tokens of a tokenizer for which a model has no row, by their names. A token that was added only to pad is never fed, so that it needs
/// none; where one could be fed (an ordinary token, or one that begins or ends a text, or stands in the template), it is refused.
/// where: names the tokenizer in errors.
std::vector<std::string> tokens_without_rows(const Tokenizer& tokenizer, const Template& rules, std::int64_t rows, const std::string& where);

}  // namespace collimate
