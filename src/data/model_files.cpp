#include "collimate/data/model_files.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/data/surround.hpp"
#include "data/file_keys.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// The JSON object of a file beside the tokenizer; empty where there is none.
json read_object(const fs::path& path) {
  if (!fs::is_regular_file(path)) return json::object();
  json content = json::parse(read_file(path.string()), nullptr, false);
  require(content.is_object(), "{} is not a JSON object: is the file complete?", path.string());
  return content;
}

/// The text of a token: a string, or {"content": string}; an empty one names nothing.
std::optional<TokenName> token_name(const json& content, const char* key, const std::string& path) {
  const auto found = content.find(key);
  if (found == content.end() || found->is_null()) return std::nullopt;
  const json& name = found->is_object() ? found->value("content", json()) : *found;
  require(name.is_string(), "{}: \"{}\" is neither text nor an object with \"content\"", path, key);
  return name.get_ref<const std::string&>().empty() ? std::nullopt : std::optional(TokenName{name.get<std::string>(), path});
}

std::optional<bool> flag(const json& content, const char* key, const std::string& path) {
  const auto found = content.find(key);
  if (found == content.end() || found->is_null()) return std::nullopt;
  require(found->is_boolean(), "{}: \"{}\" is {}, not true or false", path, key, found->dump());
  return found->get<bool>();
}

std::string text_of(const json& content, const char* key, const std::string& path) {
  const auto found = content.find(key);
  if (found == content.end() || found->is_null()) return "";
  require(found->is_string(), "{}: \"{}\" is {}, not a text", path, key, found->dump());
  return found->get<std::string>();
}

std::int32_t id_in(const json& value, const std::string& key, const std::string& path) {
  require(value.is_number_integer() && value >= -1 && value < (1 << 24), "{}: \"{}\" is {}, not a token id", path, key, value.dump());
  return value.get<std::int32_t>();
}

/// "eos_token_id": a number, several, or none; -1 stands for none in some files.
void add_ends(std::vector<std::int32_t>& ends, const json& content, const std::string& path) {
  json list = content.value("eos_token_id", json());
  if (!list.is_array()) list = json::array({list});
  for (const json& one : list) {
    if (one.is_null()) continue;
    const std::int32_t id = id_in(one, "eos_token_id", path);
    if (id >= 0 && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  }
}

std::optional<std::int64_t> single_id(const json& content, const char* key, const std::string& path) {
  json value = content.value(key, json());
  if (value.is_array() && !value.empty()) value = json(value.front());
  if (value.is_null() || value.is_array()) return std::nullopt;
  const std::int32_t id = id_in(value, key, path);
  return id < 0 ? std::nullopt : std::optional<std::int64_t>(id);
}

AddedTokenEntry added_token(const json& token, std::int32_t id, const std::string& path) {
  AddedTokenEntry entry;
  entry.id = id;
  if (token.is_string()) {
    entry.content = token.get<std::string>();
    return entry;
  }
  require(token.is_object() && token.contains("content") && token["content"].is_string(),
          "{}: the added token {} is neither text nor an object with \"content\"", path, id);
  entry.content = token["content"].get<std::string>();
  entry.special = flag(token, "special", path).value_or(false);
  entry.lstrip = flag(token, "lstrip", path).value_or(false);
  entry.rstrip = flag(token, "rstrip", path).value_or(false);
  entry.single_word = flag(token, "single_word", path).value_or(false);
  entry.normalized = flag(token, "normalized", path).value_or(!entry.special);
  return entry;
}

/// Tokens with ids of their own: added_tokens_decoder {"id": token}, then added_tokens.json {"text": id} where that says nothing of the id.
void read_added_tokens(ModelFiles& files, const json& config, const std::string& path) {
  std::map<std::int32_t, AddedTokenEntry> by_id;
  const json decoder = config.value("added_tokens_decoder", json());
  require(decoder.is_null() || decoder.is_object(), "{}: \"added_tokens_decoder\" is not an object of ids and tokens", path);
  for (const auto& [key, token] : decoder.items()) {
    const bool number = !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == std::string::npos;
    require(number, "{}: \"added_tokens_decoder\" has the key '{}', not a token id", path, key);
    const auto id = static_cast<std::int32_t>(std::stol(key));
    by_id[id] = added_token(token, id, path);
  }
  const std::string beside = (fs::path(files.folder) / "added_tokens.json").string();
  const json listed = read_object(beside);
  for (const auto& [content, id] : listed.items()) {
    const std::int32_t number = id_in(id, content, beside);
    require(number >= 0 && !content.empty(), "{}: the token '{}' has the id {}", beside, content, number);
    by_id.emplace(number, added_token(content, number, beside));
  }
  for (auto& [id, entry] : by_id)
    if (!entry.content.empty()) files.added_tokens.push_back(std::move(entry));
}

void read_extra_special(ModelFiles& files, const json& content) {
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const json list = content.value(key, json());
    if (!list.is_array() && !list.is_object()) continue;
    for (const auto& [name, token] : list.items()) {
      const json text = token.is_object() ? token.value("content", json()) : token;
      if (text.is_string() && !text.get_ref<const std::string&>().empty()) files.extra_special.push_back(text.get<std::string>());
    }
  }
}

/// "chat_template": a text, or a list of {"name", "template"}.
void read_chat_templates(ModelFiles& files, const json& content, const std::string& path) {
  const json found = content.value("chat_template", json());
  if (found.is_null()) return;
  if (found.is_string()) {
    files.chat_templates = {{"default", found.get<std::string>()}};
    return;
  }
  const bool named = found.is_array() && std::all_of(found.begin(), found.end(), [](const json& one) {
    return one.is_object() && one.contains("name") && one["name"].is_string() && one.contains("template") && one["template"].is_string();
  });
  require(named, "{}: \"chat_template\" is neither a text nor a list of objects with \"name\" and \"template\"", path);
  files.chat_templates.clear();
  for (const json& one : found) files.chat_templates.push_back({one["name"].get<std::string>(), one["template"].get<std::string>()});
  std::stable_partition(files.chat_templates.begin(), files.chat_templates.end(), [](const auto& one) { return one.name == "default"; });
}

/// The models whose expression transformers mends by "fix_mistral_regex": Mistral's, saved by a version before 5.
bool is_old_mistral(const std::string& model_type, const json& config) {
  const json version = config.value("transformers_version", json());
  const bool old = !version.is_string() || std::atoi(version.get_ref<const std::string&>().c_str()) < 5;
  constexpr std::string_view types[] = {"", "mistral", "mistral3", "voxtral", "ministral", "pixtral"};
  return old && std::find(std::begin(types), std::end(types), model_type) != std::end(types);
}

/// Files of their own go before tokenizer_config.json, as in transformers.
void read_chat_files(ModelFiles& files) {
  const fs::path folder(files.folder);
  const fs::path wrapped = folder / "chat_template.json", plain = folder / "chat_template.jinja", others = folder / "additional_chat_templates";
  if (fs::is_regular_file(wrapped)) read_chat_templates(files, read_object(wrapped), wrapped.string());
  if (fs::is_regular_file(plain)) {
    std::erase_if(files.chat_templates, [](const auto& one) { return one.name == "default"; });
    files.chat_templates.insert(files.chat_templates.begin(), {"default", read_file(plain.string())});
  }
  if (!fs::is_directory(others)) return;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(others))
    if (entry.is_regular_file() && entry.path().extension() == ".jinja") found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  for (const fs::path& path : found) files.chat_templates.push_back({path.stem().string(), read_file(path.string())});
}

}  // namespace

const std::string* ModelFiles::chat_template() const {
  return chat_templates.empty() || chat_templates.front().name != "default" ? nullptr : &chat_templates.front().text;
}

ModelFiles read_model_files(const std::string& path) {
  ModelFiles files;
  files.folder = fs::is_directory(path) ? path : fs::path(path).parent_path().string();
  const fs::path folder(files.folder);
  const auto at = [&](const char* name) { return (folder / name).string(); };
  const json config = read_object(at("tokenizer_config.json")), map = read_object(at("special_tokens_map.json")),
             model = read_object(at("config.json"));
  json generation = read_object(at("generation_config.json"));
  for (const auto& [name, kind, content] :
       {std::tuple("tokenizer_config.json", KeysOf::tokenizer_config, &config),
        std::tuple("special_tokens_map.json", KeysOf::special_tokens_map, &map),
        std::tuple("generation_config.json", KeysOf::generation_config, static_cast<const json*>(&generation))})
    for (std::string& note : check_keys(*content, kind, at(name))) files.notes.push_back(std::move(note));

  const std::string config_path = at("tokenizer_config.json");
  const auto token = [&](const char* key) {
    const auto own = token_name(config, key, config_path);
    return own ? own : token_name(map, key, at("special_tokens_map.json"));
  };
  files.bos = token("bos_token"), files.eos = token("eos_token"), files.pad = token("pad_token"), files.unknown = token("unk_token");
  files.denies_bos = config.contains("bos_token") && config["bos_token"].is_null() && !files.bos;
  files.add_bos = flag(config, "add_bos_token", config_path);
  files.legacy = flag(config, "legacy", config_path);
  files.add_prefix_space = flag(config, "add_prefix_space", config_path);
  files.model_type = text_of(model, "model_type", at("config.json"));
  files.fix_mistral_regex = flag(config, "fix_mistral_regex", config_path).value_or(false) && is_old_mistral(files.model_type, model);
  files.own_file = text_of(config, "collimate_file", config_path);
  files.tokenizer_class = text_of(config, "tokenizer_class", config_path);
  if (files.tokenizer_class.empty()) files.tokenizer_class = text_of(model, "tokenizer_class", at("config.json"));
  if (files.tokenizer_class.ends_with("Fast") && files.tokenizer_class != "PreTrainedTokenizerFast")
    files.tokenizer_class.resize(files.tokenizer_class.size() - 4);
  read_added_tokens(files, config, config_path);
  read_extra_special(files, config);
  read_extra_special(files, map);
  read_chat_templates(files, config, config_path);
  read_chat_files(files);
  files.bos_id = single_id(model, "bos_token_id", at("config.json"));
  if (!files.bos_id) files.bos_id = single_id(generation, "bos_token_id", at("generation_config.json"));
  files.pad_id = single_id(model, "pad_token_id", at("config.json"));
  if (!files.pad_id) files.pad_id = single_id(generation, "pad_token_id", at("generation_config.json"));
  add_ends(files.ends, model, at("config.json"));
  add_ends(files.ends, generation, at("generation_config.json"));
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config"}) generation.erase(key);
  if (!generation.empty()) files.generation = generation.dump();
  return files;
}

bool adds_bos(const Tokenizer& tokenizer, const ModelFiles& files) {
  if (!tokenizer.bos()) return false;
  const bool whole = tokenizer.file_name() == "tokenizer.json" && fs::is_regular_file(fs::path(files.folder) / "tokenizer.json");
  if (whole) {
    const std::vector<std::int32_t> before = surround_of(tokenizer).before;
    return !before.empty() && before.front() == *tokenizer.bos();
  }
  const fs::directory_iterator folder(files.folder.empty() ? "." : files.folder);
  const bool model = std::any_of(begin(folder), end(folder), [](const auto& entry) { return entry.path().extension() == ".model"; });
  return files.add_bos.value_or(model || tokenizer.file_name() != "tokenizer.json" || files.tokenizer_class == "RobertaTokenizer");
}

std::string bos_told(const Tokenizer& tokenizer, const ModelFiles& files, bool added) {
  if (!files.add_bos || *files.add_bos == added || !tokenizer.bos()) return "";
  return fmt::format(
      "{}: \"add_bos_token\" is {}, but the post_processor of tokenizer.json puts {} in front, and decides, as in transformers 5; --add-bos "
      "decides otherwise\n",
      (fs::path(files.folder) / "tokenizer_config.json").string(), *files.add_bos, added ? "BOS" : "none");
}

std::vector<std::int32_t> ends_of_text(const Tokenizer* tokenizer, const ModelFiles& files, std::int64_t rows) {
  std::vector<std::int32_t> ends;
  if (tokenizer != nullptr && tokenizer->eos()) ends.push_back(*tokenizer->eos());
  for (const std::int32_t id : files.ends)
    if (id < rows && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  return ends;
}

}  // namespace collimate
