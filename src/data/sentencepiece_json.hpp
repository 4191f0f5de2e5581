#pragma once
#include <optional>
#include <string>
#include <vector>

#include "collimate/data/model_files.hpp"
#include "data/sentencepiece_proto.hpp"

namespace collimate {

/// Where a blank is put before a text: before every part between special tokens (transformers' legacy), at the start alone, or nowhere.
enum class BlankBefore { every_part, start, never };

/// A SentencePiece model, BPE or Unigram, as a tokenizer.json that gives the same ids. With `added`, what transformers adds to the model.
/// Nothing where the model asks for what a tokenizer.json cannot say.
std::optional<std::string> sentencepiece_to_json(const std::string& bytes, BlankBefore blank, const std::vector<AddedTokenEntry>& added,
                                                 const std::string& name);
/// The same for a model that was read from another file. Where `escape_blanks` is false, blanks stand in its pieces as blanks.
std::string sentencepiece_to_json(SentencePieceModel model, BlankBefore blank, const std::vector<AddedTokenEntry>& added,
                                  const std::string& name);

}  // namespace collimate
