#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "collimate/data/tokenizer.hpp"
#include "data/bpe_merges.hpp"
#include "data/pretokenizer.hpp"
#include "data/tokenizer_added.hpp"

namespace collimate {

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

/// Byte-level BPE (Sennrich et al. 2016 on bytes, as in GPT-2); without merges its tokens are bytes.
class BpeTokenizer : public Tokenizer {
 public:
  /// `where` names the origin in messages.
  BpeTokenizer(BpeModel model, SpecialIds special, const std::string& where);
  std::string kind() const override { return model_.merges.empty() ? "bytes" : "bpe"; }
  std::int64_t vocabulary() const override { return static_cast<std::int64_t>(model_.pieces.size()); }
  std::string piece(std::int32_t id) const override;
  std::optional<std::int32_t> id_of(std::string_view piece) const override;
  bool is_special(std::int32_t id) const override;
  std::string file_name() const override { return "tokenizer.json"; }
  std::string file_bytes() const override;

 private:
  std::vector<std::int32_t> encode_text(std::string_view text, Place place, std::span<const TextRange> special_in) const override;
  bool takes_blanks_behind(std::int32_t id) const override { return added_.takes_blanks_behind(id); }
  std::string decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const override;
  void encode_word(std::string_view word, std::vector<std::int32_t>& symbols, MergeTable::Scratch& scratch) const;

  BpeModel model_;
  Pretokenizer pretokenizer_;
  MergeTable merges_;
  AddedTokens added_;
  std::array<std::int32_t, 256> id_of_byte_;
  std::unordered_map<std::string, std::int32_t> id_of_bytes_;  // of pieces that are not added
};

/// Parses a Hugging Face tokenizer.json; refuses in a sentence what would change the ids and is not supported.
std::unique_ptr<Tokenizer> parse_tokenizer_json(const std::string& text, const std::string& name);
/// Parses GPT-2's pair of files; `added_tokens` is the text of added_tokens.json or empty.
std::unique_ptr<Tokenizer> parse_vocab_and_merges(const std::string& vocab, const std::string& vocab_name, const std::string& merges,
                                                  const std::string& merges_name, const std::string& added_tokens);
std::string write_tokenizer_json(const BpeModel& model, std::optional<std::int32_t> unknown);

/// A model of special tokens and the 256 bytes, without merges. `bytes_first`: ids 0-255 are the bytes themselves; else the special
/// tokens come first, then the bytes in GPT-2's order.
BpeModel bytes_model(const SpecialNames& special, bool bytes_first);
SpecialIds special_ids_of(const BpeModel& model, const SpecialNames& special);

}  // namespace collimate
