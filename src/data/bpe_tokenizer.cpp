#include "data/bpe_tokenizer.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"

namespace collimate {

std::string BpePiece::name() const { return literal ? bytes : bytes_to_alphabet(bytes); }

BpeTokenizer::BpeTokenizer(BpeModel model, SpecialIds special, const std::string& where)
    : Tokenizer(special), model_(std::move(model)), pretokenizer_(model_.rule, where), merges_(model_.merges.size()) {
  id_of_byte_.fill(-1);
  for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
    const BpePiece& piece = model_.pieces[id];
    const auto token = static_cast<std::int32_t>(id);
    if (!piece.used) continue;
    if (piece.added) {
      added_.add(piece.bytes, token, piece.special, piece.blanks);
      continue;
    }
    const auto [other, fresh] = id_of_bytes_.emplace(piece.bytes, token);
    if (!fresh) fail("{}: tokens {} and {} both stand for '{}'", where, other->second, id, piece.name());
    if (piece.bytes.size() == 1) id_of_byte_[static_cast<unsigned char>(piece.bytes[0])] = token;
  }
  for (std::size_t rank = 0; rank < model_.merges.size(); ++rank) {
    const auto& [left, right, merged] = model_.merges[rank];
    merges_.insert(left, right, {static_cast<std::int32_t>(rank), merged});
  }
}

std::string BpeTokenizer::piece(std::int32_t id) const {
  require(id >= 0 && id < vocabulary(), "token id {} is outside the vocabulary of {}", id, vocabulary());
  return model_.pieces[id].name();
}

std::optional<std::int32_t> BpeTokenizer::id_of(std::string_view piece) const {
  for (std::size_t id = 0; id < model_.pieces.size(); ++id)
    if (model_.pieces[id].literal && model_.pieces[id].bytes == piece) return static_cast<std::int32_t>(id);
  const auto bytes = alphabet_to_bytes(piece);
  if (!bytes) return std::nullopt;
  const auto found = id_of_bytes_.find(*bytes);
  return found == id_of_bytes_.end() ? std::nullopt : std::optional(found->second);
}

bool BpeTokenizer::is_special(std::int32_t id) const { return id >= 0 && id < vocabulary() && model_.pieces[id].special; }

std::string BpeTokenizer::file_bytes() const { return write_tokenizer_json(model_, unknown()); }

void BpeTokenizer::encode_word(std::string_view word, std::vector<std::int32_t>& symbols, MergeTable::Scratch& scratch) const {
  symbols.clear();
  if (model_.ignore_merges) {
    const auto found = id_of_bytes_.find(std::string(word));
    if (found != id_of_bytes_.end()) {
      symbols.push_back(found->second);
      return;
    }
  }
  for (const char c : word) {
    const auto byte = static_cast<unsigned char>(c);
    const std::int32_t id = id_of_byte_[byte];
    if (id < 0 && !unknown())
      fail("the vocabulary has no token for byte 0x{:02X} and no unknown token, so '{}' cannot be encoded", byte, bytes_to_alphabet(word));
    symbols.push_back(id >= 0 ? id : *unknown());
  }
  merges_.apply(symbols, scratch);
}

std::vector<std::int32_t> BpeTokenizer::encode_text(std::string_view text, Place, std::span<const TextRange> special_in) const {
  std::vector<std::int32_t> ids, symbols;
  MergeTable::Scratch scratch;
  added_.encode_around(text, special_in, ids, [&](std::string_view part) {
    pretokenizer_.split(part, [&](std::string_view word) {
      encode_word(word, symbols, scratch);
      ids.insert(ids.end(), symbols.begin(), symbols.end());
    });
  });
  return ids;
}

std::string BpeTokenizer::decode_ids(std::span<const std::int32_t> ids, Place, bool with_special) const {
  std::string text;
  for (const std::int32_t id : ids)
    if (with_special || !model_.pieces[id].special) text += model_.pieces[id].bytes;
  return text;
}

BpeModel bytes_model(const SpecialNames& special, bool bytes_first) {
  BpeModel model;
  const auto add_special = [&] {
    for (const std::string& name : special.all) {
      for (std::string_view rest = name; !rest.empty(); rest.remove_prefix(utf8_length(rest)))
        require(utf8_length(rest) > 0, "the special token {} is not valid UTF-8", model.pieces.size());
      require(!name.empty(), "a special token needs a name");
      const bool twice =
          std::any_of(model.pieces.begin(), model.pieces.end(), [&](const BpePiece& p) { return p.added && p.bytes == name; });
      require(!twice, "the special token '{}' is given twice", name);
      model.pieces.push_back({name, true, true, true, true});
    }
  };
  if (!bytes_first) add_special();
  const auto order = alphabet_order();
  for (int i = 0; i < 256; ++i) {
    const char byte = static_cast<char>(bytes_first ? i : order[i]);
    model.pieces.push_back({std::string(1, byte), true, false, false, false});
  }
  if (bytes_first) add_special();
  return model;
}

SpecialIds special_ids_of(const BpeModel& model, const SpecialNames& special) {
  const auto id = [&](const std::string& name, const char* part) -> std::optional<std::int32_t> {
    if (name.empty()) return std::nullopt;
    for (std::size_t i = 0; i < model.pieces.size(); ++i)
      if (model.pieces[i].special && model.pieces[i].bytes == name) return static_cast<std::int32_t>(i);
    fail("'{}' is to be the {} token but is not among the special tokens: add it to them", name, part);
  };
  return {id(special.bos, "begin-of-text"), id(special.eos, "end-of-text"), id(special.pad, "padding"), std::nullopt};
}

}  // namespace collimate
