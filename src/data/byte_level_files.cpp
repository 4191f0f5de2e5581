#include "data/byte_level_files.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <span>
#include <tuple>
#include <unordered_map>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/bpe_tokenizer.hpp"
#include "data/json_tokens.hpp"
#include "data/pipeline_tokenizer.hpp"

namespace collimate {
namespace {

using nlohmann::ordered_json;

// How texts are cut into words (openai/tiktoken, tiktoken_ext/openai_public.py; QwenLM/Qwen, tokenization_qwen.py; meta-llama/llama3,
// tokenizer.py), without possessive quantifiers, which change nothing here.
constexpr const char* gpt2 = "";  // the words of a ByteLevel pre-tokenizer
constexpr const char* cl100k =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* one_digit =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* o200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct NamedToken {
  std::int32_t behind;  ///< how far behind the last token of the file
  const char* text;
};

constexpr NamedToken gpt2_tokens[] = {{0, "<|endoftext|>"}};
constexpr NamedToken p50k_tokens[] = {{-25, "<|endoftext|>"}};  // 50256, the one rank that the file leaves out
constexpr NamedToken cl100k_tokens[] = {{1, "<|endoftext|>"}, {2, "<|fim_prefix|>"}, {3, "<|fim_middle|>"}, {4, "<|fim_suffix|>"}, {20, "<|endofprompt|>"}};
constexpr NamedToken o200k_tokens[] = {{1, "<|endoftext|>"}, {20, "<|endofprompt|>"}};
constexpr NamedToken qwen_tokens[] = {{0, "<|endoftext|>"}, {1, "<|im_start|>"}, {2, "<|im_end|>"}};
constexpr NamedToken llama3_tokens[] = {{0, "<|begin_of_text|>"},      {1, "<|end_of_text|>"},   {4, "<|finetune_right_pad_id|>"},
                                        {6, "<|start_header_id|>"},    {7, "<|end_header_id|>"}, {8, "<|eom_id|>"},
                                        {9, "<|eot_id|>"},             {10, "<|python_tag|>"}};

/// A tokenizer of tiktoken's kind.
struct Row {
  const char* name;
  const char* expression;
  bool nfc;
  std::int64_t ranks;  ///< tokens in its file
  std::span<const NamedToken> tokens;
  const char *filler, *bos, *eos;  ///< filler: the name of those special tokens that have none of their own, with a number
  int first_number;                ///< of the first filler
  std::int64_t special;            ///< ids behind the ranks
  const char* classes;             ///< of tokenizer_config.json, separated by blanks
};

constexpr Row rows[] = {
    {"r50k", gpt2, false, 50256, gpt2_tokens, nullptr, nullptr, "<|endoftext|>", 0, 1, ""},
    {"p50k", gpt2, false, 50281, p50k_tokens, nullptr, nullptr, "<|endoftext|>", 0, 0, ""},
    {"cl100k", cl100k, false, 100256, cl100k_tokens, nullptr, nullptr, "<|endoftext|>", 0, 21, ""},
    {"o200k", o200k, false, 199998, o200k_tokens, nullptr, nullptr, "<|endoftext|>", 0, 21, ""},
    {"llama3", cl100k, false, 128000, llama3_tokens, "<|reserved_special_token_{}|>", "<|begin_of_text|>", "<|end_of_text|>", 0, 256, "LlamaTokenizer"},
    {"qwen", one_digit, true, 151643, qwen_tokens, "<|extra_{}|>", nullptr, "<|endoftext|>", 0, 208, "QWenTokenizer Qwen2Tokenizer"},
};

/// The classes of vocab.json with merges.txt, and how they cut; the others are refused.
struct PairRow {
  const char* classes;
  const char* expression;
  bool nfc;
};
constexpr PairRow pair_rows[] = {
    {"GPT2Tokenizer RobertaTokenizer BartTokenizer LEDTokenizer LongformerTokenizer WhisperTokenizer OPTTokenizer CodeGenTokenizer "
     "BlenderbotTokenizer PhobertTokenizer PreTrainedTokenizer PreTrainedTokenizerFast TokenizersBackend",
     gpt2, false},
    {"GPTNeoXTokenizer", gpt2, true},
    {"Qwen2Tokenizer Qwen3Tokenizer", one_digit, true},
};

bool lists(const char* classes, const std::string& one) {
  const std::vector<std::string> all = split(classes, ' ');
  return !one.empty() && std::find(all.begin(), all.end(), one) != all.end();
}

void set_words(ordered_json& file, const char* expression, bool nfc, bool prefix_space) {
  file["normalizer"] = nfc ? ordered_json::object({{"type", "NFC"}}) : ordered_json();
  const bool own = *expression != 0;
  const ordered_json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", !own}};
  file["pre_tokenizer"] = bytes;
  if (!own) return;
  const ordered_json cut = {{"type", "Split"}, {"pattern", ordered_json::object({{"Regex", expression}})}, {"behavior", "Isolated"}, {"invert", false}};
  file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({cut, bytes})}};
}

/// The tokens of a tiktoken file, by rank.
std::vector<std::string> read_ranks(const std::string& bytes, const std::string& path) {
  std::vector<std::string> tokens;
  std::size_t line = 1;
  for (std::size_t begin = 0; begin < bytes.size(); ++line) {
    const std::size_t end = std::min(bytes.find('\n', begin), bytes.size());
    const std::string_view text = std::string_view(bytes).substr(begin, end - begin);
    begin = end + 1;
    if (trim(text).empty()) continue;
    const std::size_t blank = text.find(' ');
    const std::string token = blank == std::string_view::npos ? "" : from_base64(text.substr(0, blank));
    std::int64_t rank = -1;
    if (blank != std::string_view::npos) std::from_chars(text.data() + blank + 1, text.data() + text.size(), rank);
    require(!token.empty() && rank >= 0 && rank < (1 << 24), "{}, line {}: not a token in base64 and its rank: is the file complete?", path, line);
    if (std::ssize(tokens) <= rank) tokens.resize(static_cast<std::size_t>(rank) + 1);
    require(tokens[static_cast<std::size_t>(rank)].empty(), "{}, line {}: the rank {} is given twice", path, line, rank);
    tokens[static_cast<std::size_t>(rank)] = token;
  }
  return tokens;
}

/// Every way to make a token of two others, in the order of its rank: tiktoken merges the pair whose result comes first.
ordered_json merges_of(const std::vector<std::string>& tokens) {
  std::unordered_map<std::string_view, std::int32_t> ids;
  for (std::size_t id = 0; id < tokens.size(); ++id)
    if (!tokens[id].empty()) ids.emplace(tokens[id], static_cast<std::int32_t>(id));
  std::vector<std::string> names(tokens.size());
  for (std::size_t id = 0; id < tokens.size(); ++id) names[id] = bytes_to_alphabet(tokens[id]);
  ordered_json merges = ordered_json::array();
  for (const std::string_view token : tokens) {
    std::vector<std::pair<std::int32_t, std::int32_t>> parts;
    for (std::size_t at = 1; at < token.size(); ++at) {
      const auto left = ids.find(token.substr(0, at)), right = ids.find(token.substr(at));
      if (left != ids.end() && right != ids.end()) parts.emplace_back(left->second, right->second);
    }
    std::sort(parts.begin(), parts.end());
    for (const auto& [left, right] : parts) merges.push_back({names[static_cast<std::size_t>(left)], names[static_cast<std::size_t>(right)]});
  }
  return merges;
}

const Row& row_of(const std::string& path, const std::string& pattern, const ModelFiles& files, std::int64_t ranks) {
  const std::string name = std::filesystem::path(path).filename().string();
  for (const Row& row : rows)
    if (pattern.empty() ? lists(row.classes, files.tokenizer_class) : pattern == row.name) return row;
  require(pattern.empty(), "there is no pattern '{}' for a tiktoken file; it is one of {}", pattern, tiktoken_patterns());
  for (const Row& row : rows)
    if (name.find(row.name) != std::string::npos) return row;
  for (const Row& row : rows)
    if (ranks == row.ranks) return row;
  fail("{} is a tiktoken file of {} tokens, and nothing says how its texts are cut into words: name one with --tokenizer-pattern {}", path,
       ranks, tiktoken_patterns());
}

std::vector<AddedTokenEntry> special_tokens(const Row& row, std::int64_t ranks, const ModelFiles& files) {
  std::vector<AddedTokenEntry> tokens;
  const auto add = [&](std::int64_t id, const std::string& text) {
    AddedTokenEntry token;
    token.id = static_cast<std::int32_t>(id);
    token.content = text;
    tokens.push_back(token);
  };
  int number = row.first_number;
  const auto named = [&](std::int64_t id) {
    return std::find_if(row.tokens.begin(), row.tokens.end(), [&](const NamedToken& one) { return ranks + one.behind == id; });
  };
  for (std::int64_t id = ranks; id < ranks + row.special && row.filler != nullptr; ++id)
    if (named(id) == row.tokens.end()) add(id, fmt::format(fmt::runtime(row.filler), number++));
  for (const NamedToken& token : row.tokens) add(ranks + token.behind, token.text);
  std::erase_if(tokens, [&](const AddedTokenEntry& token) {  // what the folder names goes before
    return std::any_of(files.added_tokens.begin(), files.added_tokens.end(),
                       [&](const AddedTokenEntry& own) { return own.id == token.id || own.content == token.content; });
  });
  tokens.insert(tokens.end(), files.added_tokens.begin(), files.added_tokens.end());
  return tokens;
}

}  // namespace

std::string_view qwen_expression() { return one_digit; }

std::string tiktoken_patterns() {
  std::vector<std::string> names;
  for (const Row& row : rows) names.push_back(row.name);
  return join(names, ", ");
}

std::unique_ptr<Tokenizer> with_class_rules(std::unique_ptr<Tokenizer> pair, const ModelFiles& files, const std::string& name) {
  const PairRow* row = &pair_rows[0];
  if (!files.tokenizer_class.empty()) {
    row = std::find_if(std::begin(pair_rows), std::end(pair_rows), [&](const PairRow& one) { return lists(one.classes, files.tokenizer_class); });
    require(row != std::end(pair_rows),
            "{} belongs to a {} (tokenizer_class of tokenizer_config.json), whose way to cut texts into words is not known: save it as "
            "tokenizer.json, as AutoTokenizer.from_pretrained(...).save_pretrained(...) does",
            name, files.tokenizer_class);
  }
  const bool prefix_space = files.add_prefix_space.value_or(false);
  if (*row->expression == 0 && !row->nfc && !prefix_space && files.added_tokens.empty()) return pair;
  ordered_json file = ordered_json::parse(pair->file_bytes());
  set_words(file, row->expression, row->nfc, prefix_space);
  add_tokens(file, files.added_tokens, name);
  return parse_tokenizer_json(file.dump(1) + "\n", name);
}

bool is_tiktoken(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, std::min(bytes.find('\n'), bytes.size()));
  const std::size_t blank = line.find(' ');
  if (blank == std::string_view::npos || blank == 0 || blank % 4 != 0) return false;
  const std::string_view rank = line.substr(blank + 1, line.ends_with('\r') ? line.size() - blank - 2 : line.size());
  return !from_base64(line.substr(0, blank)).empty() && !rank.empty() && rank.find_first_not_of("0123456789") == std::string_view::npos;
}

std::unique_ptr<Tokenizer> parse_tiktoken(const std::string& bytes, const std::string& path, const std::string& pattern, const ModelFiles& files) {
  const std::vector<std::string> tokens = read_ranks(bytes, path);
  const auto ranks = std::ssize(tokens);
  const Row& row = row_of(path, pattern, files, ranks);
  ordered_json file = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", ordered_json::array()}};
  set_words(file, row.expression, row.nfc, files.add_prefix_space.value_or(false));
  file["post_processor"] = nullptr;
  file["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  ordered_json& bpe = file["model"];
  bpe = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"continuing_subword_prefix", nullptr},
         {"end_of_word_suffix", nullptr}, {"fuse_unk", false}, {"byte_fallback", false}, {"ignore_merges", true}};
  bpe["vocab"] = ordered_json::object();
  auto& entries = bpe["vocab"].get_ref<ordered_json::object_t&>();  // filled directly: inserting by key would search the whole list
  for (std::size_t id = 0; id < tokens.size(); ++id)
    if (!tokens[id].empty()) entries.emplace_back(bytes_to_alphabet(tokens[id]), id);
  bpe["merges"] = merges_of(tokens);
  add_tokens(file, special_tokens(row, ranks, files), path);
  auto tokenizer = parse_tokenizer_json(file.dump() + "\n", path);
  SpecialIds ids = tokenizer->special_ids();
  if (row.bos != nullptr) ids.bos = tokenizer->id_of(row.bos);
  ids.eos = tokenizer->id_of(row.eos);
  return with_special_ids(std::move(tokenizer), ids);
}

}  // namespace collimate
