#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "collimate/data/model_files.hpp"
#include "data/byte_level_files.hpp"
#include "data/json_tokens.hpp"
#include "data/sentencepiece_file.hpp"
#include "data/tokenizer_helpers.hpp"

namespace collimate {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// 0-2 <unk>, <s>, </s>; 3-258 the bytes; then a blank, letters and what they make. With byte fallback, as LLaMA's.
std::string small_model() {
  std::vector<Piece> pieces = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}};
  for (int b = 0; b < 256; ++b) pieces.push_back({fmt::format("<0x{:02X}>", b), 0, 6});
  for (const Piece& piece : std::vector<Piece>{{"▁", -10}, {"a", -11}, {"b", -12}, {"ab", -1}, {"▁ab", -2}, {"▁a", -3}, {"▁▁", -4}})
    pieces.push_back(piece);
  return sentencepiece_file(pieces, false, true);
}
constexpr std::int32_t blank = 259, b = 261, ab = 262, blank_ab = 263, blank_a = 264, a = 260;

/// The vocabulary of the 256 bytes, as vocab.json spells them.
json bytes_vocabulary() {
  SpecialNames none;
  none.all.clear();
  none.eos.clear();
  return json::parse(byte_tokenizer(none)->file_bytes())["model"]["vocab"];
}

// Ids of sentencepiece 0.2.3 for the parts, put together as transformers' legacy says.
TEST(FolderTokenizers, LegacySaysWhetherABlankStandsBehindASpecialToken) {
  const TokenizerFolder folder;
  folder.write("tokenizer.model", small_model());
  const std::string text = "ab</s>ab</s> a b</s>a";
  for (const char* config : {"{}", R"({"legacy": true})"}) {
    folder.write("tokenizer_config.json", config);
    const auto tokenizer = load_tokenizer(folder.path());
    EXPECT_EQ(tokenizer->kind(), "sentencepiece");
    EXPECT_EQ(encode_special(*tokenizer, text), (Ids{blank_ab, 2, blank_ab, 2, blank, blank_a, blank, b, 2, blank_a})) << config;
  }
  folder.write("tokenizer_config.json", R"({"legacy": false})");
  auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(encode_special(*tokenizer, text), (Ids{blank_ab, 2, ab, 2, blank_a, blank, b, 2, a}));
  EXPECT_EQ(tokenizer->special_ids(), (SpecialIds{1, 2, std::nullopt, 0}));
  EXPECT_EQ(deserialize_tokenizer(tokenizer->serialize())->encode("a"), Ids{blank_a});
  const Ids prompt = {blank_ab, 2};
  EXPECT_EQ(tokenizer->encode_after(prompt, "ab"), Ids{ab});
  folder.write("tokenizer_config.json", R"({"add_prefix_space": false})");
  tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(encode_special(*tokenizer, text), (Ids{ab, 2, ab, 2, blank_a, blank, b, 2, a}));
}

TEST(FolderTokenizers, ASentencePieceModelGetsTheTokensThatItsFolderAdds) {
  const TokenizerFolder folder;
  folder.write("tokenizer.model", small_model());
  folder.write("added_tokens.json", R"({"<|im_end|>": 267, "<|im_start|>": 266})");
  folder.write("tokenizer_config.json",
               R"({"eos_token": "<|im_end|>", "added_tokens_decoder": {"0": {"content": "<unk>", "special": true}, "2": {"content": "</s>", "special": true},
                   "270": {"content": "<tool>", "special": false}}})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->vocabulary(), 271);
  EXPECT_EQ(tokenizer->eos(), 267);
  EXPECT_TRUE(tokenizer->is_special(266));
  EXPECT_EQ(encode_special(*tokenizer, "<|im_start|>ab<|im_end|>"), (Ids{266, blank_ab, 267}));
  EXPECT_EQ(tokenizer->encode("<tool>")[0], 270);
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"261": {"content": "<x>", "special": true}}})");
  folder.remove("added_tokens.json");
  EXPECT_EQ(encode_special(*load_tokenizer(folder.path()), "a<x>"), (Ids{blank_a, 261}));
}

TEST(FolderTokenizers, AnExportHasATokenizerJsonThatGivesTheSameIds) {
  const TokenizerFolder folder, out;
  folder.write("tokenizer.model", small_model());
  const auto tokenizer = load_tokenizer(folder.path());
  save_tokenizer(*tokenizer, out.path(), true);
  const json config = json::parse(read_file(out.path() + "/tokenizer_config.json"));
  EXPECT_EQ(config["legacy"], true);
  EXPECT_EQ(config["add_bos_token"], true);
  EXPECT_EQ(config["tokenizer_class"], "PreTrainedTokenizerFast");
  const json file = json::parse(read_file(out.path() + "/tokenizer.json"));
  EXPECT_EQ(file["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
  EXPECT_EQ(file["post_processor"]["special_tokens"]["<s>"]["ids"], json::array({1}));
  EXPECT_EQ(load_tokenizer(out.path())->fingerprint(), tokenizer->fingerprint());  // its own file is the .model
  const auto other = load_tokenizer(out.path() + "/tokenizer.json");
  for (const std::string text : {"ab", " ab", "  a  b", "a\nb é", "   ", "</s>ab</s> a b</s>a", ""})
    EXPECT_EQ(encode_special(*other, text), encode_special(*tokenizer, text)) << text;
  EXPECT_TRUE(adds_bos(*tokenizer, read_model_files(out.path())));
  save_tokenizer(*tokenizer, out.path(), false);
  EXPECT_TRUE(json::parse(read_file(out.path() + "/tokenizer.json"))["post_processor"].is_null());
  EXPECT_FALSE(adds_bos(*tokenizer, read_model_files(out.path())));
}

TEST(FolderTokenizers, ATokenizerJsonThatTransformersReadsOtherwiseIsTold) {
  const TokenizerFolder folder;
  const json qwen2 = json::parse(R"json({"normalizer": {"type": "NFC"},
    "model": {"type": "BPE", "ignore_merges": false, "vocab": {}, "merges": []},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]}})json");
  const auto told = [&](const char* family, const json& change) {
    json file = qwen2;
    file.merge_patch(change);
    folder.write("config.json", json{{"model_type", family}}.dump());
    folder.write("tokenizer.json", file.dump());
    return class_told(folder.path());
  };
  EXPECT_EQ(told("qwen2", json::object()), "");
  const json words = qwen2["pre_tokenizer"]["pretokenizers"];
  json other_words = words, whole = words, prefix = words;
  other_words[0]["pattern"]["Regex"] = "\\s+";
  whole[1]["use_regex"] = true;
  prefix[1]["add_prefix_space"] = true;
  for (const json& change : {json{{"normalizer", nullptr}}, json{{"normalizer", {{"type", "NFKC"}}}},
                             json{{"model", {{"ignore_merges", true}}}}, json{{"model", {{"type", "WordLevel"}}}}, json{{"pre_tokenizer", nullptr}}, json{{"pre_tokenizer", words[1]}},
                             json{{"pre_tokenizer", {{"pretokenizers", other_words}}}}, json{{"pre_tokenizer", {{"pretokenizers", whole}}}},
                             json{{"pre_tokenizer", {{"pretokenizers", prefix}}}}}) {
    EXPECT_THAT(told("qwen2", change), HasSubstr("Qwen2Tokenizer")) << change;
    EXPECT_EQ(told("llama", change), "");
  }
  folder.remove("tokenizer.json");
  EXPECT_EQ(class_told(folder.path()), "");
}

TEST(FolderTokenizers, BosComesFromTheConfigurationThePostProcessorOrTheKind) {
  const TokenizerFolder folder;
  folder.write("tokenizer.model", small_model());
  const auto adds = [&](const char* config) {
    folder.write("tokenizer_config.json", config);
    return adds_bos(*load_tokenizer(folder.path()), read_model_files(folder.path()));
  };
  EXPECT_TRUE(adds("{}"));
  EXPECT_TRUE(adds(R"({"bos_token": "", "eos_token": "", "unk_token": ""})"));
  EXPECT_FALSE(adds(R"({"add_bos_token": false})"));
  EXPECT_TRUE(adds(R"({"add_eos_token": false})"));
  EXPECT_TRUE(adds(R"({"add_bos_token": true, "add_eos_token": true})"));
}

/// 256 bytes in their own order, then "he", "hel", "lo", "12", "34".
std::string small_ranks() {
  std::string file;
  int rank = 0;
  for (int b = 0; b < 256; ++b) file += to_base64(std::string(1, static_cast<char>(b))) + fmt::format(" {}\n", rank++);
  for (const char* token : {"he", "hel", "lo", "12", "34", "1234"}) file += to_base64(token) + fmt::format(" {}\n", rank++);
  return file;
}

// tiktoken 0.14 with these ranks and the expressions of cl100k_base and r50k_base.
TEST(FolderTokenizers, ATiktokenFileIsCutAsItsPatternSays) {
  const TokenizerFolder folder;
  const std::string path = folder.write("my.tiktoken", small_ranks());
  EXPECT_TRUE(is_tiktoken(small_ranks()));
  EXPECT_THAT(refusal([&] { load_tokenizer(path); }),
              HasSubstr("my.tiktoken is a tiktoken file of 262 tokens, and nothing says how its texts are cut into words: name one with "
                        "--tokenizer-pattern r50k, p50k, cl100k, o200k, llama3, qwen"));
  const auto cl100k = load_tokenizer(path, "cl100k"), r50k = load_tokenizer(path, "r50k"), qwen = load_tokenizer(path, "qwen");
  EXPECT_EQ(cl100k->encode("hello"), (Ids{257, 258}));
  EXPECT_EQ(cl100k->encode("1234"), (Ids{259, '3', '4'}));  // three digits at most
  EXPECT_EQ(r50k->encode("1234"), Ids{261});
  EXPECT_EQ(qwen->encode("1234"), (Ids{'1', '2', '3', '4'}));
  EXPECT_EQ(qwen->id_of("<|im_end|>"), 264);
  EXPECT_EQ(qwen->vocabulary(), 262 + 208);
  EXPECT_EQ(r50k->eos(), 262);
  EXPECT_EQ(cl100k->eos(), 263);
  EXPECT_EQ(cl100k->vocabulary(), 283);
  const auto llama3 = load_tokenizer(folder.path(), "llama3");
  EXPECT_EQ(llama3->bos(), 262);
  EXPECT_EQ(llama3->id_of("<|eot_id|>"), 271);
  EXPECT_EQ(llama3->id_of("<|reserved_special_token_0|>"), 264);
  EXPECT_EQ(llama3->vocabulary(), 262 + 256);
  EXPECT_EQ(load_tokenizer(folder.write("cl100k_base.tiktoken", small_ranks()))->fingerprint(), cl100k->fingerprint());
  EXPECT_THAT(refusal([&] { load_tokenizer(folder.write("cut.tiktoken", small_ranks().substr(0, 497) + "\n")); }), HasSubstr("not a token in base64"));
}

TEST(FolderTokenizers, ThePairsClassDecidesTheExpression) {
  const TokenizerFolder folder;
  json vocabulary = bytes_vocabulary();
  vocabulary["12"] = 256;
  folder.write("vocab.json", vocabulary.dump());
  folder.write("merges.txt", "#version: 0.2\n1 2\n");
  const auto load = [&](const char* config) {
    folder.write("tokenizer_config.json", config);
    return load_tokenizer(folder.path());
  };
  EXPECT_EQ(load("{}")->encode("12"), Ids{256});
  EXPECT_EQ(load(R"({"tokenizer_class": "GPT2Tokenizer"})")->encode("12"), Ids{256});
  EXPECT_EQ(load(R"({"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": true})")->encode("12"), (Ids{' ', 256}));
  const auto added = load(R"({"added_tokens_decoder": {"257": {"content": "<|im_end|>", "special": true}}, "eos_token": "<|im_end|>"})");
  EXPECT_EQ(encode_special(*added, "12<|im_end|>"), (Ids{256, 257}));
  EXPECT_EQ(added->eos(), 257);
  const auto qwen = load(R"({"tokenizer_class": "Qwen2Tokenizer"})");
  EXPECT_EQ(qwen->encode("12"), (Ids{'1', '2'}));
  EXPECT_EQ(qwen->encode("e\u0301"), qwen->encode("\u00e9"));  // NFC
  EXPECT_THAT(refusal([&] { load(R"({"tokenizer_class": "CLIPTokenizer"})"); }), HasSubstr("belongs to a CLIPTokenizer"));
}

/// A tokenizer.json with the bytes as its vocabulary, or small_model()'s.
json whole_file(bool byte_level, bool blank) {
  if (byte_level) {
    json file = json::parse(byte_tokenizer()->file_bytes());
    file["pre_tokenizer"]["add_prefix_space"] = blank;
    return file;
  }
  const TokenizerFolder folder;
  folder.write("tokenizer.model", small_model());
  folder.write("tokenizer_config.json", blank ? "{}" : R"({"add_prefix_space": false})");
  save_tokenizer(*load_tokenizer(folder.path()), folder.path() + "/out");
  return json::parse(read_file(folder.path() + "/out/tokenizer.json"));
}

// What transformers 5.24 does with add_prefix_space of tokenizer_config.json beside a tokenizer.json that says otherwise.
TEST(FolderTokenizers, AddPrefixSpaceChangesATokenizerJsonWhereTheClassHeedsIt) {
  struct Row {
    const char *tokenizer_class, *model_type;
    bool of_bytes, of_pieces;  // heeded
  };
  for (const Row& row : {Row{"GPT2Tokenizer", "gpt2", true, false}, Row{"GPT2TokenizerFast", "llama", true, false},
                         Row{"Qwen2Tokenizer", "qwen2", true, false}, Row{"GPTNeoXTokenizerFast", "llama", true, false},
                         Row{"Qwen2Tokenizer", "mistral", false, false}, Row{"PreTrainedTokenizerFast", "llama", false, false},
                         Row{"BloomTokenizerFast", "llama", false, false}, Row{"LlamaTokenizerFast", "llama", false, true},
                         Row{"LlamaTokenizer", "mistral", false, false}})
    for (const bool bytes : {true, false})
      for (const bool in_file : {true, false}) {
        const TokenizerFolder folder;
        folder.write("tokenizer.json", whole_file(bytes, in_file).dump());
        folder.write("config.json", json{{"model_type", row.model_type}}.dump());
        folder.write("tokenizer_config.json", json{{"tokenizer_class", row.tokenizer_class}, {"add_prefix_space", !in_file}}.dump());
        const auto tokenizer = load_tokenizer(folder.path());
        const bool heeded = bytes ? row.of_bytes : row.of_pieces, blank_first = heeded ? !in_file : in_file;
        const std::string where = fmt::format("{} {} {} {}", row.tokenizer_class, row.model_type, bytes, in_file);
        EXPECT_EQ(tokenizer->encode("ab"), bytes ? (blank_first ? Ids{' ', 'a', 'b'} : Ids{'a', 'b'}) : Ids{blank_first ? blank_ab : ab}) << where;
        EXPECT_EQ(tokenizer->decode(tokenizer->encode("ab")), bytes && blank_first ? " ab" : "ab") << where;
        const bool named = std::ranges::any_of(tokenizer->notes(), [](const auto& note) { return note.find("add_prefix_space") != std::string::npos; });
        EXPECT_EQ(named, !heeded) << where;
      }
}

TEST(FolderTokenizers, LegacyChangesATokenizerJsonOfLlamasClass) {
  const TokenizerFolder folder;
  folder.write("tokenizer.json", whole_file(false, true).dump());
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "legacy": true})");
  EXPECT_EQ(encode_special(*load_tokenizer(folder.path()), "ab</s>ab"), (Ids{blank_ab, 2, blank_ab}));
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "legacy": false})");
  EXPECT_EQ(encode_special(*load_tokenizer(folder.path()), "ab</s>ab"), (Ids{blank_ab, 2, ab}));
  folder.write("tokenizer.json", whole_file(false, false).dump());
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "add_prefix_space": true})");
  EXPECT_EQ(encode_special(*load_tokenizer(folder.path()), "ab</s>ab"), (Ids{blank_ab, 2, ab})) << "absent, it is false";
}

// What transformers 5.24 does where the folder says nothing of blanks, or its class composes characters: the class decides, and a line says so
// where the file would decide otherwise.
TEST(FolderTokenizers, AClassDecidesWhereItsFolderIsSilent) {
  struct Read {
    Ids ids;  // of "ab</s>ab", or of an e with an accent apart where the vocabulary is of bytes
    std::string notes;
  };
  const auto read = [](bool bytes, bool blank, const char* name, const char* model_type = "llama") {
    const TokenizerFolder folder;
    folder.write("tokenizer.json", whole_file(bytes, blank).dump());
    folder.write("config.json", json{{"model_type", model_type}}.dump());
    folder.write("tokenizer_config.json", json{{"tokenizer_class", name}}.dump());
    const auto tokenizer = load_tokenizer(folder.path());
    return Read{bytes ? tokenizer->encode("e\u0301") : encode_special(*tokenizer, "ab</s>ab"), fmt::format("{}", fmt::join(tokenizer->notes(), "\n"))};
  };
  const Ids apart = {'e', 0xcc, 0x81}, composed = {0xc3, 0xa9}, blank_apart = {' ', 'e', 0xcc, 0x81};
  EXPECT_EQ(read(true, true, "GPT2Tokenizer").ids, apart);
  EXPECT_THAT(read(true, true, "GPT2Tokenizer").notes, HasSubstr("A GPT2Tokenizer then puts no blank before a text"));
  EXPECT_EQ(read(true, false, "GPT2Tokenizer").notes, "");
  EXPECT_EQ(read(true, true, "PreTrainedTokenizerFast").ids, blank_apart);
  EXPECT_EQ(read(true, false, "Qwen2TokenizerFast").ids, composed);
  EXPECT_THAT(read(true, false, "Qwen2TokenizerFast").notes, HasSubstr("does not bring texts into NFC. A Qwen2Tokenizer does"));
  EXPECT_EQ(read(true, false, "Qwen2TokenizerFast", "mistral").ids, apart);
  EXPECT_EQ(read(false, true, "LlamaTokenizer").ids, (Ids{blank_ab, 2, ab}));
  EXPECT_THAT(read(false, true, "LlamaTokenizer").notes, HasSubstr("a blank before the first word of a text only"));
  EXPECT_EQ(read(false, false, "LlamaTokenizer").ids, (Ids{blank_ab, 2, ab}));
  EXPECT_EQ(read(false, true, "LlamaTokenizer", "mistral").ids, (Ids{blank_ab, 2, blank_ab}));
  EXPECT_EQ(read(false, true, "PreTrainedTokenizerFast").ids, (Ids{blank_ab, 2, blank_ab}));
  EXPECT_EQ(read(false, true, "PreTrainedTokenizerFast").notes, "");
  const TokenizerFolder pieces;
  pieces.write("tokenizer.model", small_model());
  pieces.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer"})");
  EXPECT_THAT(load_tokenizer(pieces.path())->notes(), testing::ElementsAre(HasSubstr("does not say \"legacy\"")));
  EXPECT_EQ(encode_special(*load_tokenizer(pieces.path()), "ab</s>ab"), (Ids{blank_ab, 2, ab}));
  pieces.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "legacy": true})");
  EXPECT_TRUE(load_tokenizer(pieces.path())->notes().empty());
  EXPECT_EQ(encode_special(*load_tokenizer(pieces.path()), "ab</s>ab"), (Ids{blank_ab, 2, blank_ab}));
}

// As AutoTokenizer of transformers 5.24 does: known texts keep their ids, new ones get the next, and flags are the folder's.
TEST(FolderTokenizers, TokensBesideATokenizerJsonAreAdded) {
  const TokenizerFolder folder;
  folder.write("tokenizer.json", whole_file(true, false).dump());
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"256": {"content": "<|endoftext|>", "lstrip": true, "special": true},
    "300": {"content": "<new>", "special": true}}, "additional_special_tokens": ["<more>", "a"]})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->vocabulary(), 259);
  EXPECT_EQ(encode_special(*tokenizer, "b <|endoftext|>a<more><new>"), (Ids{'b', 256, 'a', 258, 257}));
  EXPECT_TRUE(tokenizer->is_special('a'));
  json file = whole_file(true, false);
  file["added_tokens"].push_back({{"id", 257}, {"content", "<own>"}, {"special", true}});  // the last id is not the vocabulary's
  folder.write("tokenizer.json", file.dump());
  folder.write("tokenizer_config.json", R"({"additional_special_tokens": ["<more>"]})");
  EXPECT_EQ(encode_special(*load_tokenizer(folder.path()), "<own><more>"), (Ids{257, 258}));
}

TEST(FolderTokenizers, TheExpressionOfAnOldMistralIsMendedWhereItsFolderAsksForIt) {
  json file = whole_file(true, false);
  file["added_tokens"] = json::array();
  file["model"]["vocab"] = bytes_vocabulary();
  file["model"]["vocab"]["12"] = 256;
  file["model"]["merges"] = {"1 2"};
  for (int id = 257; id <= 100000; ++id) file["model"]["vocab"][fmt::format("{}{}", "unused", id)] = id;
  const TokenizerFolder folder;
  folder.write("tokenizer.json", file.dump());
  const auto load = [&](const char* config, const char* model) {
    folder.write("tokenizer_config.json", config);
    folder.write("config.json", model);
    return load_tokenizer(folder.path());
  };
  const char *asked = R"({"fix_mistral_regex": true})", *mistral = R"({"model_type": "mistral", "transformers_version": "4.50.0"})";
  EXPECT_EQ(load(asked, mistral)->encode("12"), (Ids{'1', '2'}));
  EXPECT_EQ(load("{}", mistral)->encode("12"), Ids{256});
  EXPECT_EQ(load(asked, R"({"model_type": "llama"})")->encode("12"), Ids{256});
  EXPECT_EQ(load(asked, R"({"model_type": "mistral", "transformers_version": "5.1.0"})")->encode("12"), Ids{256});
}

TEST(FolderTokenizers, FurtherSpecialTokensAreAddedToOtherFiles) {
  const TokenizerFolder folder;
  folder.write("tokenizer.model", small_model());
  folder.write("special_tokens_map.json", R"({"additional_special_tokens": ["<|end|>", "</s>"]})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(encode_special(*tokenizer, "ab<|end|>ab</s>"), (Ids{blank_ab, 266, blank_ab, 2}));
  folder.write("special_tokens_map.json", R"({"additional_special_tokens": ["b", "<|end|>"]})");  // a piece keeps its id
  EXPECT_EQ(encode_special(*load_tokenizer(folder.path()), "b<|end|>"), (Ids{b, 266}));
}

TEST(FolderTokenizers, OptAndRobertaEndWithTheirOwnTokenWhereNoFileNamesIt) {
  const TokenizerFolder folder;
  json vocabulary = bytes_vocabulary();
  vocabulary["12"] = 261;
  int id = 256;
  for (const char* name : {"<s>", "<pad>", "</s>", "<unk>", "<|endoftext|>"}) vocabulary[name] = id++;
  folder.write("vocab.json", vocabulary.dump());
  folder.write("merges.txt", "#version: 0.2\n1 2\n");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->eos(), 258);
  EXPECT_FALSE(adds_bos(*tokenizer, read_model_files(folder.path())));
}

}  // namespace
}  // namespace collimate
