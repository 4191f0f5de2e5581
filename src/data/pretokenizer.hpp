#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace collimate {

/// How a text is cut into words before BPE: first by each expression in turn (matches and the gaps between them become pieces
/// of their own), then, with `gpt2_words`, by GPT-2's expression. With `prefix_space` a piece that does not begin with a space
/// gets one between the two steps.
struct PretokenizerRule {
  std::vector<std::string> splits;
  bool prefix_space = false;
  bool gpt2_words = true;
};

/// Cuts text by a PretokenizerRule; expressions are PCRE2's, matched in Unicode. Bytes that are not UTF-8 end a word and are
/// pieces of their own, one per run.
class Pretokenizer {
 public:
  using Sink = std::function<void(std::string_view)>;

  /// `where` names the file in the message for an expression that does not compile.
  Pretokenizer(PretokenizerRule rule, const std::string& where);
  ~Pretokenizer();
  /// Hands over the pieces in order; together they are the text (plus prefix spaces).
  void split(std::string_view text, const Sink& piece) const;
  const PretokenizerRule& rule() const { return rule_; }

 private:
  class Expression;
  void split_from(std::size_t stage, std::string_view text, const Sink& piece) const;

  PretokenizerRule rule_;
  std::vector<std::unique_ptr<Expression>> expressions_;  // the splits, then GPT-2's
};

/// `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` (openai/gpt-2, src/encoder.py)
const char* gpt2_expression();

}  // namespace collimate
