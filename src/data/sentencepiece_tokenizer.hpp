#pragma once
#include <memory>
#include <string>

#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// A SentencePiece *.model file (Kudo and Richardson 2018), run by the sentencepiece library.
std::unique_ptr<Tokenizer> parse_sentencepiece(const std::string& bytes, const std::string& name);

}  // namespace collimate
