#include "data/bpe_tokenizer.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/json_tokens.hpp"
#include "data/pipeline_tokenizer.hpp"

namespace collimate {

std::string BpePiece::name() const { return literal ? bytes : bytes_to_alphabet(bytes); }

std::unique_ptr<Tokenizer> make_bpe_tokenizer(const BpeModel& model, SpecialIds special, const std::string& where) {
  return with_special_ids(parse_stored_tokenizer_json(write_tokenizer_json(model, special.unknown), where), special);
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

SpecialIds take_special_ids(BpeModel& model, const SpecialNames& special) {
  const auto id = [&](const std::string& name, const char* part) -> std::optional<std::int32_t> {
    if (name.empty()) return std::nullopt;
    for (std::size_t i = 0; i < model.pieces.size(); ++i)
      if (model.pieces[i].special && model.pieces[i].bytes == name) return static_cast<std::int32_t>(i);
    fail("'{}' is to be the {} token but is not among the special tokens: add it to them", name, part);
  };
  const SpecialIds ids{id(special.bos, "begin-of-text"), id(special.eos, "end-of-text"), id(special.pad, "padding"), std::nullopt};
  if (ids.bos) model.post_processor = nlohmann::json(token_before(special.bos, *ids.bos)).dump();  // in the order in which it is read back
  return ids;
}

}  // namespace collimate
