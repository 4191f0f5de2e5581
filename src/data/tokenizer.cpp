#include "collimate/data/tokenizer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/bpe_json.hpp"
#include "data/bpe_tokenizer.hpp"
#include "data/llama2c_tokenizer.hpp"
#include "data/pipeline_tokenizer.hpp"
#include "data/sentencepiece_tokenizer.hpp"
#include "data/tokenizer_added.hpp"

namespace collimate {

void Tokenizer::check_ids(std::span<const std::int32_t> ids) const {
  for (std::size_t i = 0; i < ids.size(); ++i)
    require(ids[i] >= 0 && ids[i] < vocabulary(), "token {} of the text to decode has id {}, outside the vocabulary of {}", i, ids[i],
            vocabulary());
}

Tokenizer::Place Tokenizer::place_after(std::span<const std::int32_t> before) const {
  if (std::all_of(before.begin(), before.end(), [&](std::int32_t id) { return is_special(id); })) return Place::start;
  return is_special(before.back()) && before.back() != unknown() ? Place::behind_special : Place::behind;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, std::span<const TextRange> special_in) const {
  return encode_text(text, Place::start, special_in);
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool with_special) const {
  check_ids(ids);
  return decode_ids(ids, Place::start, with_special);
}

std::vector<std::int32_t> Tokenizer::encode_after(std::span<const std::int32_t> before, std::string_view text,
                                                  std::span<const TextRange> special_in) const {
  const Place place = rule_ == Rule::apart ? Place::start : place_after(before);
  const std::size_t taken = !before.empty() && takes_blanks_behind(before.back()) ? blanks_at_start(text) : 0;
  if (taken == 0) return encode_text(text, place, special_in);
  std::vector<TextRange> left;
  for (const TextRange& range : special_in)
    if (range.end > taken) left.push_back({std::max(range.begin, taken) - taken, range.end - taken});
  return encode_text(text.substr(taken), place, left);
}

std::string Tokenizer::decode_after(std::span<const std::int32_t> before, std::span<const std::int32_t> ids) const {
  std::vector<std::int32_t> known;
  std::copy_if(ids.begin(), ids.end(), std::back_inserter(known), [&](std::int32_t id) { return id < vocabulary(); });
  check_ids(known);
  return decode_ids(known, place_after(before), false);
}

void Tokenizer::set_special_ids(const SpecialIds& ids) {
  for (const auto& id : {ids.bos, ids.eos, ids.pad, ids.unknown})
    require(!id || (*id >= 0 && *id < vocabulary()), "a special token has id {}, outside the vocabulary of {}", id.value_or(0),
            vocabulary());
  special_ = ids;
}

std::unique_ptr<Tokenizer> with_special_ids(std::unique_ptr<Tokenizer> tokenizer, const SpecialIds& ids) {
  tokenizer->set_special_ids(ids);
  std::vector<std::int32_t> ends;
  for (const auto& id : {ids.bos, ids.eos})
    if (id && !tokenizer->is_special(*id)) ends.push_back(*id);
  if (ends.empty()) return tokenizer;
  const Notes notes = tokenizer->notes();
  if (tokenizer->file_name() == "tokenizer.json")
    tokenizer = parse_tokenizer_json(with_special_tokens(tokenizer->file_bytes(), ends), "the tokenizer");
  else if (tokenizer->kind() == "sentencepiece")
    tokenizer = parse_sentencepiece(with_control_pieces(tokenizer->file_bytes(), ends), "the tokenizer");
  tokenizer->notes_ = notes;
  tokenizer->set_special_ids(ids);
  return tokenizer;
}

std::string Tokenizer::serialize() const {
  nlohmann::ordered_json header = {{"collimate_tokenizer", static_cast<int>(rule_)}, {"kind", kind()}};
  const auto put = [&](const char* key, std::optional<std::int32_t> id) {
    if (id) header[key] = *id;
  };
  put("bos", special_.bos);
  put("eos", special_.eos);
  put("pad", special_.pad);
  put("unknown", special_.unknown);
  return header.dump() + "\n" + file_bytes();
}

std::uint64_t Tokenizer::fingerprint() const { return fnv1a(serialize()); }

std::unique_ptr<Tokenizer> deserialize_tokenizer(const std::string& bytes) {
  const std::string name = "the stored tokenizer";
  const std::size_t end = bytes.find('\n');
  const auto header = nlohmann::json::parse(bytes.substr(0, end), nullptr, false);
  require(end != std::string::npos && header.is_object() && header.contains("collimate_tokenizer") && header.contains("kind"),
          "{} does not begin with its header line: is the file damaged?", name);
  const nlohmann::json& rule = header["collimate_tokenizer"];
  require(rule == 1 || rule == 2, "{} has format {}, but this program reads the formats 1 and 2", name, rule.dump());
  const std::string body = bytes.substr(end + 1);
  const nlohmann::json& kind = header["kind"];
  std::unique_ptr<Tokenizer> tokenizer;
  constexpr std::string_view of_json[] = {"bytes", "bpe", "metaspace", "unigram", "wordpiece", "wordlevel"};
  if (std::find(std::begin(of_json), std::end(of_json), kind) != std::end(of_json)) tokenizer = parse_stored_tokenizer_json(body, name);
  else if (kind == "sentencepiece") tokenizer = parse_sentencepiece(body, name);
  else if (kind == "llama2c") tokenizer = parse_llama2c(body, name);
  else fail("{} is of the unknown kind {}", name, kind.dump());
  tokenizer->rule_ = rule == 1 ? Tokenizer::Rule::apart : Tokenizer::Rule::continuing;
  const auto id = [&](const char* key) -> std::optional<std::int32_t> {
    if (!header.contains(key)) return std::nullopt;
    require(header[key].is_number_integer(), "{}: the {} id {} is not a whole number", name, key, header[key].dump());
    return header[key].get<std::int32_t>();
  };
  tokenizer->set_special_ids({id("bos"), id("eos"), id("pad"), id("unknown")});
  return tokenizer;
}

std::unique_ptr<Tokenizer> byte_tokenizer(const SpecialNames& special) {
  BpeModel model = bytes_model(special, true);
  model.rule.gpt2_words = false;
  const SpecialIds ids = take_special_ids(model, special);
  return make_bpe_tokenizer(model, ids, "the byte tokenizer");
}

}  // namespace collimate
