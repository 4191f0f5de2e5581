#include <algorithm>

#include "collimate/data/tokenizer.hpp"
#include "data/llama2c_tokenizer.hpp"
#include "data/sentencepiece_file.hpp"
#include "data/sentencepiece_tokenizer.hpp"
#include "data/tokenizer_helpers.hpp"

namespace collimate {
namespace {

using testing::HasSubstr;

std::string llama2c_file(const std::vector<Piece>& pieces) {
  std::string file = raw<std::int32_t>(16);
  for (const Piece& piece : pieces) file += raw(piece.score) + raw(static_cast<std::int32_t>(piece.text.size())) + piece.text;
  return file;
}

std::vector<Piece> pieces(const std::string& space) {
  return {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3},     {space, -10}, {"a", -11},
          {"b", -12},      {"ab", -1},    {space + "ab", -2}, {"ba", -3},   {"é", -13}};
}

std::unique_ptr<Tokenizer> llama2c() {
  auto list = pieces(" ");
  list[1].text = "\n<s>\n";  // as llama2.c writes them
  list[2].text = "\n</s>\n";
  return parse_llama2c(llama2c_file(list), "test");
}

TEST(TokenizerLlama2c, MergesByScoreBehindADummySpace) {
  const auto tokenizer = llama2c();
  EXPECT_EQ(tokenizer->vocabulary(), 10);
  EXPECT_EQ(tokenizer->special_ids(), (SpecialIds{1, 2, std::nullopt, 0}));
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  EXPECT_EQ(tokenizer->encode("ab"), Ids{7});
  EXPECT_EQ(tokenizer->encode(" ab"), (Ids{3, 7}));  // run.c puts a space even before a space
  EXPECT_EQ(tokenizer->encode("bab"), (Ids{3, 5, 6}));  // "ab" scores higher than "ba"
  EXPECT_EQ(tokenizer->encode("baé"), (Ids{3, 8, 9}));
  EXPECT_EQ(tokenizer->encode("zaz"), (Ids{3, 0, 4, 0}));  // no byte pieces: unknown
  for (const char* text : {"ab", " ab", "bab", "a b  é"}) EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 2}), "ab");
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 2}, true), "<s>ab</s>");
  EXPECT_EQ(encode_special(*tokenizer, "<s>ab</s>ab"), (Ids{1, 7, 2, 7}));
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 2, 7}, true), "<s>ab</s>ab");
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 2, 7}), "ab ab");
  EXPECT_EQ(tokenizer->id_of("</s>"), 2);
  EXPECT_EQ(tokenizer->id_of("ab"), 6);
}

TEST(TokenizerLlama2c, OfEqualScoresTheLeftmostPairIsMerged) {
  auto list = pieces(" ");
  list[8].score = list[6].score;  // "ba" as good as "ab"
  const auto tokenizer = parse_llama2c(llama2c_file(list), "test");
  EXPECT_EQ(tokenizer->encode("bab"), (Ids{3, 8, 5}));
  EXPECT_EQ(tokenizer->encode("aba"), (Ids{7, 4}));
}

TEST(TokenizerLlama2c, ByteFallbackGivesAnyBytesBack) {
  std::vector<Piece> list = {{"<unk>", 0}, {"\n<s>\n", 0}, {"\n</s>\n", 0}};
  for (int b = 0; b < 256; ++b) list.push_back({fmt::format("<0x{:02X}>", b), 0});
  list.insert(list.end(), {{" ", -1}, {"a", -2}, {"aa", -3}});
  const auto tokenizer = parse_llama2c(llama2c_file(list), "test");
  EXPECT_EQ(tokenizer->encode("aa\n"), (Ids{259, 261, 13}));
  EXPECT_EQ(tokenizer->encode("汉"), (Ids{259, 3 + 0xe6, 3 + 0xb1, 3 + 0x89}));
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {
    const std::string text = random_text(random, 1 + static_cast<int>(random() % 30));
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

TEST(TokenizerLlama2c, AnExportHasATokenizerJsonThatGivesTheSameIds) {
  std::vector<Piece> bytes = {{"<unk>", 0}, {"\n<s>\n", 0}, {"\n</s>\n", 0}};
  for (int b = 0; b < 256; ++b) bytes.push_back({fmt::format("<0x{:02X}>", b), 0});
  bytes.insert(bytes.end(), {{" ", -9}, {"a", -8}, {"b", -7}, {"ab", -1}, {" ab", -2}, {"ba", -3}, {"  ", -4}, {"ab", -5}});
  const auto with_bytes = parse_llama2c(llama2c_file(bytes), "test"), without = llama2c();
  for (const auto* tokenizer : {with_bytes.get(), without.get()}) {
    const TokenizerFolder out;
    save_tokenizer(*tokenizer, out.path());
    EXPECT_EQ(load_tokenizer(out.path())->kind(), "llama2c");  // its own file goes before
    const auto other = load_tokenizer(out.path() + "/tokenizer.json");
    EXPECT_EQ(other->vocabulary(), tokenizer->vocabulary());
    EXPECT_EQ(other->special_ids(), tokenizer->special_ids());
    for (const char* text : {"", " ", "ab", " ab", "bab", "a b  é", "abba ab", "zaz\n", "\u2581ab", "<s>ab</s> a b</s>é漢"})
      EXPECT_EQ(encode_special(*other, text), encode_special(*tokenizer, text)) << text;
    EXPECT_EQ(other->decode(tokenizer->encode(" a b ab")), " a b ab");
  }
}

TEST(TokenizerLlama2c, DamagedFilesAreRefused) {
  const std::string good = llama2c_file(pieces(" "));
  std::vector<std::size_t> edges = {4};  // the format does not say how many tokens it has: after four any whole one may be the last
  for (const Piece& piece : pieces(" ")) edges.push_back(edges.back() + 8 + piece.text.size());
  for (std::size_t size = 0; size < good.size(); ++size) {
    const std::string error = refusal([&] { parse_llama2c(good.substr(0, size), "tok.bin"); });
    const auto edge = std::find(edges.begin(), edges.end(), size);
    const bool legal = edge != edges.end() && edge - edges.begin() > 3;
    EXPECT_THAT(error, HasSubstr(legal ? "accepted" : "tok.bin")) << size;
  }
  EXPECT_THAT(refusal([&] { parse_llama2c(good.substr(0, good.size() - 1), "tok.bin"); }), HasSubstr("token 9 at byte"));
  std::string negative = good;
  negative.replace(8, 4, raw<std::int32_t>(-5));
  EXPECT_THAT(refusal([&] { parse_llama2c(negative, "tok.bin"); }), HasSubstr("token 0 at byte"));
  std::string huge = good;
  huge.replace(8, 4, raw<std::int32_t>(0x7fffffff));
  EXPECT_THAT(refusal([&] { parse_llama2c(huge, "tok.bin"); }), HasSubstr("token 0 at byte"));
}

TEST(TokenizerSentencePiece, RunsAModelAndAgreesWithLlama2cOnPlainText) {
  const auto tokenizer = parse_sentencepiece(sentencepiece_file(pieces("▁")), "test"), other = llama2c();
  EXPECT_EQ(tokenizer->kind(), "sentencepiece");
  EXPECT_EQ(tokenizer->vocabulary(), 10);
  EXPECT_EQ(tokenizer->special_ids(), (SpecialIds{1, 2, std::nullopt, 0}));
  for (const char* text : {"", "ab", "bab", "a b  é", "abba ab", " ab"}) {
    EXPECT_EQ(tokenizer->encode(text), other->encode(text)) << text;
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 2}), "ab");
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 2}, true), "<s>ab</s>");
  EXPECT_EQ(encode_special(*tokenizer, "<s>ab</s>ab"), (Ids{1, 7, 2, 7}));
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 2, 7}, true), "<s>ab</s>ab");
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 2, 7}), "ab ab");
  EXPECT_EQ(tokenizer->piece(7), "▁ab");
  EXPECT_EQ(tokenizer->id_of("▁ab"), 7);
  EXPECT_EQ(tokenizer->id_of("none"), std::nullopt);
  EXPECT_TRUE(tokenizer->is_special(1));
  EXPECT_FALSE(tokenizer->is_special(7));
}

TEST(TokenizerSentencePiece, ATextBehindAnotherGetsNoBlankOfItsOwn) {
  const auto tidy = parse_sentencepiece(sentencepiece_file(pieces("▁"), true), "test");
  const auto plain = parse_sentencepiece(sentencepiece_file(pieces("▁")), "test"), other = llama2c();
  for (const Tokenizer* tokenizer : {plain.get(), tidy.get(), other.get()}) {
    EXPECT_EQ(tokenizer->encode_after(Ids{1, 7}, "ab"), Ids{6});
    EXPECT_EQ(tokenizer->encode_after(Ids{1, 7}, " ab"), Ids{7});
    EXPECT_EQ(tokenizer->encode_after(Ids{1, 7}, "  ab"), (Ids{3, 7}));
    EXPECT_EQ(tokenizer->encode_after(Ids{1}, "ab"), Ids{7});  // the first text: BOS holds none
    EXPECT_EQ(tokenizer->encode_after({}, "ab"), Ids{7});
    EXPECT_EQ(tokenizer->encode_after(Ids{1, 7}, ""), Ids{});
    EXPECT_EQ(tokenizer->decode_after(Ids{1, 7}, Ids{7, 6, 2}), " abab");
    EXPECT_EQ(tokenizer->decode_after(Ids{1}, Ids{7, 6, 2}), "abab");
    EXPECT_EQ(tokenizer->decode(Ids{1, 7, 6, 7, 2}), "abab ab");
  }
}

TEST(TokenizerSentencePiece, ControlPiecesAreFoundInTheRangesAskedForOnly) {
  const auto plain = parse_sentencepiece(sentencepiece_file(pieces("▁")), "test"), other = llama2c();
  const TextRange first[] = {{0, 3}}, last[] = {{8, 12}}, short_of_it[] = {{0, 2}};
  for (const Tokenizer* tokenizer : {plain.get(), other.get()}) {
    const std::string text = "<s>ab<s>a</s>";
    Ids rest = tokenizer->encode("ab<s>a</s>");
    rest.insert(rest.begin(), 1);
    EXPECT_EQ(tokenizer->encode(text, first), rest);  // a text behind a special token gets its blank
    EXPECT_EQ(tokenizer->encode(text, short_of_it), tokenizer->encode(text));
    EXPECT_EQ(tokenizer->encode_after(Ids{1, 7}, "ababab.a</s>", last).back(), 2);
    EXPECT_EQ(tokenizer->encode_after(Ids{1, 7, 2}, "ab"), Ids{7});  // so does a response behind one
    EXPECT_EQ(tokenizer->decode_after(Ids{1, 7, 2}, Ids{7}), "ab");
    EXPECT_EQ(tokenizer->encode_after(Ids{1, 7, 0}, "ab"), Ids{6});  // unknown is text
  }
}

TEST(TokenizerSentencePiece, AUserDefinedPieceThatIsEosIsAControlPiece) {
  auto list = pieces("▁");
  list.insert(list.end(), {{"<end>", 0, 4}, {"<tool>", 0, 4}, {std::string(117, 'x'), 0, 4}});
  const std::string model = sentencepiece_file(list);
  const TokenizerFolder folder;
  folder.write("tokenizer.model", model);
  EXPECT_EQ(load_tokenizer(folder.path())->encode("ab<end>ab"), (Ids{7, 10, 6}));
  for (const std::int32_t eos : {10, 12}) {
    folder.write("tokenizer_config.json", fmt::format("{{\"eos_token\": \"{}\"}}", list[eos].text));
    const auto tokenizer = load_tokenizer(folder.path()), again = deserialize_tokenizer(tokenizer->serialize());
    for (const Tokenizer* one : {tokenizer.get(), again.get()}) {
      EXPECT_EQ(one->eos(), eos);
      EXPECT_TRUE(one->is_special(eos));
      EXPECT_THAT(one->encode("ab" + list[eos].text), testing::Not(testing::Contains(eos)));
      EXPECT_EQ(encode_special(*one, "ab" + list[eos].text), (Ids{7, eos}));
      EXPECT_EQ(one->encode("ab<tool>ab"), (Ids{7, 11, 6}));
      EXPECT_EQ(one->decode(Ids{7, eos}), "ab");
    }
  }
  folder.write("tokenizer_config.json", R"({"eos_token": "ab"})");  // a normal piece stays one
  EXPECT_EQ(load_tokenizer(folder.path())->file_bytes(), model);
}

TEST(TokenizerSentencePiece, WhatAnOlderVersionStoredKeepsItsRule) {
  const auto now = llama2c();
  std::string stored = now->serialize();
  const std::string format = "\"collimate_tokenizer\":";
  stored.replace(stored.find(format) + format.size(), 1, "1");
  const auto old = deserialize_tokenizer(stored);
  EXPECT_EQ(old->encode_after(Ids{1, 7}, "ab"), Ids{7});
  EXPECT_EQ(old->serialize(), stored);
  EXPECT_NE(old->fingerprint(), now->fingerprint());  // so that no stage mixes the two
  stored.replace(stored.find(format) + format.size(), 1, "3");
  EXPECT_THAT(refusal([&] { deserialize_tokenizer(stored); }), HasSubstr("format 3"));
}

TEST(TokenizerSentencePiece, FilesAreKeptByteForByte) {
  const TokenizerFolder folder;
  const std::string model = sentencepiece_file(pieces("▁")), bin = llama2c_file(pieces(" "));
  for (const auto& [name, bytes] : {std::pair(std::string("tokenizer.model"), model), {std::string("tok10.bin"), bin}}) {
    const auto tokenizer = load_tokenizer(folder.write(name, bytes));
    const auto stored = deserialize_tokenizer(tokenizer->serialize());
    EXPECT_EQ(stored->file_bytes(), bytes);
    EXPECT_EQ(stored->fingerprint(), tokenizer->fingerprint());
    const TokenizerFolder saved;
    save_tokenizer(*tokenizer, saved.path());
    EXPECT_EQ(read_file(saved.path() + "/" + tokenizer->file_name()), bytes);
    EXPECT_EQ(load_tokenizer(saved.path())->fingerprint(), tokenizer->fingerprint());
    // Beside it stands a tokenizer.json, which this class of transformers reads; it makes one without tokens where the file is missing.
    const std::string config = read_file(saved.path() + "/tokenizer_config.json");
    EXPECT_NE(config.find("PreTrainedTokenizerFast"), std::string::npos);
    EXPECT_EQ(config.find("\"legacy\": true") != std::string::npos, name == "tokenizer.model");
  }
  EXPECT_EQ(load_tokenizer(folder.path())->kind(), "sentencepiece");  // of both, the model
}

TEST(TokenizerSentencePiece, DamagedModelsAreRefused) {
  const std::string good = sentencepiece_file(pieces("▁"));
  for (const std::string& bad :
       {std::string(), std::string("hello"), good.substr(0, 10), good.substr(0, good.size() / 2), std::string(100, '\xff')})
    EXPECT_THAT(refusal([&] { parse_sentencepiece(bad, "x.model"); }), HasSubstr("x.model: not a SentencePiece model")) << bad.size();
}

}  // namespace
}  // namespace collimate
