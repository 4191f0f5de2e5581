#include "data/token_model.hpp"

#include <algorithm>

#include "data/bpe_alphabet.hpp"
#include "data/bpe_json.hpp"
#include "data/json_step.hpp"
#include "data/file_keys.hpp"

namespace collimate {
namespace {

using Reader = std::unique_ptr<TokenModel> (*)(const json&, const TokenNames&, const std::string&);

struct ModelRow {
  std::string_view type;
  Reader read;
  KeysOf keys;
};
constexpr ModelRow rows[] = {{"BPE", read_bpe_model, KeysOf::bpe_model},
                             {"Unigram", read_unigram_model, KeysOf::unigram_model},
                             {"WordPiece", read_wordpiece_model, KeysOf::wordpiece_model},
                             {"WordLevel", read_wordlevel_model, KeysOf::wordlevel_model}};

/// Old files have no "type": the keys tell.
std::string type_of(const json& model) {
  if (model.contains("type")) return model["type"];
  return model.contains("merges") ? "BPE" : model.contains("unk_id") ? "Unigram" : model.contains("max_input_chars_per_word") ? "WordPiece" : "BPE";
}

}  // namespace

TokenNames::Token& TokenNames::at(std::int32_t id) {
  if (tokens_.size() <= static_cast<std::size_t>(id)) tokens_.resize(static_cast<std::size_t>(id) + 1);
  return tokens_[static_cast<std::size_t>(id)];
}

void TokenNames::set(const std::string& name, std::int32_t id, const std::string& file) {
  Token& token = at(id);
  require(!token.used, "{}: '{}' and '{}' have the same id {}", file, token.name, name, id);
  token = {name, true, false, false};
  ids_[name] = id;
}

void TokenNames::add(const std::string& name, std::int32_t id, bool special, const std::string& file) {
  Token& token = at(id);
  const auto known = find(name);
  require(known == id || (!known && !token.used), "{}: the added token '{}' has id {}, but {}", file, name, id,
          known ? fmt::format("the vocabulary gives it {}", *known) : fmt::format("that is '{}' in the vocabulary", token.name));
  token = {name, true, true, special};
  ids_[name] = id;
}

std::optional<std::int32_t> TokenNames::find(std::string_view name) const {
  const auto found = ids_.find(name);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

void read_model_names(const json& model, TokenNames& names, const std::string& name) {
  const json& vocabulary = model.at("vocab");
  require(vocabulary.is_structured() && !vocabulary.empty(), "{}: the vocabulary is not an object of tokens and their ids", name);
  if (vocabulary.is_object()) {
    for (const auto& [key, id] : vocabulary.items()) names.set(key, id_in(id, key, name), name);
    return;
  }
  std::int32_t id = 0;
  for (const json& piece : vocabulary) names.set(piece.at(0).get<std::string>(), id++, name);
}

std::unique_ptr<TokenModel> read_model(const json& model, const TokenNames& names, const std::string& name) {
  const std::string type = type_of(model);
  const auto row = std::ranges::find(rows, std::string_view(type), &ModelRow::type);
  require(row != std::end(rows), "{}: the model type {} is not supported (BPE, Unigram, WordPiece and WordLevel are)", name, type);
  check_keys(model, row->keys, name);
  return row->read(model, names, name);
}

std::string byte_token(unsigned char byte) { return fmt::format("<0x{:02X}>", byte); }

std::vector<std::int32_t> byte_token_ids(const TokenNames& names) {
  std::vector<std::int32_t> ids;
  for (int byte = 0; byte < 256; ++byte)
    if (const auto id = names.find(byte_token(static_cast<unsigned char>(byte)))) ids.push_back(*id);
  return ids.size() == 256 ? ids : std::vector<std::int32_t>();
}

std::size_t character_length(std::string_view text) { return std::max<std::size_t>(utf8_length(text), 1); }

}  // namespace collimate
