#include "data/bpe_metaspace_tokenizer.hpp"

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/bpe_merges.hpp"
#include "data/tokenizer_added.hpp"

namespace collimate {
namespace {

constexpr std::string_view metaspace = "\u2581";

/// Where a space is put before a text: nowhere, before the first part that does not begin with one, before every such part, or before
/// every part; added tokens separate parts.
enum class Prefix { none, first, missing, every };

struct MetaspaceModel {
  std::vector<std::string> pieces;         // by id
  std::vector<bool> special;               // by id
  std::vector<int> byte;                   // by id: the byte that it stands for, or -1
  std::array<std::int32_t, 256> id_of_byte{};
  IdOfName ids;
  MergeTable merges;
  AddedTokens added;
  AddedTokens prefixed;  // special ones that other programs look for behind a normalizer that changes the spaces beside them
  Prefix prefix = Prefix::none;
  bool strip = false;  // decoding takes one leading space away
};

class MetaspaceTokenizer : public Tokenizer {
 public:
  MetaspaceTokenizer(MetaspaceModel model, std::string text, SpecialIds special)
      : Tokenizer(special, model.prefix == Prefix::none ? Rule::apart : Rule::continuing),
        model_(std::move(model)),
        text_(std::move(text)) {}
  std::string kind() const override { return "metaspace"; }
  std::int64_t vocabulary() const override { return static_cast<std::int64_t>(model_.pieces.size()); }
  std::string piece(std::int32_t id) const override {
    require(id >= 0 && id < vocabulary(), "token id {} is outside the vocabulary of {}", id, vocabulary());
    return model_.pieces[id];
  }
  std::optional<std::int32_t> id_of(std::string_view piece) const override {
    const auto found = model_.ids.find(std::string(piece));
    return found == model_.ids.end() ? std::nullopt : std::optional(found->second);
  }
  bool is_special(std::int32_t id) const override { return id >= 0 && id < vocabulary() && model_.special[id]; }
  std::string file_name() const override { return "tokenizer.json"; }
  std::string file_bytes() const override { return text_; }

 private:
  std::vector<std::int32_t> encode_text(std::string_view text, Place place, std::span<const TextRange> special_in) const override;
  bool takes_blanks_behind(std::int32_t id) const override { return model_.added.takes_blanks_behind(id); }
  std::string decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const override;
  bool prefixed_at(Place place) const;
  void append_character(const std::string& character, std::vector<std::int32_t>& symbols) const;

  MetaspaceModel model_;
  std::string text_;
};

bool MetaspaceTokenizer::prefixed_at(Place place) const {
  if (place == Place::start) return model_.prefix != Prefix::none;
  return place == Place::behind_special && (model_.prefix == Prefix::missing || model_.prefix == Prefix::every);
}

void MetaspaceTokenizer::append_character(const std::string& character, std::vector<std::int32_t>& symbols) const {
  const auto found = model_.ids.find(character);
  if (found != model_.ids.end()) {
    symbols.push_back(found->second);
    return;
  }
  for (const char c : character) symbols.push_back(model_.id_of_byte[static_cast<unsigned char>(c)]);
}

std::vector<std::int32_t> MetaspaceTokenizer::encode_text(std::string_view text, Place place, std::span<const TextRange> special_in) const {
  std::vector<std::int32_t> ids, symbols;
  MergeTable::Scratch scratch;
  if (const auto match = model_.prefixed.find(text, 0, special_in))
    fail(
        "the special token '{}' in the template has \"normalized\": true in tokenizer.json, which is not supported beside a normalizer "
        "that changes the spaces around it; set it to false there, as newer files have it",
        model_.pieces[match->id]);
  model_.added.encode_around(text, special_in, ids, [&](std::string_view part) {
    if (part.empty()) return;
    symbols.clear();
    const Place here = part.data() == text.data() ? place : Place::behind_special;
    const bool bare = part.front() != ' ' && !part.starts_with(metaspace);
    if (prefixed_at(here) && (bare || model_.prefix == Prefix::every)) append_character(std::string(metaspace), symbols);
    while (!part.empty()) {
      const std::size_t length = std::max<std::size_t>(utf8_length(part), 1);
      append_character(std::string(part.front() == ' ' ? metaspace : part.substr(0, length)), symbols);
      part.remove_prefix(length);
    }
    model_.merges.apply(symbols, scratch);
    ids.insert(ids.end(), symbols.begin(), symbols.end());
  });
  return ids;
}

std::string MetaspaceTokenizer::decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const {
  std::string text;
  for (const std::int32_t id : ids) {
    if (model_.special[id] && !with_special) continue;
    if (model_.byte[id] >= 0) {
      text += static_cast<char>(model_.byte[id]);
      continue;
    }
    std::string_view rest = model_.pieces[id];
    for (std::size_t at = rest.find(metaspace); at != std::string_view::npos; at = rest.find(metaspace)) {
      text.append(rest.substr(0, at)) += ' ';
      rest.remove_prefix(at + metaspace.size());
    }
    text += rest;
  }
  const bool strip = model_.strip && (place == Place::start || prefixed_at(place));
  return strip && text.starts_with(' ') ? text.substr(1) : text;
}

Prefix read_prefix(const json& file, const std::string& name) {
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", metaspace}};
  const json prepend = {{"type", "Prepend"}, {"prepend", metaspace}};
  if (truthy(file, "normalizer")) {
    const json& normalizer = file["normalizer"];
    const json steps = normalizer.at("type") == "Sequence" ? normalizer.at("normalizers") : json::array({normalizer});
    const bool prefixed = steps == json::array({prepend, replace});
    require(prefixed || steps == json::array({replace}),
            "{}: the normalizer {} is not supported beside byte_fallback (prepending U+2581 and replacing spaces by it are)", name,
            normalizer.dump());
    require(!truthy(file, "pre_tokenizer"), "{}: a normalizer and the pre-tokenizer {} together are not supported", name,
            file.value("pre_tokenizer", json()).dump());
    return prefixed ? Prefix::every : Prefix::none;
  }
  const json step = file.value("pre_tokenizer", json());
  require(step.is_object() && step.value("type", "") == "Metaspace" && step.value("replacement", std::string(metaspace)) == metaspace &&
              !step.value("split", true),
          "{}: the pre-tokenizer {} is not supported beside byte_fallback (Metaspace with \"split\": false is)", name, step.dump());
  const std::string scheme = step.value("prepend_scheme", "always");
  require(scheme == "always" || scheme == "first" || scheme == "never", "{}: the prepend_scheme '{}' is not known", name, scheme);
  return scheme == "always" ? Prefix::missing : scheme == "first" ? Prefix::first : Prefix::none;
}

bool read_strip(const json& file, const std::string& name) {
  const json decoder = file.value("decoder", json());
  if (decoder.is_null()) return false;
  const json steps = decoder.at("type") == "Sequence" ? decoder.at("decoders") : json::array({decoder});
  bool strip = false;
  for (const json& step : steps) {
    const std::string type = step.at("type");
    const bool known = type == "ByteFallback" || type == "Fuse" || type == "Metaspace" || type == "Strip" ||
                       (type == "Replace" && step.at("content") == " " && step.at("pattern").value("String", "") == metaspace);
    require(known, "{}: the decoder step {} is not supported beside byte_fallback", name, step.dump());
    if (type == "Strip") {
      require(step.at("content") == " " && step.at("start") == 1 && step.at("stop") == 0, "{}: the decoder step {} is not supported", name,
              step.dump());
      strip = true;
    }
    if (type == "Metaspace") strip = strip || step.value("prepend_scheme", "always") != "never";
  }
  return strip;
}

void set_piece(MetaspaceModel& model, const std::string& piece, std::int32_t id, const std::string& name) {
  if (model.pieces.size() <= static_cast<std::size_t>(id)) {
    model.pieces.resize(id + 1);
    model.special.resize(id + 1);
    model.byte.resize(id + 1, -1);
  }
  const auto [known, fresh] = model.ids.emplace(piece, id);
  require(known->second == id && (!fresh || model.pieces[id].empty()), "{}: the token '{}' or its id {} is used twice", name, piece, id);
  model.pieces[id] = piece;
}

void read_vocabulary(MetaspaceModel& model, const json& file, const std::string& name) {
  const json& source = file["model"];
  for (const auto& [piece, id] : source.at("vocab").items()) set_piece(model, piece, id_in(id, piece, name), name);
  for (int b = 0; b < 256; ++b) {
    const auto found = model.ids.find(fmt::format("<0x{:02X}>", b));
    require(found != model.ids.end(), "{}: with byte_fallback the vocabulary must have <0x{:02X}>", name, b);
    model.id_of_byte[b] = found->second;
    model.byte[found->second] = b;
  }
  if (!truthy(file, "added_tokens")) return;
  for (const json& token : file["added_tokens"]) {
    const std::string content = token.at("content");
    const bool special = token.value("special", false);
    const Blanks blanks = blanks_of(token, content, name);
    require(special || !token.value("normalized", true), "{}: the added token '{}' has \"normalized\": true, which is not supported", name,
            content);
    const std::int32_t id = id_in(token.at("id"), content, name);
    set_piece(model, content, id, name);
    model.special[id] = special;
    const bool changed = model.prefix == Prefix::every || (truthy(file, "normalizer") && (blanks.before || blanks.behind));
    (special && changed && token.value("normalized", false) ? model.prefixed : model.added).add(content, id, special, blanks);
  }
}

}  // namespace

std::unique_ptr<Tokenizer> read_metaspace_tokenizer(const json& file, const std::string& text, const std::string& name) {
  const json& source = file["model"];
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"})
    require(!truthy(source, key), "{}: \"{}\": {} is not supported beside byte_fallback", name, key, source.value(key, json()).dump());
  MetaspaceModel model;
  model.prefix = read_prefix(file, name);
  model.strip = read_strip(file, name);
  read_vocabulary(model, file, name);
  const json& merges = source.at("merges");
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const std::string place = fmt::format("{}, merge {}", name, i + 1);
    const auto [left, right] = merge_in(merges[i], place);
    const auto [first, second, merged] = merge_ids(model.ids, left, right, place);
    model.merges.insert(first, second, {static_cast<std::int32_t>(i), merged});
  }
  SpecialIds special;
  if (truthy(source, "unk_token")) {
    const auto found = model.ids.find(source["unk_token"].get<std::string>());
    if (found != model.ids.end()) special.unknown = found->second;
  }
  return std::make_unique<MetaspaceTokenizer>(std::move(model), text, special);
}

}  // namespace collimate
