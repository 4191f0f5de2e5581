#include <nlohmann/json.hpp>

#include "collimate/data/tokenizer.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/tokenizer_helpers.hpp"

namespace collimate {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// GPT-2's pair of files with one merge and an end-of-text token.
std::string small_vocab() {
  json vocabulary;
  int id = 0;
  for (const unsigned char byte : alphabet_order()) vocabulary[bytes_to_alphabet(std::string(1, static_cast<char>(byte)))] = id++;
  vocabulary["he"] = id++;
  vocabulary["<|endoftext|>"] = id++;
  return vocabulary.dump();
}
const char* const small_merges = "#version: 0.2\nh e\n";

TEST(TokenizerFiles, PairsAreFoundByTheirNames) {
  const std::vector<std::pair<std::string, std::string>> names = {{"vocab.json", "merges.txt"},
                                                                  {"encoder.json", "vocab.bpe"},
                                                                  {"gpt2_encoder.json", "gpt2_vocab.bpe"},
                                                                  {"my-vocab.json", "my-merges.txt"}};
  for (const auto& [vocab, merges] : names) {
    const TokenizerFolder folder;
    const std::string vocab_file = folder.write(vocab, small_vocab()), merges_file = folder.write(merges, small_merges);
    for (const std::string& path : {folder.path(), vocab_file, merges_file}) {
      const auto tokenizer = load_tokenizer(path);
      EXPECT_EQ(tokenizer->encode("he"), Ids{256}) << path;
      EXPECT_EQ(tokenizer->eos(), 257) << path;
      EXPECT_TRUE(tokenizer->is_special(257));
    }
  }
}

TEST(TokenizerFiles, MergesMayHaveWindowsLineEndsAndHashes) {
  const TokenizerFolder folder;
  json vocabulary = json::parse(small_vocab());
  vocabulary["##"] = 258;
  folder.write("vocab.json", vocabulary.dump());
  folder.write("merges.txt", "h e\r\n# #\r\n");
  EXPECT_EQ(load_tokenizer(folder.path())->encode("he##"), (Ids{256, 258}));
}

TEST(TokenizerFiles, AByteOrderMarkIsNoPartOfTheFirstMerge) {
  for (const char* merges : {"\xEF\xBB\xBF#version: 0.2\nh e\n", "\xEF\xBB\xBFh e\n"}) {
    const TokenizerFolder folder;
    folder.write("vocab.json", "\xEF\xBB\xBF" + small_vocab());
    folder.write("merges.txt", merges);
    EXPECT_EQ(load_tokenizer(folder.path())->encode("he"), (Ids{256}));
  }
}

TEST(TokenizerFiles, SpecialIdsComeFromTheFilesBeside) {
  const TokenizerFolder folder;
  folder.write("vocab.json", small_vocab());
  folder.write("merges.txt", small_merges);
  folder.write("added_tokens.json", R"({"<pad>": 258, "<s>": 259})");
  folder.write("config.json", R"({"bos_token_id": 259, "eos_token_id": [256, 3], "pad_token_id": -1})");
  auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->special_ids(), (SpecialIds{259, 256, std::nullopt, std::nullopt}));
  EXPECT_EQ(tokenizer->vocabulary(), 260);
  folder.write("special_tokens_map.json", R"({"eos_token": {"content": "<s>", "lstrip": false}, "pad_token": "<pad>"})");
  EXPECT_EQ(load_tokenizer(folder.path())->special_ids(), (SpecialIds{259, 259, 258, std::nullopt}));
  folder.write("tokenizer_config.json", R"({"eos_token": "<|endoftext|>", "bos_token": null, "unk_token": "<|endoftext|>"})");
  tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->special_ids(), (SpecialIds{std::nullopt, 257, 258, 257}));

  EXPECT_TRUE(denies_bos(folder.path()) && denies_bos(folder.path() + "/vocab.json"));
  folder.write("special_tokens_map.json", R"({"bos_token": "<s>"})");
  EXPECT_EQ(load_tokenizer(folder.path())->bos(), 259);
  EXPECT_FALSE(denies_bos(folder.path()));
  folder.remove("special_tokens_map.json");
  folder.write("tokenizer_config.json", "{}");
  EXPECT_FALSE(denies_bos(folder.path()));

  const TokenizerFolder saved;
  save_tokenizer(*tokenizer, saved.path());
  EXPECT_EQ(load_tokenizer(saved.path())->special_ids(), tokenizer->special_ids());
  EXPECT_EQ(load_tokenizer(saved.path())->fingerprint(), tokenizer->fingerprint());
}

TEST(TokenizerFiles, BadSideFilesAreNamed) {
  const TokenizerFolder folder;
  folder.write("vocab.json", small_vocab());
  folder.write("merges.txt", small_merges);
  const auto error_with = [&](const std::string& name, const std::string& content) {
    folder.write(name, content);
    const std::string error = refusal([&] { load_tokenizer(folder.path()); });
    folder.remove(name);
    EXPECT_THAT(error, HasSubstr(name));
    return error;
  };
  EXPECT_THAT(error_with("tokenizer_config.json", "{\"eos"), HasSubstr("is not a JSON object"));
  EXPECT_THAT(error_with("tokenizer_config.json", R"({"eos_token": "<none>"})"),
              HasSubstr("the eos_token \"<none>\" is not in the vocabulary of the tokenizer '" + folder.path() + "/vocab.json'; one of"));
  EXPECT_THAT(error_with("special_tokens_map.json", R"({"bos_token": 7})"), HasSubstr("\"bos_token\" is neither text nor an object"));
  EXPECT_THAT(error_with("config.json", R"({"eos_token_id": 50256})"),
              HasSubstr("eos_token_id is 50256, not an id of the tokenizer '" + folder.path() + "/vocab.json'"));
  EXPECT_THAT(error_with("config.json", "[]"), HasSubstr("is not a JSON object"));
  EXPECT_THAT(error_with("added_tokens.json", R"({"<pad>": 3})"), HasSubstr("the added token '<pad>' has id 3"));
  EXPECT_THAT(error_with("added_tokens.json", "{"), HasSubstr("is not a JSON object"));
}

TEST(TokenizerFiles, BadPairsAreNamed) {
  const TokenizerFolder folder;
  const auto error_with = [&](const std::string& vocab, const std::string& merges) {
    folder.write("vocab.json", vocab);
    folder.write("merges.txt", merges);
    return refusal([&] { load_tokenizer(folder.path()); });
  };
  EXPECT_THAT(error_with(small_vocab().substr(0, 500), small_merges), HasSubstr("vocab.json is not valid JSON at byte"));
  EXPECT_THAT(error_with("[1, 2]", small_merges), HasSubstr("vocab.json: the vocabulary is not an object"));
  EXPECT_THAT(error_with("{}", small_merges), HasSubstr("vocab.json: the vocabulary is not an object"));
  EXPECT_THAT(error_with("{\"a\": \"b\"}", small_merges), HasSubstr("vocab.json: the id of 'a' is \"b\""));
  EXPECT_THAT(error_with("{\"a\": \"\xff\"}", small_merges), HasSubstr("vocab.json is not valid JSON"));
  EXPECT_THAT(error_with(small_vocab(), "#version: 0.2\nh e\nh zz\n"),
              HasSubstr("merges.txt, line 3: the merge 'h zz' needs the token 'zz'"));
  EXPECT_THAT(error_with(small_vocab(), "h\n"), HasSubstr("merges.txt, line 1: 'h' is not two tokens"));
  EXPECT_THAT(error_with(small_vocab(), "h e x\n"), HasSubstr("merges.txt, line 1"));
}

TEST(TokenizerFiles, WhatIsNotThereIsSaid) {
  const TokenizerFolder folder;
  const auto error_of = [](const std::string& path) { return refusal([&] { load_tokenizer(path); }); };
  EXPECT_THAT(error_of(folder.path()),
              HasSubstr(folder.path() + " holds no tokenizer. Looked for: tokenizer.json, vocab.json with merges.txt"));
  EXPECT_THAT(error_of(folder.path() + "/none"), HasSubstr("/none does not exist"));
  EXPECT_THAT(error_of("/dev/null"), HasSubstr("/dev/null is neither a file nor a folder"));
  EXPECT_THAT(error_of(folder.write("notes.txt", "hello")), HasSubstr("notes.txt is not a tokenizer file that is known"));
  EXPECT_THAT(error_of(folder.write("merges.txt", small_merges)), HasSubstr("or its partner is missing"));
  EXPECT_THAT(error_of(folder.write("tokenizer.json", "")), HasSubstr("tokenizer.json is not valid JSON"));
  EXPECT_THAT(error_of(folder.write("tokenizer.json", "{\"a\": 1}")), HasSubstr("it has no \"model\""));
  EXPECT_THAT(error_of(folder.write("tokenizer.model", "not a model")), HasSubstr("tokenizer.model: not a SentencePiece model"));
  EXPECT_THAT(error_of(folder.write("tokenizer.bin", "abc")), HasSubstr("tokenizer.bin: not a llama2.c tokenizer"));
}

TEST(TokenizerFiles, SeveralTokenizersInAFolderAreNotGuessedAt) {
  const TokenizerFolder folder;
  for (const char* prefix : {"a_", "b_"}) {
    folder.write(std::string(prefix) + "vocab.json", small_vocab());
    folder.write(std::string(prefix) + "merges.txt", small_merges);
  }
  EXPECT_THAT(refusal([&] { load_tokenizer(folder.path()); }), HasSubstr("several tokenizers (a_vocab.json, b_vocab.json)"));
  folder.write("vocab.json", small_vocab());
  folder.write("merges.txt", small_merges);
  EXPECT_EQ(load_tokenizer(folder.path())->vocabulary(), 258);
}

}  // namespace
}  // namespace collimate
