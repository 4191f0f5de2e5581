#include <nlohmann/json.hpp>

#include "collimate/data/template.hpp"
#include "collimate/data/tokenizer.hpp"
#include "data/tokenizer_helpers.hpp"

namespace collimate {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// <unk> <s> </s>, the bytes as ids 3-258, and a few pieces from 259.
json small_file() {
  json vocabulary;
  int id = 0;
  for (const char* piece : {"<unk>", "<s>", "</s>"}) vocabulary[piece] = id++;
  for (int b = 0; b < 256; ++b) vocabulary[fmt::format("<0x{:02X}>", b)] = id++;
  for (const char* piece : {"▁", "a", "b", "ab", "▁ab", "ba", "é"}) vocabulary[piece] = id++;
  json file = json::parse(R"({
    "added_tokens": [{"id": 1, "content": "<s>", "special": true}, {"id": 2, "content": "</s>", "special": true},
                     {"id": 266, "content": "[tool]", "special": false, "normalized": false}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
      {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>", "merges": ["a b", "▁ ab", "b a"]}})");
  file["model"]["vocab"] = vocabulary;
  return file;
}

json with_metaspace(const std::string& scheme) {
  json file = small_file();
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", false}};
  return file;
}

std::unique_ptr<Tokenizer> load(const json& file) {
  const TokenizerFolder folder;
  return load_tokenizer(folder.write("tokenizer.json", file.dump()));
}

constexpr int space = 259, a = 260, b = 261, ab = 262, space_ab = 263, ba = 264, e_acute = 265, tool = 266;

TEST(BpeMetaspace, BehindTheBosOfAChatTemplateNoTextBegins) {
  const TokenizerFolder folder;
  folder.write("tokenizer.json", with_metaspace("first").dump());
  folder.write("tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": "</s>"})");
  const auto tokenizer = load_tokenizer(folder.path());
  Template rules;
  rules.prompt = "{prompt}";
  rules.human = rules.assistant = "";
  rules.chat.name = "custom";
  rules.chat.text_bos = true;
  Example example;
  example.prompt = "ab";
  const auto ids = [&] {
    LengthCounts counts;
    return TemplateEncoder(rules, *tokenizer).prompt_tokens(rules.prompt_text(example), counts);
  };
  EXPECT_EQ(ids(), (Ids{1, ab}));  // of "<s>ab"
  rules.special_tokens = true;
  EXPECT_EQ(ids(), (Ids{1, ab}));
  rules.human = "<s>";  // which it has already
  EXPECT_EQ(ids(), (Ids{1, ab}));
  example.complete = true;  // the post_processor's
  EXPECT_EQ(ids(), (Ids{1, space_ab}));
  example.complete = false;
  rules.chat = {};
  EXPECT_EQ(ids(), (Ids{1, space_ab}));
}

TEST(BpeMetaspace, PrefixesReplacesSpacesAndMerges) {
  const auto tokenizer = load(small_file());
  EXPECT_EQ(tokenizer->kind(), "metaspace");
  EXPECT_EQ(tokenizer->vocabulary(), 267);
  EXPECT_EQ(tokenizer->unknown(), 0);
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  EXPECT_EQ(tokenizer->encode("ab"), Ids{space_ab});
  EXPECT_EQ(tokenizer->encode(" ab"), (Ids{space, space_ab}));
  EXPECT_EQ(tokenizer->encode("bab"), (Ids{space, b, ab}));
  EXPECT_EQ(tokenizer->encode("baé"), (Ids{space, ba, e_acute}));
  EXPECT_EQ(tokenizer->encode("汉"), (Ids{space, 3 + 0xe6, 3 + 0xb1, 3 + 0x89}));
  EXPECT_EQ(tokenizer->encode("ab[tool]ab"), (Ids{space_ab, tool, space_ab}));
  EXPECT_EQ(encode_special(*tokenizer, "<s>ab"), (Ids{1, space_ab}));
  EXPECT_EQ(tokenizer->decode(Ids{1, space_ab, space_ab, 2}), "ab ab");
  EXPECT_EQ(tokenizer->decode(Ids{1, space_ab, 2}, true), "<s> ab</s>");
  EXPECT_EQ(tokenizer->piece(space_ab), "▁ab");
  EXPECT_EQ(tokenizer->id_of("▁ab"), space_ab);
}

TEST(BpeMetaspace, SchemesOfThePreTokenizer) {
  const auto always = load(with_metaspace("always")), first = load(with_metaspace("first")), never = load(with_metaspace("never"));
  EXPECT_EQ(always->encode("ab"), Ids{space_ab});
  EXPECT_EQ(always->encode(" ab"), Ids{space_ab});
  EXPECT_EQ(always->encode("ab[tool]ab"), (Ids{space_ab, tool, space_ab}));
  EXPECT_EQ(first->encode("ab[tool]ab"), (Ids{space_ab, tool, ab}));
  EXPECT_EQ(never->encode("ab ab"), (Ids{ab, space_ab}));
}

TEST(BpeMetaspace, ATextBehindAnotherGetsNoBlankOfItsOwn) {
  for (const json& file : {small_file(), with_metaspace("always"), with_metaspace("first"), with_metaspace("never")}) {
    const auto tokenizer = load(file);
    const Ids prompt = {1, space_ab};
    EXPECT_EQ(tokenizer->encode_after(prompt, "ab"), Ids{ab}) << file["pre_tokenizer"];
    EXPECT_EQ(tokenizer->encode_after(prompt, " ab"), Ids{space_ab});
    EXPECT_EQ(tokenizer->encode_after(prompt, "  ab"), (Ids{space, space_ab}));
    EXPECT_EQ(tokenizer->encode_after(Ids{1}, "ab"), tokenizer->encode("ab"));
    const Ids behind_special = encode_special(*tokenizer, "ab<s>ab");
    EXPECT_EQ(tokenizer->encode_after(Ids{space_ab, 1}, "ab"), Ids{behind_special.back()});
    EXPECT_EQ(tokenizer->decode_after(Ids{space_ab, 1}, Ids{behind_special.back()}), "ab");
    const Ids later = tokenizer->encode("ab[tool]ab");  // inside the text added tokens part it as ever
    EXPECT_EQ(tokenizer->encode_after(prompt, "ab[tool]ab"), (Ids{ab, tool, later.back()}));
    EXPECT_EQ(tokenizer->decode_after(prompt, Ids{space_ab, ab, 2}), " abab");
    EXPECT_EQ(tokenizer->decode_after(Ids{1}, Ids{space_ab, ab, 2}), tokenizer->decode(Ids{space_ab, ab}));
  }
}

TEST(BpeMetaspace, AnyBytesComeBack) {
  const auto tokenizer = load(small_file());
  std::mt19937 random(4);
  for (int i = 0; i < 300; ++i) {
    const std::string text = random_text(random, static_cast<int>(random() % 40));
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

TEST(BpeMetaspace, IsStoredAndExportedAsItWas) {
  const auto tokenizer = load(small_file());
  EXPECT_EQ(tokenizer->file_bytes(), small_file().dump());
  EXPECT_EQ(deserialize_tokenizer(tokenizer->serialize())->fingerprint(), tokenizer->fingerprint());
}

TEST(BpeMetaspace, RefusesWhatItDoesNotSupport) {
  const auto error_with = [](const char* pointer, const json& value) {
    json file = small_file();
    file[json::json_pointer(pointer)] = value;
    const std::string error = refusal([&] { load(file); });
    EXPECT_THAT(error, HasSubstr("tokenizer.json"));
    return error;
  };
  EXPECT_THAT(error_with("/normalizer", {{"type", "NFX"}}), HasSubstr("the normalizer NFX is not supported; supported are NFC"));
  EXPECT_THAT(error_with("/pre_tokenizer", {{"type", "Other"}}), HasSubstr("the pre-tokenizer Other is not supported"));
  EXPECT_THAT(error_with("/decoder", {{"type", "CTC"}}), HasSubstr("the decoder CTC is not supported"));
  EXPECT_THAT(error_with("/model/merges/0", "a q"), HasSubstr("merge 1: the merge 'a q' needs the token 'q'"));
  EXPECT_THAT(error_with("/model/dropout", 0.5), HasSubstr("\"dropout\" is not supported"));
  EXPECT_THAT(error_with("/added_tokens/2/id", 260), HasSubstr("the added token '[tool]' has id 260, but that is 'a' in the vocabulary"));
  json file = small_file();
  file["model"]["vocab"].erase("<0x41>");
  EXPECT_THAT(refusal([&] { load(file); }), HasSubstr("must have <0x41>"));
}

}  // namespace
}  // namespace collimate
