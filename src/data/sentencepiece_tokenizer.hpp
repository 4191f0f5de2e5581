#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// A SentencePiece *.model file (Kudo and Richardson 2018), run by the sentencepiece library.
std::unique_ptr<Tokenizer> parse_sentencepiece(const std::string& bytes, const std::string& name);
/// A *.model in which those of these pieces that are user-defined, and so found in every text, are control pieces.
std::string with_control_pieces(const std::string& bytes, std::span<const std::int32_t> ids);

}  // namespace collimate
