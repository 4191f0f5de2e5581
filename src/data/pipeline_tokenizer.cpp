#include "data/pipeline_tokenizer.hpp"

#include "collimate/base/error.hpp"

namespace collimate {

using Prefix = Pretokenizer::Prefix;

Prefix PipelineTokenizer::prefix_of(const Pipeline& pipeline) {
  return pipeline.normalizer.prefixes() ? Prefix::always : pipeline.pretokenizer.prefix();
}

PipelineTokenizer::PipelineTokenizer(Pipeline pipeline, std::string text)
    : Tokenizer({std::nullopt, std::nullopt, std::nullopt, pipeline.model->unknown()}, prefix_of(pipeline) == Prefix::none ? Rule::apart : Rule::continuing),
      pipeline_(std::move(pipeline)),
      text_(std::move(text)) {}

std::string PipelineTokenizer::piece(std::int32_t id) const {
  require(id >= 0 && id < vocabulary(), "token id {} is outside the vocabulary of {}", id, vocabulary());
  return (*pipeline_.names)[id].name;
}

void WordEncoder::encode(std::string_view word, std::vector<std::int32_t>& ids) {
  constexpr std::size_t longest = 32, most = 1 << 16;  // bytes of a word, and words
  if (!remember_ || word.size() > longest) return model_.encode(word, ids, scratch_);
  if (const auto found = known_.find(word); found != known_.end()) {
    const auto first = ids_.begin() + static_cast<std::ptrdiff_t>(found->second.first);
    ids.insert(ids.end(), first, first + static_cast<std::ptrdiff_t>(found->second.count));
    return;
  }
  const std::size_t before = ids.size();
  model_.encode(word, ids, scratch_);
  if (known_.size() == most) return;
  known_.emplace(word, Range{ids_.size(), ids.size() - before});
  ids_.insert(ids_.end(), ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
}

std::vector<std::int32_t> PipelineTokenizer::encode_text(std::string_view text, Place place, std::span<const TextRange> special_in) const {
  std::vector<std::int32_t> ids;
  constexpr std::size_t long_text = 1 << 13;  // bytes
  WordEncoder words(*pipeline_.model, text.size() >= long_text);
  const bool all_special = !special_in.empty() && special_in.front().begin == 0 && special_in.front().end >= text.size();
  if (!all_special)
    if (const auto match = pipeline_.unsure.find(text, 0, special_in))
      fail(
          "the special token '{}' in the template has \"normalized\": true in tokenizer.json, which is not supported beside a normalizer "
          "that changes the text around it; set it to false there, as newer files have it",
          piece(match->id));
  pipeline_.added.encode_around(text, special_in, ids, [&](std::string_view part) {
    if (part.empty()) return;
    const bool first = part.data() == text.data();
    const Edge edge = !first || place == Place::behind_special ? Edge::behind_token : place == Place::start ? Edge::start : Edge::behind_text;
    encode_part(part, edge, all_special, ids, words);
  });
  return ids;
}

void PipelineTokenizer::encode_part(std::string_view part, Edge edge, bool special, std::vector<std::int32_t>& ids,
                                    WordEncoder& words) const {
  std::string text;
  if (!pipeline_.normalizer.empty()) {
    text = part;
    pipeline_.normalizer.apply(text, edge);
    part = text;
  }
  const TextRange all{0, part.size()};
  pipeline_.normalized.encode_around(part, std::span(&all, special ? 1 : 0), ids, [&](std::string_view rest) {
    pipeline_.pretokenizer.cut(rest, rest.data() == part.data() ? edge : Edge::behind_token,
                               [&](std::string_view word, Edge) { words.encode(word, ids); });
  });
}

std::string PipelineTokenizer::decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const {
  std::vector<TokenDecoder::Token> tokens;
  for (const std::int32_t id : ids) {
    const TokenNames::Token& token = (*pipeline_.names)[id];
    if (token.used && (with_special || !token.special)) tokens.push_back({token.text.empty() ? token.name : token.text, token.added});
  }
  return pipeline_.decoder->decode(std::move(tokens), place == Place::start || (place == Place::behind_special && prefix() == Prefix::always));
}

Surround surround_of(const Tokenizer& tokenizer) {
  const auto* pipeline = dynamic_cast<const PipelineTokenizer*>(&tokenizer);
  return pipeline ? pipeline->surround() : Surround{};
}

}  // namespace collimate
