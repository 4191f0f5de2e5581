#include <map>

#include "collimate/data/tokenizer.hpp"
#include "data/pretokenizer.hpp"
#include "data/tokenizer_helpers.hpp"

namespace collimate {
namespace {

using testing::HasSubstr;
using Merges = std::vector<std::pair<std::string, std::string>>;

/// BPE training as its definition says it: count all pairs anew before every merge.
Merges brute_force(const std::vector<std::string>& documents, int merges) {
  std::map<std::vector<std::string>, int> words;
  const Expression expression(gpt2_expression(), "oracle");
  for (const std::string& document : documents)
    cut_words(expression, document, [&](std::string_view word) {
      std::vector<std::string> symbols;
      for (const char c : word) symbols.emplace_back(1, c);
      ++words[symbols];
    });
  Merges result;
  while (static_cast<int>(result.size()) < merges) {
    std::map<std::pair<std::string, std::string>, int> counts;
    for (const auto& [symbols, count] : words)
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) counts[{symbols[i], symbols[i + 1]}] += count;
    if (counts.empty()) break;
    auto best = counts.begin();
    for (auto it = counts.begin(); it != counts.end(); ++it)
      if (it->second >= best->second) best = it;  // in rising order, so that the greatest pair wins a tie
    result.push_back(best->first);
    std::map<std::vector<std::string>, int> merged;
    for (const auto& [symbols, count] : words) {
      std::vector<std::string> out;
      for (std::size_t i = 0; i < symbols.size(); ++i) {
        const bool here = i + 1 < symbols.size() && std::pair(symbols[i], symbols[i + 1]) == best->first;
        out.push_back(here ? symbols[i] + symbols[i + 1] : symbols[i]);
        i += here;
      }
      merged[out] += count;
    }
    words = std::move(merged);
  }
  return result;
}

TEST(BpeTrainer, GivesTheMergesOfTheDefinition) {
  const std::string text = "low low low low low lower lower widest widest widest newest newest newest newest newest newest";
  const BpeTraining training = trained(text, 257 + 6);
  EXPECT_EQ(training.merges, brute_force({text}, 6));
  // The worked example of Sennrich et al. with ties by the greatest pair: e+s and s+t are both met 9 times.
  EXPECT_EQ(training.merges[0], (std::pair<std::string, std::string>("s", "t")));
  EXPECT_EQ(training.merges[1], (std::pair<std::string, std::string>("e", "st")));
}

TEST(BpeTrainer, GivesTheMergesOfTheDefinitionOnRandomTexts) {
  std::mt19937 random(5);
  for (int round = 0; round < 20; ++round) {
    std::string text;
    const int letters = 2 + round % 3;
    for (int i = 0; i < 400; ++i) text += random() % 5 ? static_cast<char>('a' + random() % letters) : ' ';
    if (round % 2) text += "aaaaaaaaa aaaa aaaaa \xff\xff\xff\xfe \xff\xff";
    EXPECT_EQ(trained(text, 257 + 60).merges, brute_force({text}, 60));
  }
}

TEST(BpeTrainer, SpecialTokensSeparateAndAreNotLearned) {
  BpeTrainer joined, apart;
  joined.add("ab ab<|endoftext|>ab  <|endoftext|>cd");
  for (const char* document : {"ab ab", "ab  ", "cd"}) apart.add(document);
  const auto a = joined.train(300), b = apart.train(300);
  EXPECT_EQ(a.merges, b.merges);
  EXPECT_EQ(a.merges, brute_force({"ab ab", "ab  ", "cd"}, 43));
}

TEST(BpeTrainer, LongestOfOverlappingSpecialTokensWins) {
  BpeTrainer trainer({{"<a>", "<a>b"}, "", "<a>", ""});
  trainer.add("xy<a>bxy<a>cxy<a>b");
  EXPECT_EQ(trainer.train(300).words, 2);  // "xy" and "cxy"
}

TEST(BpeTrainer, StopsWhereTheTextRunsOutOfPairs) {
  const BpeTraining training = trained("abc", 1000);
  EXPECT_EQ(training.requested, 1000 - 257);
  EXPECT_EQ(training.merges, (Merges{{"b", "c"}, {"a", "bc"}}));
  EXPECT_EQ(training.tokenizer->vocabulary(), 259);
  EXPECT_EQ(training.tokenizer->encode("abc"), Ids{258});
}

TEST(BpeTrainer, NumbersSpecialTokensThenBytesThenMerges) {
  BpeTrainer trainer({{"<pad>", "<eos>"}, "", "<eos>", "<pad>"});
  trainer.add("hello hello");
  const auto training = trainer.train(260);
  const Tokenizer& tokenizer = *training.tokenizer;
  EXPECT_EQ(tokenizer.pad(), 0);
  EXPECT_EQ(tokenizer.eos(), 1);
  EXPECT_EQ(tokenizer.bos(), std::nullopt);
  EXPECT_EQ(tokenizer.piece(2), "!");
  EXPECT_EQ(tokenizer.encode("!"), Ids{2});
  EXPECT_EQ(tokenizer.vocabulary(), 260);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("hello \xff")), "hello \xff");
  EXPECT_EQ(tokenizer.kind(), "bpe");
}

TEST(BpeTrainer, RefusesWhatCannotBe) {
  BpeTrainer trainer;
  trainer.add("text");
  EXPECT_THAT(refusal([&] { trainer.train(256); }), HasSubstr("256 is too small"));
  EXPECT_EQ(trainer.train(257).merges.size(), 0u);
  EXPECT_THAT(refusal([] { BpeTrainer({{"<a>", "<a>"}, "", "", ""}); }), HasSubstr("'<a>' is given twice"));
  EXPECT_THAT(refusal([] { BpeTrainer({{""}, "", "", ""}); }), HasSubstr("needs a name"));
  EXPECT_THAT(refusal([] { BpeTrainer({{"<a>"}, "", "<b>", ""}).train(300); }), HasSubstr("'<b>' is to be the end-of-text token"));
}

}  // namespace
}  // namespace collimate
