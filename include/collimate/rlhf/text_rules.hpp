#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "collimate/data/template.hpp"
#include "collimate/data/tokenizer.hpp"

namespace collimate::rlhf {

/// How text becomes tokens and back: one for all models of a checkpoint.
struct TextRules {
  std::string tokenizer;  ///< Tokenizer::serialize(); empty: the model has none
  Template rules;
  bool settled = true;  ///< false: nobody chose the template, and the first dataset brings it (an import without a template's options)
  /// All ids that the imported folder named as ends of text; what is learned ends with the tokenizer's EOS.
  std::vector<std::int32_t> ends = {};
  std::optional<std::int32_t> bos = {};  ///< where there is no tokenizer to name it
  std::string generation = {};           ///< what generation_config.json says beside token ids, JSON or "": kept for the export
  std::string chat_template = {};  ///< the Jinja text that the imported folder had, or "": kept for the export
  bool has_tokenizer() const { return !tokenizer.empty(); }
  /// What ends a response that is sampled: `ends`, and the EOS of the tokenizer, if there is one.
  std::vector<std::int32_t> stops(const Tokenizer* tokenizer) const;
  std::unique_ptr<Tokenizer> make_tokenizer() const { return deserialize_tokenizer(tokenizer); }
};

}  // namespace collimate::rlhf
