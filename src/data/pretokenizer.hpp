#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/expression.hpp"

namespace collimate {

/// Where a part of a text begins: where the whole text does, right behind an added token, behind other text (so that no blank of its own
/// comes before it), or inside of a part.
enum class Edge { start, behind_token, behind_text, inside };

/// Cuts a text into words. Together the words are the text, unless a step removes or adds something.
class Pretokenizer {
 public:
  using Sink = std::function<void(std::string_view word, Edge edge)>;
  /// Where a blank is put before a text that has none: nowhere, at its start, or also behind added tokens.
  enum class Prefix { none, first, always };

  virtual ~Pretokenizer() = default;
  /// `text` is not empty.
  virtual void cut(std::string_view text, Edge edge, const Sink& word) const = 0;
  virtual Prefix prefix() const { return Prefix::none; }
  /// Whether it takes text of any bytes. The others get valid UTF-8; what is not becomes words of its own.
  virtual bool takes_bytes() const { return false; }
  virtual bool spells_bytes() const { return false; }  ///< in GPT-2's alphabet
};

/// The steps of a tokenizer.json's "pre_tokenizer", one behind the other; none gives the text as it is.
class PretokenizerChain {
 public:
  PretokenizerChain() = default;
  explicit PretokenizerChain(std::vector<std::unique_ptr<Pretokenizer>> steps);
  void cut(std::string_view text, Edge edge, const Pretokenizer::Sink& word) const;
  Pretokenizer::Prefix prefix() const;
  bool spells_bytes() const { return spells_bytes_; }

 private:
  void cut_from(std::size_t step, std::string_view text, Edge edge, const Pretokenizer::Sink& word) const;

  std::vector<std::unique_ptr<Pretokenizer>> steps_;
  bool takes_bytes_ = true, spells_bytes_ = false;
};

/// `whole` is the value of "pre_tokenizer", `name` the file.
PretokenizerChain read_pretokenizer(const nlohmann::json& whole, const std::string& name);

/// Cuts a text of any bytes at the matches of an expression, which are words as are the gaps between them; bytes that are not UTF-8 are
/// words of their own, one per run.
void cut_words(const Expression& expression, std::string_view text, const std::function<void(std::string_view)>& word);

/// `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` (openai/gpt-2, src/encoder.py)
const char* gpt2_expression();

}  // namespace collimate
