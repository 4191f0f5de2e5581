#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/base/atomic_file.hpp"
#include "collimate/data/model_files.hpp"
#include "collimate/data/surround.hpp"
#include "data/byte_level_files.hpp"
#include "data/json_tokens.hpp"
#include "data/llama2c_tokenizer.hpp"
#include "data/sentencepiece_json.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// The text of a tokenizer.json that gives this tokenizer's ids; nothing where there can be none.
std::optional<std::string> as_json_file(const Tokenizer& tokenizer) {
  if (tokenizer.file_name() == "tokenizer.json") return tokenizer.file_bytes();
  if (tokenizer.kind() == "llama2c") return llama2c_to_json(tokenizer.file_bytes(), "the tokenizer");
  if (tokenizer.kind() != "sentencepiece") return std::nullopt;
  return sentencepiece_to_json(tokenizer.file_bytes(), BlankBefore::every_part, {}, "the tokenizer");
}

/// With a post_processor that puts BOS alone before a text, or nothing; as it is where it does that already.
std::string with_surroundings(const std::string& text, const Tokenizer& tokenizer, bool add_bos) {
  nlohmann::json file = nlohmann::json::parse(text);  // in an ordered one each key of a vocabulary would be looked for in the list
  const Surround now = surround_of(tokenizer);
  const std::vector<std::int32_t> before = add_bos ? std::vector<std::int32_t>{*tokenizer.bos()} : std::vector<std::int32_t>();
  if (now.before == before && now.behind.empty()) return text;
  file["post_processor"] = nullptr;
  if (add_bos) file["post_processor"] = token_before(tokenizer.piece(*tokenizer.bos()), *tokenizer.bos());
  return file.dump(1) + "\n";
}

/// Whether a tokenizer.json cuts texts as the class Qwen2Tokenizer does, which takes vocabulary and merges alone from it.
bool cuts_as_qwen2(const ordered_json& file) {
  const auto part = [&](const char* key) { return file.contains(key) ? file[key] : ordered_json(); };
  const ordered_json model = part("model"), normalizer = part("normalizer"), words = part("pre_tokenizer");
  if (model.value("type", "BPE") != "BPE" || model.value("byte_fallback", false) || model.value("ignore_merges", false)) return false;
  if (!normalizer.is_object() || normalizer.at("type") != "NFC") return false;
  if (!words.is_object() || words.at("type") != "Sequence" || words.at("pretokenizers").size() != 2) return false;
  const ordered_json &split = words["pretokenizers"][0], &bytes = words["pretokenizers"][1];
  return split.at("type") == "Split" && split.at("pattern").value("Regex", "") == qwen_expression() &&
         split.at("behavior") == "Isolated" && !split.value("invert", false) && bytes.at("type") == "ByteLevel" &&
         !bytes.value("add_prefix_space", true) && !bytes.value("use_regex", true);
}

/// `add_bos`: not given: as the tokenizer's file says.
void save(const Tokenizer& tokenizer, const std::string& folder, std::optional<bool> add_bos) {
  if (add_bos && !tokenizer.bos()) add_bos = false;
  ordered_json config;
  for (const auto& [key, id] : {std::pair("bos_token", tokenizer.bos()), std::pair("eos_token", tokenizer.eos()),
                                std::pair("pad_token", tokenizer.pad()), std::pair("unk_token", tokenizer.unknown())})
    if (id) config[key] = tokenizer.piece(*id);
  if (!tokenizer.bos()) config["bos_token"] = nullptr;  // else the name that a class has by itself
  if (add_bos) config["add_bos_token"] = *add_bos;
  if (add_bos) config["add_eos_token"] = false;
  config["clean_up_tokenization_spaces"] = false;
  const std::string own = tokenizer.file_name();
  const std::optional<std::string> text = as_json_file(tokenizer);
  // This class takes tokenizer.json as it is; most others make a pipeline of their own from its vocabulary.
  if (text) config["tokenizer_class"] = "PreTrainedTokenizerFast";
  if (own == "tokenizer.model") {
    if (!text) config["tokenizer_class"] = "LlamaTokenizer";
    config["legacy"] = true;
  }
  if (text && own != "tokenizer.json") config["collimate_file"] = own;
  if (text) write_file((fs::path(folder) / "tokenizer.json").string(), add_bos ? with_surroundings(*text, tokenizer, *add_bos) : *text);
  if (own != "tokenizer.json") write_file((fs::path(folder) / own).string(), tokenizer.file_bytes());
  write_file((fs::path(folder) / "tokenizer_config.json").string(), config.dump(2) + "\n");
}

}  // namespace

std::string class_told(const std::string& folder) {
  const fs::path config = fs::path(folder) / "config.json", file = fs::path(folder) / "tokenizer.json";
  if (!fs::exists(config) || !fs::exists(file)) return "";
  if (ordered_json::parse(read_file(config.string())).value("model_type", "") != "qwen2") return "";
  if (cuts_as_qwen2(ordered_json::parse(read_file(file.string())))) return "";
  return "transformers 5 reads the tokenizer of every Qwen2 model as a Qwen2Tokenizer, which would give other ids than this one: load it "
         "with PreTrainedTokenizerFast.from_pretrained instead of AutoTokenizer\n";
}

void save_tokenizer(const Tokenizer& tokenizer, const std::string& folder) { save(tokenizer, folder, std::nullopt); }

void save_tokenizer(const Tokenizer& tokenizer, const std::string& folder, bool add_bos) { save(tokenizer, folder, add_bos); }

}  // namespace collimate
