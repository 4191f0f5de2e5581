#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/tokenizer.hpp"
#include "data/bpe_tokenizer.hpp"
#include "data/llama2c_tokenizer.hpp"
#include "data/pipeline_tokenizer.hpp"
#include "data/sentencepiece_tokenizer.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* looked_for =
    "tokenizer.json, vocab.json with merges.txt, encoder.json with vocab.bpe, *.model (SentencePiece), tok*.bin (llama2.c)";
/// Endings of GPT-2's pair of files; what stands before them must be the same in both.
constexpr std::pair<const char*, const char*> pair_endings[] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};

std::string read_optional(const fs::path& path) { return fs::is_regular_file(path) ? read_file(path.string()) : std::string(); }

/// The JSON object of a file beside the tokenizer; empty where there is none.
json read_side_file(const fs::path& path) {
  if (!fs::is_regular_file(path)) return json::object();
  json content = json::parse(read_file(path.string()), nullptr, false);
  require(content.is_object(), "{} is not a JSON object: is the file complete?", path.string());
  return content;
}

struct Pair {
  fs::path vocab, merges;
};

/// The pair that `file` belongs to, by the ending of its name; nothing where its partner is missing.
std::optional<Pair> pair_of(const fs::path& file) {
  const std::string name = file.filename().string();
  for (const auto& [vocab, merges] : pair_endings) {
    for (const char* ending : {vocab, merges}) {
      if (!name.ends_with(ending)) continue;
      const std::string prefix = name.substr(0, name.size() - std::string(ending).size());
      const Pair pair{file.parent_path() / (prefix + vocab), file.parent_path() / (prefix + merges)};
      if (fs::is_regular_file(pair.vocab) && fs::is_regular_file(pair.merges)) return pair;
    }
  }
  return std::nullopt;
}

std::unique_ptr<Tokenizer> load_pair(const Pair& pair) {
  return parse_vocab_and_merges(read_file(pair.vocab.string()), pair.vocab.string(), read_file(pair.merges.string()), pair.merges.string(),
                                read_optional(pair.vocab.parent_path() / "added_tokens.json"));
}

std::unique_ptr<Tokenizer> load_file(const fs::path& file) {
  const std::string name = file.filename().string(), full = file.string();
  if (name.ends_with(".model")) return parse_sentencepiece(read_file(full), full);
  if (name.ends_with(".bin")) return parse_llama2c(read_file(full), full);
  if (const auto pair = pair_of(file)) return load_pair(*pair);
  require(name.ends_with(".json"), "{} is not a tokenizer file that is known, or its partner is missing. Known: {}", full, looked_for);
  return parse_tokenizer_json(read_file(full), full);
}

/// The only candidate, or the one with the usual name; several others are an error.
std::optional<fs::path> choose(const std::vector<fs::path>& candidates, const fs::path& folder, const char* usual) {
  if (candidates.empty()) return std::nullopt;
  std::string names;
  for (const fs::path& path : candidates) {
    if (path.filename() == usual) return path;
    names += (names.empty() ? "" : ", ") + path.filename().string();
  }
  require(candidates.size() == 1, "{} holds several tokenizers ({}): name the file", folder.string(), names);
  return candidates.front();
}

/// The file of a folder's tokenizer (of a pair, its vocabulary); nothing where there is none.
std::optional<fs::path> find_in_folder(const fs::path& folder) {
  std::vector<fs::path> models, bins, vocabs;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".model")) models.push_back(entry.path());
    if (name.starts_with("tok") && name.ends_with(".bin")) bins.push_back(entry.path());
    const auto pair = pair_of(entry.path());
    if (pair && pair->vocab == entry.path()) vocabs.push_back(entry.path());
  }
  for (auto* list : {&models, &bins, &vocabs}) std::sort(list->begin(), list->end());

  const fs::path whole = folder / "tokenizer.json";
  if (fs::is_regular_file(whole)) return whole;
  if (const auto vocab = choose(vocabs, folder, "vocab.json")) return vocab;
  if (const auto model = choose(models, folder, "tokenizer.model")) return model;
  return choose(bins, folder, "tokenizer.bin");
}

/// The id that a tokenizer_config.json or special_tokens_map.json gives to "eos_token" and the like: a string or {"content": string}.
std::optional<std::int32_t> named_id(const Tokenizer& tokenizer, const fs::path& own_file, const fs::path& file, const json& content,
                                     const std::string& key) {
  const auto found = content.find(key);
  if (found == content.end() || found->is_null()) return std::nullopt;
  const json& name = found->is_object() ? found->value("content", json()) : *found;
  require(name.is_string(), "{}: \"{}\" is neither text nor an object with \"content\"", file.string(), key);
  const auto id = tokenizer.id_of(name.get<std::string>());
  require(id || key == "pad_token" || key == "unk_token",
          "{}: the {} {} is not in the vocabulary of the tokenizer '{}'; one of the two files belongs to another model", file.string(), key,
          name.dump(), own_file.string());
  return id;
}

/// "eos_token_id" of config.json: a number or, in some LLaMA files, several, of which the first is taken.
std::optional<std::int32_t> configured_id(const Tokenizer& tokenizer, const fs::path& own_file, const fs::path& file, const json& content,
                                          const std::string& key) {
  auto value = content.value(key, json());
  if (value.is_array() && !value.empty()) value = json(value.front());
  if (value.is_null() || (key == "pad_token_id" && value == -1)) return std::nullopt;
  require(value.is_number_integer() && value >= 0 && value < tokenizer.vocabulary(),
          "{}: {} is {}, not an id of the tokenizer '{}' (0 to {}); one of the two files belongs to another model", file.string(), key,
          value.dump(), own_file.string(), tokenizer.vocabulary() - 1);
  return value.get<std::int32_t>();
}

fs::path side_folder(const fs::path& path) { return fs::is_directory(path) ? path : path.parent_path(); }

SpecialIds find_special_ids(const Tokenizer& tokenizer, const fs::path& own_file, const fs::path& folder) {
  const fs::path config_file = folder / "tokenizer_config.json", map_file = folder / "special_tokens_map.json",
                 model_file = folder / "config.json";
  const json config = read_side_file(config_file), map = read_side_file(map_file), model = read_side_file(model_file);
  const auto find = [&](const std::string& part, std::optional<std::int32_t> own) -> std::optional<std::int32_t> {
    if (const auto id = named_id(tokenizer, own_file, config_file, config, part + "_token")) return id;
    if (const auto id = named_id(tokenizer, own_file, map_file, map, part + "_token")) return id;
    if (part == "bos" && denies_bos(folder.string())) return std::nullopt;
    if (own) return own;
    if (part == "unk") return std::nullopt;
    return configured_id(tokenizer, own_file, model_file, model, part + "_token_id");
  };
  const SpecialIds own = tokenizer.special_ids();
  SpecialIds ids{find("bos", own.bos), find("eos", own.eos), find("pad", own.pad), own.unknown ? own.unknown : find("unk", own.unknown)};
  if (!ids.eos && tokenizer.kind() == "bpe") ids.eos = tokenizer.id_of("<|endoftext|>");  // GPT-2's, whose files name no part
  return ids;
}

}  // namespace

bool denies_bos(const std::string& path) {
  const fs::path folder = side_folder(path);
  const json config = read_side_file(folder / "tokenizer_config.json"), map = read_side_file(folder / "special_tokens_map.json");
  return config.contains("bos_token") && config["bos_token"].is_null() && map.value("bos_token", json()).is_null();
}

bool holds_tokenizer(const std::string& folder) { return fs::is_directory(folder) && find_in_folder(folder).has_value(); }

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  const fs::path given(path);
  require(fs::exists(given), "{} does not exist; a tokenizer is a file or a folder with one of: {}", path, looked_for);
  const bool folder = fs::is_directory(given);
  require(folder || fs::is_regular_file(given), "{} is neither a file nor a folder", path);
  const auto file = folder ? find_in_folder(given) : given;
  require(file.has_value(), "{} holds no tokenizer. Looked for: {}", path, looked_for);
  auto tokenizer = load_file(*file);
  const SpecialIds ids = find_special_ids(*tokenizer, *file, side_folder(given));
  return with_special_ids(std::move(tokenizer), ids);
}

void save_tokenizer(const Tokenizer& tokenizer, const std::string& folder) {
  nlohmann::ordered_json config;
  const auto put = [&](const char* key, std::optional<std::int32_t> id) {
    if (id) config[key] = tokenizer.piece(*id);
  };
  put("bos_token", tokenizer.bos());
  put("eos_token", tokenizer.eos());
  put("pad_token", tokenizer.pad());
  put("unk_token", tokenizer.unknown());
  config["clean_up_tokenization_spaces"] = false;
  // Other programs know two classes; llama2.c's tok*.bin is none of theirs, and a wrong name gives them a tokenizer without tokens.
  if (tokenizer.file_name() == "tokenizer.json") config["tokenizer_class"] = "PreTrainedTokenizerFast";
  if (tokenizer.file_name() == "tokenizer.model") {
    config["tokenizer_class"] = "LlamaTokenizer";
    config["add_bos_token"] = tokenizer.bos().has_value();  // else some versions of transformers begin a prompt without it
    config["add_eos_token"] = false;
  }
  write_file((fs::path(folder) / tokenizer.file_name()).string(), tokenizer.file_bytes());
  write_file((fs::path(folder) / "tokenizer_config.json").string(), config.dump(2) + "\n");
}

}  // namespace collimate
