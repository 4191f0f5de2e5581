#include <nlohmann/json.hpp>

#include "collimate/base/text.hpp"
#include "collimate/data/surround.hpp"
#include "collimate/data/tokenizer.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/tokenizer_helpers.hpp"
#include "data/tokenizer_kinds_golden.hpp"

// tokenizer.json files of every kind of pipeline; the ids are those of the tokenizers package.
namespace collimate {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// The FNV-1a hash of the ids, written with a blank between them.
std::string hash_of_ids(const Ids& ids) {
  std::string text;
  for (const std::int32_t id : ids) text += fmt::format("{}{}", text.empty() ? "" : " ", id);
  std::uint32_t hash = 0x811c9dc5;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
  return fmt::format("{:08x}", hash);
}

void add_merged(json& model) {
  for (const json& merge : model["merges"]) {
    const std::string text = merge, made = text.substr(0, text.find(' ')) + text.substr(text.find(' ') + 1);
    if (!model["vocab"].contains(made)) model["vocab"][made] = model["vocab"].size();
  }
}

json model_of(const json& golden, const json& row) {
  const std::string base = row["base"];
  if (base == "own") return row["model"];
  json model = {{"type", "BPE"}, {"vocab", json::object()}};
  json& vocabulary = model["vocab"];
  if (base == "bytes") {
    for (const unsigned char byte : alphabet_order()) vocabulary[bytes_to_alphabet(std::string(1, static_cast<char>(byte)))] = vocabulary.size();
    model["merges"] = golden["bytes"];
    add_merged(model);
  } else if (base == "unigram") {
    model = {{"type", "Unigram"}, {"vocab", golden["unigram"]}, {"unk_id", 0}};
    if (row.contains("patch"))
      for (int byte = 0; byte < 256; ++byte) model["vocab"].push_back({fmt::format("<0x{:02X}>", byte), -20.0});
  } else {
    model["unk_token"] = "<unk>";
    model["byte_fallback"] = true;
    for (const char* piece : {"<unk>", "<s>", "</s>"}) vocabulary[piece] = vocabulary.size();
    for (int byte = 0; byte < 256; ++byte) vocabulary[fmt::format("<0x{:02X}>", byte)] = vocabulary.size();
    for (const json& piece : golden["spm"]["pieces"]) vocabulary[piece.get<std::string>()] = vocabulary.size();
    model["merges"] = golden["spm"]["merges"];
  }
  if (row.contains("patch")) model.update(row["patch"]);
  return model;
}

json file_of(const json& golden, const json& row) {
  json file = {{"version", "1.0"}, {"model", model_of(golden, row)}};
  for (const char* key : {"normalizer", "pre_tokenizer", "decoder", "added_tokens"})
    if (row.contains(key)) file[key] = row[key];
  return file;
}

std::unique_ptr<Tokenizer> load(const json& file) {
  const TokenizerFolder folder;
  return load_tokenizer(folder.write("tokenizer.json", file.dump()));
}

class TokenizerKinds : public testing::Test {
 protected:
  const json golden_ = json::parse(tokenizer_kinds_golden);
  json row(const std::string& name) const {
    for (const json& row : golden_["rows"])
      if (row["name"] == name) return row;
    return {};
  }
  json file(const std::string& name) const { return file_of(golden_, row(name)); }
};

TEST_F(TokenizerKinds, GiveTheIdsOfTheReference) {
  for (const json& row : golden_["rows"]) {
    const auto tokenizer = load(file_of(golden_, row)), stored = deserialize_tokenizer(tokenizer->serialize());
    EXPECT_EQ(stored->fingerprint(), tokenizer->fingerprint()) << row["name"];
    std::istringstream hashes(row["ids"].get<std::string>());
    const std::string lossless = row["lossless"];
    for (std::size_t i = 0; i < golden_["texts"].size(); ++i) {
      const std::string text = golden_["texts"][i];
      std::string expected;
      hashes >> expected;
      const Ids ids = encode_special(*tokenizer, text);
      EXPECT_EQ(hash_of_ids(ids), expected) << row["name"] << ": " << text << ": " << testing::PrintToString(ids);
      EXPECT_EQ(encode_special(*stored, text), ids) << row["name"];
      if (lossless[i] == '1') {
        EXPECT_EQ(tokenizer->decode(ids, true), text) << row["name"];
      }
    }
  }
}

TEST_F(TokenizerKinds, ALongTextHasTheIdsOfItsParts) {
  std::string words;
  std::mt19937 random(5);
  for (int i = 0; i < 20000; ++i) {
    const auto number = random() % 3000;
    words += fmt::format(" {}{}", number, random() % 2 ? "ab" : "é the");
  }
  for (const char* name : {"gpt2", "qwen2", "unigram_metaspace"}) {
    const auto tokenizer = load(file(name));
    Ids parts;
    for (std::size_t at = 0; at < words.size();) {
      const std::size_t end = std::min(words.find(' ', at + 4000), words.size());
      const Ids part = tokenizer->encode(words.substr(at, end - at));
      parts.insert(parts.end(), part.begin(), part.end());
      at = end;
    }
    EXPECT_EQ(tokenizer->encode(words), parts) << name;
  }
}

TEST_F(TokenizerKinds, AnExportGivesTheSameIds) {
  for (const json& row : golden_["rows"]) {
    const auto tokenizer = load(file_of(golden_, row));
    const TokenizerFolder folder;
    save_tokenizer(*tokenizer, folder.path());
    const auto again = load_tokenizer(folder.path());
    for (const json& text : golden_["texts"])
      EXPECT_EQ(encode_special(*again, text.get<std::string>()), encode_special(*tokenizer, text.get<std::string>())) << row["name"];
  }
}

// Ids of the tokenizers package.
TEST_F(TokenizerKinds, ACharacterWithoutAPieceCostsTenMoreThanTheLeastPiece) {
  const json vocabulary = json::parse(R"([["<unk>", 0.0], ["a", -12.0], ["bc", -20.0], ["ab", -5.0]])");
  const auto tokenizer = load({{"version", "1.0"}, {"model", {{"type", "Unigram"}, {"vocab", vocabulary}, {"unk_id", 0}}}});
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{1, 2}));
}

TEST_F(TokenizerKinds, WordsUpToTheLongestAreCutIntoPieces) {
  const json vocabulary = {{"[UNK]", 0}, {"ab", 1}, {"##cd", 2}, {"##c", 3}, {"##e", 4}};
  const json model = {{"type", "WordPiece"}, {"vocab", vocabulary}, {"unk_token", "[UNK]"}, {"max_input_chars_per_word", 4}};
  const auto tokenizer = load({{"version", "1.0"}, {"model", model}});
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{1, 3}));
  EXPECT_EQ(tokenizer->encode("abcd"), (Ids{1, 2}));
  EXPECT_EQ(tokenizer->encode("abcde"), Ids{0});
}

TEST_F(TokenizerKinds, PlainTextIsNoSpecialTokenWhereWholeWordsAreLookedUp) {
  json with = file("gpt2");
  with["model"]["ignore_merges"] = true;
  const auto id = static_cast<std::int32_t>(with["model"]["vocab"].size() + with["added_tokens"].size());
  with["added_tokens"].push_back({{"id", id}, {"content", "fox"}, {"special", true}, {"normalized", false}});
  const auto tokenizer = load(with);
  EXPECT_EQ(encode_special(*tokenizer, "fox"), Ids{id});
  EXPECT_THAT(tokenizer->encode("fox"), testing::Not(testing::Contains(id)));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("fox")), "fox");
}

TEST_F(TokenizerKinds, WhatStandsBehindTextHasTheBlankThatItBeginsWith) {
  json strip = file("metaspace_always_split");
  strip["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}};
  auto tokenizer = load(strip);
  Ids before = tokenizer->encode(" a");
  EXPECT_EQ(tokenizer->decode(before), "a");
  EXPECT_EQ(tokenizer->decode_after(before, tokenizer->encode_after(before, " b")), " b");
  tokenizer = load(file("wordpiece"));  // a blank stands between words, also where they are decoded apart
  before = tokenizer->encode("the");
  EXPECT_EQ(tokenizer->decode(before), "the");
  EXPECT_EQ(tokenizer->decode_after(before, before), " the");
}

TEST_F(TokenizerKinds, BytesThatAreNotUtf8StayWhatTheyAre) {
  for (const char* name : {"gpt2", "neox_nfc", "qwen2", "han", "llama2_legacy", "metaspace_never", "unigram_fallback"}) {
    const auto tokenizer = load(file(name));
    for (const std::string text : {"ab\xff\xfe" "cd", "a \xe6\xb1", "\xed\xa0\x80z", "\xff e\xcc"})
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << name;
  }
  json replaced = file("gpt2");
  replaced["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", "x+"}}}, {"content", "y"}};
  const auto replaces = load(replaced);
  EXPECT_EQ(replaces->decode(replaces->encode("xx\xff\xfe" "cx\xe6")), "y\xff\xfe" "cy\xe6");
  const auto qwen = load(file("qwen2"));  // no normal form reaches across them
  EXPECT_EQ(qwen->decode(qwen->encode("e\xff\u0301")), "e\xff\u0301");
  EXPECT_EQ(qwen->decode(qwen->encode("e\u0301")), "é");
}

TEST_F(TokenizerKinds, DataCannotForgeASpecialToken) {
  for (const char* name : {"unigram_metaspace", "xlmr_precompiled", "llama2_legacy", "llama3", "qwen2", "end_of_word"}) {
    const auto tokenizer = load(file(name));
    for (const json& token : row(name).value("added_tokens", json::array())) {
      if (!token.value("special", false)) continue;
      const std::string text = token["content"];
      EXPECT_THAT(encode_special(*tokenizer, text), testing::Contains(token["id"].get<std::int32_t>())) << name << text;
      if (tokenizer->unknown() == token["id"]) continue;
      EXPECT_THAT(tokenizer->encode(text), testing::Not(testing::Contains(token["id"].get<std::int32_t>()))) << name << text;
    }
  }
}

TEST_F(TokenizerKinds, ATextBehindAnotherGetsNoBlankOfItsOwn) {
  for (const char* name : {"unigram_metaspace", "metaspace_always_split", "llama2_legacy", "unigram_fallback"}) {
    const auto tokenizer = load(file(name));
    for (const auto& [prompt, response] : {std::pair("the cat", "s sat"), {"the cat", " sat"}, {"a", "b c"}}) {
      Ids ids = tokenizer->encode(prompt);
      const Ids behind = tokenizer->encode_after(ids, response);
      EXPECT_EQ(tokenizer->decode_after(ids, behind), response) << name;
      ids.insert(ids.end(), behind.begin(), behind.end());
      EXPECT_EQ(tokenizer->decode(ids), std::string(prompt) + response) << name;
    }
  }
}

TEST_F(TokenizerKinds, WhatThePostProcessorPutsAroundATextIsKnown) {
  json with = file("llama2_legacy");
  const auto surround = [&](const json& processor) {
    with["post_processor"] = processor;
    return surround_of(*load(with));
  };
  const auto special = [](const char* name) { return json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}}; };
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json frame = {{"type", "TemplateProcessing"},
                      {"single", {special("<s>"), text, special("</s>")}},
                      {"pair", json::array()},
                      {"special_tokens",
                       {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}, {"</s>", {{"id", "</s>"}, {"ids", {2}}, {"tokens", {"</s>"}}}}}}};
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  EXPECT_EQ(surround(nullptr), Surround{});
  EXPECT_EQ(surround(bytes), Surround{});
  EXPECT_EQ(surround(frame), (Surround{{1}, {2}}));
  EXPECT_EQ(surround({{"type", "Sequence"}, {"processors", {bytes, frame}}}), (Surround{{1}, {2}}));
  EXPECT_EQ(surround({{"type", "RobertaProcessing"}, {"sep", {"</s>", 2}}, {"cls", {"<s>", 1}}, {"trim_offsets", true}, {"add_prefix_space", true}}),
            (Surround{{1}, {2}}));
  EXPECT_THAT(refusal([&] { surround({{"type", "Other"}}); }), HasSubstr("the post-processor Other is not supported"));
  EXPECT_THAT(refusal([&] { surround({{"type", "BertProcessing"}, {"sep", {"</s>", 9999}}, {"cls", {"<s>", 1}}}); }), HasSubstr("9999"));
}

TEST_F(TokenizerKinds, WhatIsNotSupportedIsNamed) {
  const auto error = [&](const char* name, const char* pointer, const json& value) {
    json with = file(name);
    with[json::json_pointer(pointer)] = value;
    return refusal([&] { load(with); });
  };
  EXPECT_THAT(error("gpt2", "/normalizer", {{"type", "Foo"}}), HasSubstr("tokenizer.json: the normalizer Foo is not supported; supported are NFC"));
  EXPECT_THAT(error("gpt2", "/normalizer", {{"type", "NFC"}, {"x", 1}}), HasSubstr("normalizer NFC: \"x\": 1 is not supported"));
  EXPECT_THAT(error("gpt2", "/pre_tokenizer", {{"type", "UnicodeScripts"}}), HasSubstr("the pre-tokenizer UnicodeScripts is not supported"));
  EXPECT_THAT(error("gpt2", "/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}}),
              HasSubstr("the expression '(a' does not compile"));
  EXPECT_THAT(error("gpt2", "/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Kept"}}),
              HasSubstr("the behavior \"Kept\" is not known"));
  EXPECT_THAT(error("gpt2", "/decoder", {{"type", "CTC"}}), HasSubstr("the decoder CTC is not supported"));
  EXPECT_THAT(error("gpt2", "/model/type", "Neural"), HasSubstr("the model type Neural is not supported"));
  EXPECT_THAT(error("gpt2", "/model/dropout", 0.1), HasSubstr("\"dropout\" is not supported: it would give other ids every time"));
  EXPECT_THAT(error("gpt2", "/model/new_key", 1), HasSubstr("\"new_key\" is not supported"));
  EXPECT_THAT(error("unigram_metaspace", "/model/unk_id", 100000), HasSubstr("the unk_id 100000 is not in the vocabulary"));
  EXPECT_THAT(error("unigram_metaspace", "/pre_tokenizer/prepend_scheme", "often"), HasSubstr("the prepend_scheme 'often' is not known"));
  EXPECT_THAT(error("xlmr_precompiled", "/normalizer/normalizers/0/precompiled_charsmap", "AAAA!"), HasSubstr("is not base64"));
  EXPECT_THAT(error("xlmr_precompiled", "/normalizer/normalizers/0/precompiled_charsmap", "/wAAAA=="), HasSubstr("is damaged"));
}

}  // namespace
}  // namespace collimate
