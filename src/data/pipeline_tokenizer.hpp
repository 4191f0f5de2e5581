#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "collimate/data/surround.hpp"
#include "collimate/data/tokenizer.hpp"
#include "data/normalizer.hpp"
#include "data/pretokenizer.hpp"
#include "data/token_decoder.hpp"
#include "data/token_model.hpp"
#include "data/tokenizer_added.hpp"

namespace collimate {

/// What a tokenizer.json consists of. A text goes through `added`; the parts between its matches through the normalizer, `normalized` and
/// the pre-tokenizer to the model.
struct Pipeline {
  std::unique_ptr<TokenNames> names;
  NormalizerChain normalizer;
  PretokenizerChain pretokenizer;
  std::unique_ptr<TokenModel> model;
  std::unique_ptr<DecoderChain> decoder;
  AddedTokens added;       ///< found in the text as it is
  AddedTokens normalized;  ///< found in the normalized text, by their normalized names
  AddedTokens unsure;      ///< special ones of `normalized`: where only some of the text may hold special tokens, they cannot be told
  Surround surround;       ///< of the post_processor
};

/// The model, and the ids of the short words that one long text has had before: most of its words.
class WordEncoder {
 public:
  WordEncoder(const TokenModel& model, bool remember) : model_(model), remember_(remember) {}
  void encode(std::string_view word, std::vector<std::int32_t>& ids);

 private:
  struct Range {
    std::size_t first, count;  // in ids_
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  const TokenModel& model_;
  bool remember_;
  TokenModel::Scratch scratch_;
  std::unordered_map<std::string, Range, Hash, std::equal_to<>> known_;
  std::vector<std::int32_t> ids_;
};

/// The tokenizer of a tokenizer.json; `text` is kept, stored and exported.
class PipelineTokenizer : public Tokenizer {
 public:
  PipelineTokenizer(Pipeline pipeline, std::string text);
  std::string kind() const override { return pipeline_.model->kind(); }
  std::int64_t vocabulary() const override { return pipeline_.names->size(); }
  std::string piece(std::int32_t id) const override;
  std::optional<std::int32_t> id_of(std::string_view piece) const override { return pipeline_.names->find(piece); }
  bool is_special(std::int32_t id) const override { return id >= 0 && id < vocabulary() && (*pipeline_.names)[id].special; }
  const Surround& surround() const { return pipeline_.surround; }
  std::string file_name() const override { return "tokenizer.json"; }
  std::string file_bytes() const override { return text_; }

 private:
  std::vector<std::int32_t> encode_text(std::string_view text, Place place, std::span<const TextRange> special_in) const override;
  void encode_part(std::string_view part, Edge edge, bool special, std::vector<std::int32_t>& ids, WordEncoder& words) const;
  bool takes_blanks_behind(std::int32_t id) const override { return pipeline_.added.takes_blanks_behind(id); }
  std::string decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const override;
  Pretokenizer::Prefix prefix() const { return prefix_of(pipeline_); }
  static Pretokenizer::Prefix prefix_of(const Pipeline& pipeline);

  Pipeline pipeline_;
  std::string text_;
};

/// Parses a Hugging Face tokenizer.json; refuses in a sentence what would change the ids and is not supported.
std::unique_ptr<Tokenizer> parse_tokenizer_json(const std::string& text, const std::string& name);
/// The same of one that serialize() wrote, whose text is kept as it is.
std::unique_ptr<Tokenizer> parse_stored_tokenizer_json(const std::string& text, const std::string& name);

/// What the value of "post_processor" puts around a text; `names` gives the ids.
Surround read_post_processor(const nlohmann::json& whole, const TokenNames& names, const std::string& name);

}  // namespace collimate
