#include <algorithm>
#include <filesystem>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/file_kind.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/model_files.hpp"
#include "collimate/data/tokenizer.hpp"
#include "data/bpe_tokenizer.hpp"
#include "data/byte_level_files.hpp"
#include "data/folder_rules.hpp"
#include "data/llama2c_tokenizer.hpp"
#include "data/pipeline_tokenizer.hpp"
#include "data/sentencepiece_json.hpp"
#include "data/sentencepiece_tokenizer.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;

constexpr const char* looked_for =
    "tokenizer.json, vocab.json with merges.txt, encoder.json with vocab.bpe, *.model (SentencePiece, tiktoken), *.tiktoken, tok*.bin (llama2.c)";
/// Endings of GPT-2's pair of files; what stands before them must be the same in both.
constexpr std::pair<const char*, const char*> pair_endings[] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};

std::string read_optional(const fs::path& path) { return fs::is_regular_file(path) ? read_file(path.string()) : std::string(); }

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

/// A SentencePiece model as it is, or with what transformers adds to it: then it is read as the tokenizer.json that says the same.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& bytes, const std::string& full, const ModelFiles& files) {
  auto tokenizer = parse_sentencepiece(bytes, full);
  std::vector<AddedTokenEntry> added = files.added_tokens;
  std::erase_if(added, [&](const AddedTokenEntry& token) {
    if (token.id >= tokenizer->vocabulary() || tokenizer->piece(token.id) != token.content) return false;
    return tokenizer->is_special(token.id) || tokenizer->unknown() == token.id || !token.special;
  });
  const bool llama = files.tokenizer_class == "LlamaTokenizer" && files.model_type != "mistral";
  const BlankBefore blank = !files.add_prefix_space.value_or(true) ? BlankBefore::never
                            : files.legacy.value_or(!llama)        ? BlankBefore::every_part
                                                                   : BlankBefore::start;
  Notes notes;
  if (llama && !files.legacy && blank == BlankBefore::start)
    notes.push_back(fmt::format("{}: tokenizer_config.json does not say \"legacy\", so a blank goes before the first word of a text only, as in "
                                "transformers 5; \"legacy\": true puts one before every part, as in transformers 4 and SentencePiece",
                                full));
  if (added.empty() && blank == BlankBefore::every_part) {
    tokenizer->add_notes(notes);
    return tokenizer;
  }
  const auto text = sentencepiece_to_json(bytes, blank, added, full);
  require(text.has_value(), "{}: the files beside this SentencePiece model change it, which is supported for BPE and Unigram only", full);
  auto changed = parse_tokenizer_json(*text, full);
  changed->add_notes(notes);
  SpecialIds ids = tokenizer->special_ids();
  ids.unknown = changed->unknown();
  return with_special_ids(std::move(changed), ids);
}

std::unique_ptr<Tokenizer> load_file(const fs::path& file, const std::string& pattern, const ModelFiles& files) {
  const std::string name = file.filename().string(), full = file.string();
  if (!name.ends_with(".bin"))  // llama2.c's begin with numbers, in which much can be seen
    require_file_kind(full, {FileKind::text, FileKind::json, FileKind::empty, FileKind::other_encoding}, "a tokenizer");
  if (name.ends_with(".model") || name.ends_with(".tiktoken")) {
    const std::string bytes = read_file(full);
    if (is_tiktoken(bytes) || name.ends_with(".tiktoken")) return parse_tiktoken(bytes, full, pattern, files);
    return load_sentencepiece(bytes, full, files);
  }
  if (name.ends_with(".bin")) return parse_llama2c(read_file(full), full);
  if (const auto pair = pair_of(file)) return with_class_rules(load_pair(*pair), files, pair->vocab.string());
  require(name.ends_with(".json"), "{} is not a tokenizer file that is known, or its partner is missing. Known: {}", full, looked_for);
  Notes notes;
  auto tokenizer = parse_tokenizer_json(with_folder_rules(read_file(full), files, full, notes), full);
  tokenizer->add_notes(notes);
  return tokenizer;
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
std::optional<fs::path> find_in_folder(const fs::path& folder, const std::string& own_file = "") {
  if (!own_file.empty() && fs::is_regular_file(folder / own_file)) return folder / own_file;
  std::vector<fs::path> models, lists, bins, vocabs;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".model")) models.push_back(entry.path());
    if (name.ends_with(".tiktoken")) lists.push_back(entry.path());
    if (name.starts_with("tok") && name.ends_with(".bin")) bins.push_back(entry.path());
    const auto pair = pair_of(entry.path());
    if (pair && pair->vocab == entry.path()) vocabs.push_back(entry.path());
  }
  for (auto* list : {&models, &lists, &bins, &vocabs}) std::sort(list->begin(), list->end());

  const fs::path whole = folder / "tokenizer.json";
  if (fs::is_regular_file(whole)) return whole;
  if (const auto vocab = choose(vocabs, folder, "vocab.json")) return vocab;
  if (const auto model = choose(models, folder, "tokenizer.model")) return model;
  if (const auto list = choose(lists, folder, "qwen.tiktoken")) return list;
  return choose(bins, folder, "tokenizer.bin");
}

/// The id of a token that a file names. A tokenizer without its padding or unknown token needs none.
std::optional<std::int32_t> named_id(const Tokenizer& tokenizer, const fs::path& own_file, const std::optional<TokenName>& name,
                                     const char* key, bool needed) {
  if (!name) return std::nullopt;
  const auto id = tokenizer.id_of(name->text);
  require(id || !needed,
          "{}: the {} \"{}\" is not in the vocabulary of the tokenizer '{}'; one of the two files belongs to another model", name->path, key,
          name->text, own_file.string());
  return id;
}

/// An id of config.json; of several, which some LLaMA files have, the first one.
std::optional<std::int32_t> configured_id(const Tokenizer& tokenizer, const fs::path& own_file, const ModelFiles& files, const char* key,
                                          std::optional<std::int64_t> id) {
  require(!id || *id < tokenizer.vocabulary(), "{}: {} is {}, not an id of the tokenizer '{}' (0 to {}); one of the two files belongs to another model",
          (fs::path(files.folder) / "config.json").string(), key, id.value_or(0), own_file.string(), tokenizer.vocabulary() - 1);
  return id ? std::optional(static_cast<std::int32_t>(*id)) : std::nullopt;
}

SpecialIds find_special_ids(const Tokenizer& tokenizer, const fs::path& own_file, const ModelFiles& files) {
  const SpecialIds own = tokenizer.special_ids();
  const auto configured = [&](const char* key, std::optional<std::int64_t> id) { return configured_id(tokenizer, own_file, files, key, id); };
  SpecialIds ids{named_id(tokenizer, own_file, files.bos, "bos_token", true), named_id(tokenizer, own_file, files.eos, "eos_token", true),
                 named_id(tokenizer, own_file, files.pad, "pad_token", false), own.unknown};
  if (!ids.bos && !files.denies_bos) ids.bos = own.bos ? own.bos : configured("bos_token_id", files.bos_id);
  if (!ids.eos) ids.eos = own.eos;
  if (!ids.eos && !files.ends.empty()) ids.eos = configured("eos_token_id", files.ends.front());
  if (!ids.pad) ids.pad = own.pad ? own.pad : configured("pad_token_id", files.pad_id);
  if (!ids.unknown) ids.unknown = named_id(tokenizer, own_file, files.unknown, "unk_token", false);
  for (const char* usual : {"</s>", "<|endoftext|>"})  // of OPT and RoBERTa, and of GPT-2, where no file names any
    if (!ids.eos && tokenizer.kind() == "bpe") ids.eos = tokenizer.id_of(usual);
  return ids;
}

}  // namespace

bool denies_bos(const std::string& path) { return read_model_files(path).denies_bos; }

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) { return load_tokenizer(path, ""); }

bool holds_tokenizer(const std::string& folder) { return fs::is_directory(folder) && find_in_folder(folder).has_value(); }

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path, const std::string& pattern) {
  const fs::path given(path);
  require(fs::exists(given), "{} does not exist; a tokenizer is a file or a folder with one of: {}", path, looked_for);
  const bool folder = fs::is_directory(given);
  require(folder || fs::is_regular_file(given), "{} is neither a file nor a folder", path);
  ModelFiles files = read_model_files(path);
  const auto file = folder ? find_in_folder(given, files.own_file) : given;
  require(file.has_value(), "{} holds no tokenizer. Looked for: {}", path, looked_for);
  auto tokenizer = load_file(*file, pattern, files);
  const bool whole = file->extension() == ".json" && !pair_of(*file);  // with_folder_rules() has added its tokens
  if (!whole && add_extra_special(*tokenizer, files)) {
    require(tokenizer->kind() != "llama2c", "{}: the files beside it add the special token \"{}\", which a llama2.c tokenizer cannot have",
            file->string(), files.added_tokens.back().content);
    tokenizer = load_file(*file, pattern, files);
  }
  tokenizer->add_notes(files.notes);
  const SpecialIds ids = find_special_ids(*tokenizer, *file, files);
  return with_special_ids(std::move(tokenizer), ids);
}

}  // namespace collimate
