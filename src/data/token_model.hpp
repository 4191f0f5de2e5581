#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/bpe_merges.hpp"

namespace collimate {

/// The tokens of a tokenizer.json by id and by name.
class TokenNames {
 public:
  struct Token {
    std::string name;
    bool used = false;     ///< ids may have holes
    bool added = false;    ///< found in the text before the model sees it
    bool special = false;  ///< an added token that decodes to nothing
    std::string text = {};  ///< what an added token that is found behind the normalizer decodes to, if not its name
  };
  /// A token of the model; refuses an id that is taken.
  void set(const std::string& name, std::int32_t id, const std::string& file);
  /// An added token, which the model may have too.
  void add(const std::string& name, std::int32_t id, bool special, const std::string& file);
  void set_text(std::int32_t id, const std::string& text) { at(id).text = text; }
  std::optional<std::int32_t> find(std::string_view name) const;
  const Token& operator[](std::int32_t id) const { return tokens_[static_cast<std::size_t>(id)]; }
  std::int32_t size() const { return static_cast<std::int32_t>(tokens_.size()); }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  Token& at(std::int32_t id);
  std::vector<Token> tokens_;
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
};

/// Turns a word into tokens.
class TokenModel {
 public:
  /// Room that encode() needs; keep it between calls so that short words allocate nothing.
  struct Scratch {
    MergeTable::Scratch merges;
    std::vector<std::int32_t> symbols;
    struct Node {
      double score;
      std::int64_t begin;
      std::int32_t id;
    };
    std::vector<Node> nodes;
  };

  virtual ~TokenModel() = default;
  virtual std::string kind() const = 0;  ///< what Tokenizer::kind says
  virtual std::optional<std::int32_t> unknown() const = 0;
  virtual bool has_byte_tokens() const { return false; }
  /// Appends the ids of `word`, which is not empty and of any bytes.
  virtual void encode(std::string_view word, std::vector<std::int32_t>& ids, Scratch& scratch) const = 0;
};

/// Reads the tokens of "model" into `names`.
void read_model_names(const nlohmann::json& model, TokenNames& names, const std::string& name);
/// The model, whose tokens and added tokens are in `names`, which must outlive it. Special tokens are none of its words: data cannot forge one.
std::unique_ptr<TokenModel> read_model(const nlohmann::json& model, const TokenNames& names, const std::string& name);

/// For read_model: one model each.
std::unique_ptr<TokenModel> read_bpe_model(const nlohmann::json& model, const TokenNames& names, const std::string& name);
std::unique_ptr<TokenModel> read_unigram_model(const nlohmann::json& model, const TokenNames& names, const std::string& name);
std::unique_ptr<TokenModel> read_wordpiece_model(const nlohmann::json& model, const TokenNames& names, const std::string& name);
std::unique_ptr<TokenModel> read_wordlevel_model(const nlohmann::json& model, const TokenNames& names, const std::string& name);

/// "<0x0A>"
std::string byte_token(unsigned char byte);
/// The ids of the byte tokens, all 256 of them, or nothing where one is missing.
std::vector<std::int32_t> byte_token_ids(const TokenNames& names);
/// Bytes of the first character of `text`; a byte that is not UTF-8 is one.
std::size_t character_length(std::string_view text);

}  // namespace collimate
