#include "collimate/data/tokenizer.hpp"

#include <numeric>
#include <thread>

#include "data/tokenizer_helpers.hpp"

namespace collimate {
namespace {

using testing::HasSubstr;

std::unique_ptr<Tokenizer> small_bpe() {
  BpeTrainer trainer;
  trainer.add("the cat sat on the mat, the end. 23 cats' ends aren't the mats'! é é 汉汉 😀😀 \xff\xff");
  return trainer.train(257 + 60).tokenizer;
}

TEST(TokenizerBytes, IdsAreTheBytes) {
  const auto tokenizer = byte_tokenizer();
  EXPECT_EQ(tokenizer->kind(), "bytes");
  EXPECT_EQ(tokenizer->vocabulary(), 257);
  EXPECT_EQ(tokenizer->eos(), 256);
  EXPECT_EQ(tokenizer->encode("Az \n\xff"), (Ids{65, 122, 32, 10, 255}));
  EXPECT_EQ(tokenizer->encode(std::string_view("\0", 1)), Ids{0});
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  EXPECT_EQ(tokenizer->piece(32), "Ġ");
  EXPECT_EQ(tokenizer->id_of("Ġ"), 32);
  EXPECT_EQ(tokenizer->piece(256), "<|endoftext|>");
  EXPECT_EQ(tokenizer->id_of("<|endoftext|>"), 256);
  EXPECT_EQ(tokenizer->id_of("no such piece"), std::nullopt);
}

TEST(Tokenizer, DecodingGivesAnyBytesBack) {
  const auto bytes = byte_tokenizer(), bpe = small_bpe();
  std::mt19937 random(11);
  for (int i = 0; i < 1000; ++i) {
    const std::string text = random_text(random, static_cast<int>(random() % 60));
    for (const auto* tokenizer : {bytes.get(), bpe.get()}) {
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
      EXPECT_EQ(tokenizer->decode(encode_special(*tokenizer, text), true), text);
    }
  }
}

TEST(Tokenizer, SpecialTokensAreTextUnlessAskedFor) {
  const auto tokenizer = small_bpe();
  const std::string text = "end<|endoftext|>the";
  const Ids plain = tokenizer->encode(text), special = encode_special(*tokenizer, text);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), *tokenizer->eos()), 0);
  EXPECT_EQ(std::count(special.begin(), special.end(), *tokenizer->eos()), 1);
  EXPECT_EQ(tokenizer->decode(plain), text);
  EXPECT_EQ(tokenizer->decode(special), "endthe");
  EXPECT_EQ(tokenizer->decode(special, true), text);
  EXPECT_TRUE(tokenizer->is_special(*tokenizer->eos()));
  EXPECT_FALSE(tokenizer->is_special(1));
}

TEST(Tokenizer, IsStoredAndReadBack) {
  for (const auto& tokenizer : {byte_tokenizer({{"<s>", "<pad>"}, "<s>", "<s>", "<pad>"}), small_bpe()}) {
    const auto back = deserialize_tokenizer(tokenizer->serialize());
    EXPECT_EQ(back->serialize(), tokenizer->serialize());
    EXPECT_EQ(back->fingerprint(), tokenizer->fingerprint());
    EXPECT_EQ(back->kind(), tokenizer->kind());
    EXPECT_EQ(back->special_ids(), tokenizer->special_ids());
    const std::string text = "the mats \xff 23";
    EXPECT_EQ(back->encode(text), tokenizer->encode(text));
    for (int id = 0; id < tokenizer->vocabulary(); ++id) EXPECT_EQ(back->piece(id), tokenizer->piece(id));
  }
}

TEST(Tokenizer, FingerprintSeesEveryDifference) {
  const auto base = small_bpe();
  BpeTrainer trainer;
  trainer.add("other words");
  EXPECT_NE(trainer.train(270).tokenizer->fingerprint(), base->fingerprint());
  EXPECT_NE(byte_tokenizer()->fingerprint(), byte_tokenizer({{"<s>"}, "", "<s>", ""})->fingerprint());
  const auto other = with_special_ids(deserialize_tokenizer(base->serialize()), {1, std::nullopt, std::nullopt, std::nullopt});
  EXPECT_NE(other->fingerprint(), base->fingerprint());
}

TEST(Tokenizer, RefusesIdsOutsideTheVocabulary) {
  const auto tokenizer = byte_tokenizer();
  EXPECT_THAT(refusal([&] { tokenizer->decode(Ids{1, 257}); }), HasSubstr("id 257, outside the vocabulary of 257"));
  EXPECT_THAT(refusal([&] { tokenizer->decode(Ids{-1}); }), HasSubstr("id -1"));
  EXPECT_THAT(refusal([&] { tokenizer->piece(257); }), HasSubstr("257"));
  EXPECT_THAT(refusal([&] { with_special_ids(byte_tokenizer(), {300, {}, {}, {}}); }), HasSubstr("id 300"));
}

TEST(Tokenizer, WhatAModelDrawsBehindTheVocabularyIsNoText) {
  const auto tokenizer = byte_tokenizer();
  EXPECT_EQ(tokenizer->decode_after(Ids{300}, Ids{'h', 257, 'i', 5000}), "hi");
  EXPECT_THAT(refusal([&] { tokenizer->decode_after(Ids{}, Ids{-1}); }), HasSubstr("id -1"));
}

TEST(Tokenizer, RefusesADamagedStore) {
  const std::string good = byte_tokenizer()->serialize();
  EXPECT_THAT(refusal([] { deserialize_tokenizer(""); }), HasSubstr("header"));
  EXPECT_THAT(refusal([] { deserialize_tokenizer("[1]\n"); }), HasSubstr("header"));
  EXPECT_THAT(refusal([] { deserialize_tokenizer("{\"collimate_tokenizer\":9,\"kind\":\"bpe\"}\n"); }), HasSubstr("format 9"));
  EXPECT_THAT(refusal([] { deserialize_tokenizer("{\"collimate_tokenizer\":1,\"kind\":\"new\"}\n"); }), HasSubstr("unknown kind \"new\""));
  EXPECT_THAT(refusal([&] { deserialize_tokenizer(good.substr(0, good.size() / 2)); }), HasSubstr("not valid JSON"));
}

TEST(Tokenizer, ServesSeveralThreads) {
  const auto tokenizer = small_bpe();
  const std::string text = "the cat sat on the mat's end, 23 é汉 \xff";
  const Ids expected = tokenizer->encode(text);
  std::vector<int> equal(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) equal[t] += tokenizer->encode(text) == expected;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(std::accumulate(equal.begin(), equal.end(), 0), 800);
}

}  // namespace
}  // namespace collimate
