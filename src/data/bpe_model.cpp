#include <algorithm>
#include <array>

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/bpe_json.hpp"
#include "data/token_model.hpp"
#include "data/file_keys.hpp"

namespace collimate {
namespace {

/// Byte-pair encoding (Sennrich et al. 2016): the characters of a word, in a byte-level tokenizer those of GPT-2's alphabet, merged.
class BpeTokenModel : public TokenModel {
 public:
  BpeTokenModel(const json& model, const TokenNames& names, const std::string& name) : names_(names) {
    prefix_ = model.contains("continuing_subword_prefix") ? text_of(model["continuing_subword_prefix"]) : "";
    suffix_ = model.contains("end_of_word_suffix") ? text_of(model["end_of_word_suffix"]) : "";
    ignore_merges_ = is_set(model, "ignore_merges");
    fuse_unknown_ = is_set(model, "fuse_unk");
    if (is_set(model, "byte_fallback")) read_byte_tokens(name);
    if (is_set(model, "unk_token")) {
      unknown_ = names.find(model["unk_token"].get<std::string>());
      require(unknown_ || !bytes_.empty(), "{}: the unk_token {} is not in the vocabulary", name, model["unk_token"].dump());
    }
    short_.fill(-1);
    for (std::int32_t id = 0; id < names.size(); ++id) {
      const TokenNames::Token& token = names[id];
      if (token.special || token.name.size() > 2 || utf8_length(token.name) != token.name.size() || token.name.empty()) continue;
      short_[slot_of(token.name)] = id;
    }
    read_merges(model.at("merges"), name);
  }
  std::string kind() const override { return !bytes_.empty() ? "metaspace" : any_merges_ ? "bpe" : "bytes"; }
  std::optional<std::int32_t> unknown() const override { return unknown_; }
  bool has_byte_tokens() const override { return !bytes_.empty(); }

  void encode(std::string_view word, std::vector<std::int32_t>& ids, Scratch& scratch) const override {
    if (ignore_merges_) {
      if (const auto id = find(word)) return ids.push_back(*id);
    }
    std::vector<std::int32_t>& symbols = scratch.symbols;
    symbols.clear();
    int unknown = 0;  // characters of an unknown token that is not yet appended
    std::string changed;
    const std::string_view whole = word;
    while (!word.empty()) {
      std::string_view character = word.substr(0, character_length(word));
      const bool first = word.size() == whole.size();
      word.remove_prefix(character.size());
      if ((!first && !prefix_.empty()) || (word.empty() && !suffix_.empty())) {
        changed = first ? "" : prefix_;
        character = changed.append(character).append(word.empty() ? suffix_ : "");
      }
      const std::int32_t id = id_of(character);
      if (id >= 0) {
        if (unknown > 0) symbols.push_back(*unknown_);
        unknown = 0;
        symbols.push_back(id);
      } else if (!bytes_.empty()) {
        for (const char c : character) symbols.push_back(bytes_[static_cast<unsigned char>(c)]);
      } else {
        if (!unknown_) refuse(character, whole);
        if (unknown > 0 && !fuse_unknown_) symbols.push_back(*unknown_);
        ++unknown;
      }
    }
    if (unknown > 0) symbols.push_back(*unknown_);
    merges_.apply(symbols, scratch.merges);
    ids.insert(ids.end(), symbols.begin(), symbols.end());
  }

 private:
  static std::string text_of(const json& value) { return value.is_null() ? "" : value.get<std::string>(); }
  static std::size_t slot_of(std::string_view character) {  // of one or two bytes, by their code point
    const auto lead = static_cast<unsigned char>(character[0]);
    return character.size() == 1 ? lead : (lead & 0x1Fu) << 6 | (static_cast<unsigned char>(character[1]) & 0x3Fu);
  }
  std::optional<std::int32_t> find(std::string_view name) const {
    const auto id = names_.find(name);
    return id && !names_[*id].special ? id : std::nullopt;
  }
  std::int32_t id_of(std::string_view character) const {
    if (character.size() <= 2) {
      if (utf8_length(character) == character.size()) return short_[slot_of(character)];
      if (utf8_length(character) == 0) return -1;
    }
    return find(character).value_or(-1);
  }
  void read_byte_tokens(const std::string& name) {
    bytes_ = byte_token_ids(names_);
    for (int byte = 0; byte < 256 && bytes_.empty(); ++byte)
      require(names_.find(byte_token(static_cast<unsigned char>(byte))).has_value(), "{}: with byte_fallback the vocabulary must have {}", name,
              byte_token(static_cast<unsigned char>(byte)));
  }
  void read_merges(const json& merges, const std::string& name) {
    merges_ = MergeTable(merges.size());
    any_merges_ = !merges.empty();
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
      const std::string place = fmt::format("{}, merge {}", name, rank + 1);
      const auto [left, right] = merge_in(merges[rank], place);
      const auto id = [&](const std::string& piece) {
        const auto found = names_.find(piece);
        require(found.has_value(), "{}: the merge '{} {}' needs the token '{}', which the vocabulary lacks", place, left, right, piece);
        return *found;
      };
      const std::int32_t first = id(left), second = id(right);
      const bool inner = !prefix_.empty() && right.starts_with(prefix_);
      merges_.insert(first, second, {static_cast<std::int32_t>(rank), id(left + (inner ? right.substr(prefix_.size()) : right))});
    }
  }
  [[noreturn]] void refuse(std::string_view character, std::string_view word) const {
    const auto byte = alphabet_to_bytes(character);
    const bool spelled = byte && byte->size() == 1 && character.size() <= 2;
    fail("the vocabulary has no token for {} and no unknown token, so '{}' cannot be encoded",
         spelled ? fmt::format("byte 0x{:02X}", static_cast<unsigned char>((*byte)[0])) : fmt::format("'{}'", character), word);
  }

  const TokenNames& names_;
  MergeTable merges_;
  std::array<std::int32_t, 0x800> short_{};  // ids of characters below U+0800
  std::vector<std::int32_t> bytes_;
  std::optional<std::int32_t> unknown_;
  std::string prefix_, suffix_;
  bool ignore_merges_ = false, fuse_unknown_ = false, any_merges_ = false;
};

}  // namespace

std::unique_ptr<TokenModel> read_bpe_model(const json& model, const TokenNames& names, const std::string& name) {
  return std::make_unique<BpeTokenModel>(model, names, name);
}

}  // namespace collimate
