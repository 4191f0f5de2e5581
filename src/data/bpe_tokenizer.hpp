#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "collimate/data/tokenizer.hpp"
#include "data/tokenizer_added.hpp"

namespace collimate {

/// How a text is cut into words before BPE: first by each expression in turn (matches and the gaps between them become pieces of their
/// own), then, with `gpt2_words`, by GPT-2's expression. With `prefix_space` a piece that does not begin with a space gets one between the
/// two steps.
struct PretokenizerRule {
  std::vector<std::string> splits;
  bool prefix_space = false;
  bool gpt2_words = true;
};

/// One entry of a BPE vocabulary.
struct BpePiece {
  std::string bytes;     ///< what it decodes to
  bool used = false;     ///< ids may have holes
  bool literal = false;  ///< its name in files is `bytes` itself, not their spelling in GPT-2's alphabet
  bool added = false;    ///< matched in the text before BPE
  bool special = false;  ///< an added token that decodes to nothing
  Blanks blanks = {};    ///< of an added token
  std::string name() const;
};

/// What defines a byte-level BPE tokenizer.
struct BpeModel {
  struct Merge {
    std::int32_t left, right, merged;
  };
  std::vector<BpePiece> pieces;  ///< by id
  std::vector<Merge> merges;     ///< in rank order
  PretokenizerRule rule;
  bool ignore_merges = false;  ///< a word that is in the vocabulary becomes its token at once
  std::string post_processor = "null";  ///< JSON text, kept for other programs: encode() adds no tokens
};

/// Byte-level BPE (Sennrich et al. 2016 on bytes, as in GPT-2); without merges its tokens are bytes. `where` names the origin in messages.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(const BpeModel& model, SpecialIds special, const std::string& where);
/// Parses GPT-2's pair of files; `added_tokens` is the text of added_tokens.json or empty.
std::unique_ptr<Tokenizer> parse_vocab_and_merges(const std::string& vocab, const std::string& vocab_name, const std::string& merges,
                                                  const std::string& merges_name, const std::string& added_tokens);
std::string write_tokenizer_json(const BpeModel& model, std::optional<std::int32_t> unknown);
/// The text that write_tokenizer_json() gives for a file with nothing but what a BpeModel has; else nothing. So files of one such tokenizer
/// have one fingerprint however they are laid out.
std::optional<std::string> usual_tokenizer_json(const nlohmann::json& file, const std::string& name);

/// A model of special tokens and the 256 bytes, without merges. `bytes_first`: ids 0-255 are the bytes themselves; else the special
/// tokens come first, then the bytes in GPT-2's order.
BpeModel bytes_model(const SpecialNames& special, bool bytes_first);
/// Their ids; what other programs read of the model begins a text with BOS, as our templates do, if there is one.
SpecialIds take_special_ids(BpeModel& model, const SpecialNames& special);

}  // namespace collimate
