#include <algorithm>
#include <sstream>
#include <unordered_set>

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/bpe_json.hpp"
#include "data/bpe_tokenizer.hpp"
#include "data/json_step.hpp"
#include "data/split.hpp"
#include "data/file_keys.hpp"

namespace collimate {
namespace {

using nlohmann::ordered_json;

BpePiece& piece_at(BpeModel& model, std::int32_t id) {
  if (model.pieces.size() <= static_cast<std::size_t>(id)) model.pieces.resize(id + 1);
  return model.pieces[id];
}

IdOfName read_vocabulary(BpeModel& model, const json& vocabulary, const std::string& name) {
  require(vocabulary.is_object() && !vocabulary.empty(), "{}: the vocabulary is not an object of tokens and their ids", name);
  IdOfName ids;
  for (const auto& [key, value] : vocabulary.items()) {
    const std::int32_t id = id_in(value, key, name);
    BpePiece& piece = piece_at(model, id);
    require(!piece.used, "{}: '{}' and '{}' have the same id {}", name, piece.used ? piece.name() : "", key, id);
    const auto bytes = alphabet_to_bytes(key);
    piece = {bytes.value_or(key), true, !bytes, false, false};
    ids.emplace(key, id);
  }
  return ids;
}

void add_merge(BpeModel& model, const IdOfName& ids, const std::string& left, const std::string& right, const std::string& place) {
  const auto [first, second, merged] = merge_ids(ids, left, right, place);
  model.merges.push_back({first, second, merged});
}

void add_token(BpeModel& model, IdOfName& ids, const std::string& content, std::int32_t id, bool special, Blanks blanks,
               const std::string& name) {
  BpePiece& piece = piece_at(model, id);
  const auto known = ids.find(content);
  const bool same = known != ids.end() && known->second == id;
  require(same || (known == ids.end() && !piece.used), "{}: the added token '{}' has id {}, but {}", name, content, id,
          known != ids.end() ? fmt::format("the vocabulary gives it {}", known->second)
                             : fmt::format("that is '{}' in the vocabulary", piece.name()));
  piece = {content, true, true, true, special, blanks};
  ids.emplace(content, id);
}

bool only_keys(const json& object, std::initializer_list<std::string_view> keys) {
  for (const auto& [key, value] : object.items())
    if (std::find(keys.begin(), keys.end(), key) == keys.end() && is_set(object, key)) return false;
  return true;
}

/// Steps that cut by expressions, then ByteLevel.
std::optional<PretokenizerRule> usual_rule(const json& whole) {
  PretokenizerRule rule;
  const std::vector<json> steps = steps_of(whole, "pretokenizers");
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const json& step = steps[i];
    const bool last = i + 1 == steps.size();
    if (last && step.at("type") == "ByteLevel") {
      rule.prefix_space = step.value("add_prefix_space", false);
      rule.gpt2_words = step.value("use_regex", true);
      return rule;
    }
    if (step.at("type") != "Split" || step.value("behavior", "") != "Isolated" || step.value("invert", false)) return std::nullopt;
    rule.splits.push_back(pattern_of(step.at("pattern"), "the pre-tokenizer Split"));
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> usual_tokenizer_json(const json& file, const std::string& name) {
  const json& source = file["model"];
  const auto rule = usual_rule(file.value("pre_tokenizer", json()));
  const json decoder = file.value("decoder", json());
  if (!rule || is_set(file, "normalizer") || source.value("type", "BPE") != "BPE" || !source.at("vocab").is_object()) return std::nullopt;
  if (!only_keys(source, {"type", "vocab", "merges", "unk_token", "ignore_merges"})) return std::nullopt;
  if (!decoder.is_null() && decoder.at("type") != "ByteLevel") return std::nullopt;
  BpeModel model;
  IdOfName ids = read_vocabulary(model, source.at("vocab"), name);
  const json& merges = source.at("merges");
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const std::string place = fmt::format("{}, merge {}", name, i + 1);
    const auto [left, right] = merge_in(merges[i], place);
    add_merge(model, ids, left, right, place);
  }
  for (const json& token : file.value("added_tokens", json::array())) {
    if (token.value("single_word", false)) return std::nullopt;
    const std::string content = token.at("content");
    const Blanks blanks{token.value("lstrip", false), token.value("rstrip", false)};
    add_token(model, ids, content, id_in(token.at("id"), content, name), token.value("special", false), blanks, name);
  }
  model.rule = *rule;
  model.ignore_merges = source.value("ignore_merges", false);
  if (is_set(file, "post_processor")) model.post_processor = file["post_processor"].dump();
  std::optional<std::int32_t> unknown;
  if (is_set(source, "unk_token")) unknown = ids.at(source["unk_token"].get<std::string>());
  return write_tokenizer_json(model, unknown);
}

namespace {

// GPT-2's files do not say which tokens are special: those that no merge makes and that look like <...>.
void mark_special(BpeModel& model) {
  std::unordered_set<std::int32_t> made;
  for (const auto& merge : model.merges) made.insert(merge.merged);
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    BpePiece& piece = model.pieces[id];
    if (!piece.used || piece.bytes.size() < 3 || piece.bytes.front() != '<' || piece.bytes.back() != '>') continue;
    if (!made.contains(static_cast<std::int32_t>(id))) piece.literal = piece.added = piece.special = true;
  }
}

}  // namespace

std::unique_ptr<Tokenizer> parse_vocab_and_merges(const std::string& vocab, const std::string& vocab_name, const std::string& merges,
                                                  const std::string& merges_name, const std::string& added_tokens) {
  BpeModel model;
  IdOfName ids = read_vocabulary(model, parse_json(vocab, vocab_name), vocab_name);
  std::istringstream lines(merges);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // the byte order mark of some editors
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const std::string place = fmt::format("{}, line {}", merges_name, number);
    const auto [left, right] = cut_merge(line, place);
    add_merge(model, ids, left, right, place);
  }
  mark_special(model);
  if (!added_tokens.empty()) {
    const std::string name = "added_tokens.json beside " + vocab_name;
    const json added = parse_json(added_tokens, name);
    for (const auto& [content, id] : added.items()) add_token(model, ids, content, id_in(id, content, name), true, {}, name);
  }
  return make_bpe_tokenizer(model, SpecialIds{}, vocab_name);
}

std::string write_tokenizer_json(const BpeModel& model, std::optional<std::int32_t> unknown) {
  const auto byte_level = [](bool prefix_space, bool use_regex) {
    return ordered_json{{"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
  };
  ordered_json steps = ordered_json::array();
  for (const std::string& split : model.rule.splits)
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", split}}}, {"behavior", "Isolated"}, {"invert", false}});
  steps.push_back(byte_level(model.rule.prefix_space, model.rule.gpt2_words));

  ordered_json added = ordered_json::array(), vocabulary = ordered_json::object(), merges = ordered_json::array();
  auto& entries = vocabulary.get_ref<ordered_json::object_t&>();  // filled directly: inserting by key would search the whole list
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const BpePiece& piece = model.pieces[id];
    if (!piece.used) continue;
    entries.emplace_back(piece.name(), id);
    if (piece.added)
      added.push_back({{"id", id},
                       {"content", piece.bytes},
                       {"single_word", false},
                       {"lstrip", piece.blanks.before},
                       {"rstrip", piece.blanks.behind},
                       {"normalized", false},
                       {"special", piece.special}});
  }
  for (const auto& merge : model.merges) merges.push_back(model.pieces[merge.left].name() + " " + model.pieces[merge.right].name());

  ordered_json file;
  file["version"] = "1.0";
  file["truncation"] = nullptr;
  file["padding"] = nullptr;
  file["added_tokens"] = std::move(added);
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = steps.size() == 1 ? steps[0] : ordered_json{{"type", "Sequence"}, {"pretokenizers", steps}};
  file["post_processor"] = ordered_json::parse(model.post_processor);
  file["decoder"] = byte_level(true, true);
  ordered_json& bpe = file["model"];
  bpe = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"continuing_subword_prefix", nullptr},
         {"end_of_word_suffix", nullptr}, {"fuse_unk", false}, {"byte_fallback", false}, {"ignore_merges", model.ignore_merges}};
  if (unknown) bpe["unk_token"] = model.pieces[*unknown].name();
  bpe["vocab"] = std::move(vocabulary);
  bpe["merges"] = std::move(merges);
  return file.dump(1) + "\n";
}

}  // namespace collimate
