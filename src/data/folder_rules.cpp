#include "data/folder_rules.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/bpe_json.hpp"
#include "data/json_tokens.hpp"

namespace collimate {
namespace {

using nlohmann::json;  // sorted keys: in an ordered_json each key of a vocabulary would be looked for in the whole list

// Classes of transformers 5 that do not take a tokenizer.json's pre-tokenizer but make their own, by add_prefix_space and legacy. The
// others take it as it is.
constexpr const char* byte_level_classes =
    "GPT2Tokenizer GPTNeoXTokenizer Qwen2Tokenizer RobertaTokenizer BartTokenizer LEDTokenizer LongformerTokenizer DebertaTokenizer "
    "CodeGenTokenizer CohereTokenizer WhisperTokenizer LukeTokenizer BlenderbotTokenizer";
constexpr const char* metaspace_classes = "LlamaTokenizer CodeLlamaTokenizer";
constexpr const char* nfc_classes = "Qwen2Tokenizer GPTNeoXTokenizer CohereTokenizer";
constexpr const char* taken_as_it_is = "mistral";  ///< a model_type whose tokenizer_class is not heeded

constexpr const char* mistral_expression =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::size_t mistral_tokens = 100000;  ///< smaller vocabularies are SentencePiece's, and are not mended

bool lists(const char* classes, const std::string& one) {
  const std::vector<std::string> all = split(classes, ' ');
  return std::find(all.begin(), all.end(), one) != all.end();
}

/// Calls `use` with each step of a part, a {"type": "Sequence"} or one step; one for which it says false is taken out.
void keep_steps(json& part, const char* list_key, const std::function<bool(json&)>& use) {
  if (!part.is_object()) return;
  if (part.value("type", "") != "Sequence") {
    if (!use(part)) part = nullptr;
    return;
  }
  json kept = json::array();
  for (json step : part.at(list_key)) {
    keep_steps(step, list_key, use);
    if (!step.is_null()) kept.push_back(std::move(step));
  }
  part[list_key] = std::move(kept);
}

/// Where a tokenizer.json puts a blank of its own, and in which way.
struct BlankSteps {
  json *byte_level = nullptr, *metaspace = nullptr;
  bool prepended = false;  ///< by the normalizer
  std::string scheme = "never";
};

BlankSteps blank_steps(json& file) {
  BlankSteps found;
  keep_steps(file["normalizer"], "normalizers", [&](json& step) {
    found.prepended = found.prepended || step.value("type", "") == "Prepend";
    return true;
  });
  if (found.prepended) found.scheme = "always";
  const auto look = [&](json& step) {
    if (step.value("type", "") == "ByteLevel") {
      found.byte_level = &step;
      if (step.value("add_prefix_space", false)) found.scheme = "always";
    } else if (step.value("type", "") == "Metaspace") {
      found.metaspace = &step;
      if (step.value("add_prefix_space", true) && found.scheme == "never") found.scheme = step.value("prepend_scheme", "always");
    }
    return true;
  };
  json& part = file["pre_tokenizer"];
  if (part.is_object() && part.value("type", "") == "Sequence")
    for (json& step : part.at("pretokenizers")) look(step);
  else if (part.is_object())
    look(part);
  return found;
}

/// The pipeline that LlamaTokenizer makes: a Metaspace step alone puts blanks, and the decoder takes one away.
void set_metaspace(json& file, const std::string& scheme) {
  const std::string blank = "\u2581";
  keep_steps(file["normalizer"], "normalizers", [&](json& step) {
    const std::string type = step.value("type", "");
    return type != "Prepend" && !(type == "Replace" && step.value("content", "") == blank);
  });
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", blank}, {"prepend_scheme", scheme}, {"split", false}};
  json steps = json::array();
  steps.push_back({{"type", "Replace"}, {"pattern", json::object({{"String", blank}})}, {"content", " "}});
  for (const char* type : {"ByteFallback", "Fuse"}) steps.push_back(json::object({{"type", type}}));
  if (scheme != "never") steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  file["decoder"] = {{"type", "Sequence"}, {"decoders", steps}};
}

/// The blanks that the folder's class puts before a text, where its files do not say: transformers 5 makes the pipeline of these classes anew.
bool set_blanks(json& file, const ModelFiles& files, const std::string& name, Notes& notes) {
  BlankSteps now = blank_steps(file);
  const bool heeded = files.model_type != taken_as_it_is;
  const std::string& one = files.tokenizer_class;
  const auto tell = [&](const char* where, const std::string& key) {
    notes.push_back(fmt::format("{}/tokenizer_config.json does not say \"{}\". A {} then puts {}, as in transformers 5; {} would say otherwise",
                                files.folder, key, one, where, name));
  };
  if (heeded && now.byte_level != nullptr && lists(byte_level_classes, one)) {
    const bool wanted = files.add_prefix_space.value_or(false);
    if (wanted == (now.scheme != "never")) return false;
    (*now.byte_level)["add_prefix_space"] = wanted;
    if (!files.add_prefix_space) tell("no blank before a text", "add_prefix_space");
    return true;
  }
  const bool bpe = file["model"].value("type", "BPE") == "BPE" && file["model"].value("byte_fallback", false);
  if (heeded && now.byte_level == nullptr && bpe && lists(metaspace_classes, one)) {
    const std::string wanted = !files.add_prefix_space.value_or(true) ? "never" : files.legacy.value_or(false) ? "always" : "first";
    if (wanted == now.scheme) return false;
    set_metaspace(file, wanted);
    if (!files.legacy && wanted == "first") tell("a blank before the first word of a text only", "legacy");
    return true;
  }
  const bool blank = files.add_prefix_space.value_or(now.scheme != "never");
  if (blank != (now.scheme != "never"))
    notes.push_back(
        fmt::format("{}/tokenizer_config.json: \"add_prefix_space\" is {}, but {} says otherwise, and decides, as in transformers 5",
                    files.folder, blank, name));
  return false;
}

/// NFC, where the folder's class has it and the file has not.
bool compose(json& file, const ModelFiles& files, const std::string& name, Notes& notes) {
  if (files.model_type == taken_as_it_is || !lists(nfc_classes, files.tokenizer_class) || blank_steps(file).byte_level == nullptr) return false;
  bool composed = false;
  keep_steps(file["normalizer"], "normalizers", [&](json& step) {
    composed = composed || step.value("type", "") == "NFC";
    return true;
  });
  if (composed) return false;
  file["normalizer"] = {{"type", "NFC"}};
  notes.push_back(fmt::format("{} does not bring texts into NFC. A {} does, as in transformers 5", name, files.tokenizer_class));
  return true;
}

bool mend_expression(json& file, const ModelFiles& files) {
  json& part = file["pre_tokenizer"];
  const std::size_t tokens = file["model"].at("vocab").size() + file.value("added_tokens", json::array()).size();
  if (!files.fix_mistral_regex || !part.is_object() || tokens <= mistral_tokens) return false;
  const json split = {
      {"type", "Split"}, {"pattern", json::object({{"Regex", mistral_expression}})}, {"behavior", "Isolated"}, {"invert", false}};
  const bool sequence = part.value("type", "") == "Sequence" && !part.at("pretokenizers").empty();
  if (sequence && part["pretokenizers"][0] == split) return false;
  if (sequence) {
    part["pretokenizers"][0] = split;
    return true;
  }
  json bytes = part;
  if (part.value("type", "") == "Metaspace")
    bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  part = {{"type", "Sequence"}, {"pretokenizers", json::array({split, bytes})}};
  return true;
}

bool same(const json& token, const AddedTokenEntry& entry) {
  return token.value("special", false) == entry.special && token.value("lstrip", false) == entry.lstrip &&
         token.value("rstrip", false) == entry.rstrip && token.value("single_word", false) == entry.single_word &&
         token.value("normalized", !entry.special) == entry.normalized;
}

/// Tokens of the files beside it go before those of the tokenizer.json. One that the vocabulary has keeps its id, a new one gets the next.
bool add_folder_tokens(json& file, const ModelFiles& files, const std::string& name) {
  std::map<std::string, std::int32_t> ids;
  const json& vocabulary = file["model"].at("vocab");
  std::int32_t next = 0;
  for (const auto& [key, entry] : vocabulary.items()) {
    const std::int32_t id = vocabulary.is_array() ? next : entry.get<std::int32_t>();
    ids.emplace(vocabulary.is_array() ? entry.at(0).get<std::string>() : key, id);
    next = std::max(next, id + 1);
  }
  std::map<std::string, json> known;
  for (const json& token : file.value("added_tokens", json::array())) {
    known.emplace(token.at("content"), token);
    ids.emplace(token.at("content"), token.at("id"));
    next = std::max(next, token.at("id").get<std::int32_t>() + 1);
  }
  std::vector<AddedTokenEntry> wanted = files.added_tokens, changed;
  for (const std::string& text : files.extra_special)
    if (!known.contains(text)) wanted.emplace_back().content = text;
  for (AddedTokenEntry& entry : wanted) {
    const auto found = known.find(entry.content);
    if (found != known.end() && same(found->second, entry)) continue;
    const auto [place, fresh] = ids.emplace(entry.content, next);
    next += fresh ? 1 : 0;
    entry.id = place->second;
    changed.push_back(entry);
  }
  if (!changed.empty()) add_tokens(file, changed, name);
  return !changed.empty();
}

}  // namespace

std::string with_folder_rules(const std::string& text, const ModelFiles& files, const std::string& name, Notes& notes) {
  const bool own_rules = lists(byte_level_classes, files.tokenizer_class) || lists(metaspace_classes, files.tokenizer_class);
  if (!own_rules && !files.add_prefix_space && !files.legacy && !files.fix_mistral_regex && files.added_tokens.empty() &&
      files.extra_special.empty())
    return text;
  json file = json::parse(text, nullptr, false);
  if (!file.is_object() || !file.contains("model") || !file["model"].is_object() || !file["model"].contains("vocab"))
    return text;  // refused by its reader
  try {
    const bool composed = compose(file, files, name, notes), blanks = set_blanks(file, files, name, notes), mended = mend_expression(file, files),
               added = add_folder_tokens(file, files, name);
    return composed || blanks || mended || added ? file.dump(1) + "\n" : text;
  } catch (const nlohmann::json::exception&) {
    return text;
  }
}

bool add_extra_special(const Tokenizer& tokenizer, ModelFiles& files) {
  const std::size_t before = files.added_tokens.size();
  std::int32_t next = static_cast<std::int32_t>(tokenizer.vocabulary());
  for (const std::string& text : files.extra_special) {
    const auto id = tokenizer.id_of(text);
    const auto same_text = [&](const AddedTokenEntry& entry) { return entry.content == text; };
    if ((id && tokenizer.is_special(*id)) || std::any_of(files.added_tokens.begin(), files.added_tokens.end(), same_text)) continue;
    AddedTokenEntry& entry = files.added_tokens.emplace_back();
    entry.id = id ? *id : next++;
    entry.content = text;
  }
  return files.added_tokens.size() > before;
}

}  // namespace collimate
