#include "data/pretokenizer.hpp"

#include <nlohmann/json.hpp>

#include "data/bpe_alphabet.hpp"
#include "data/tokenizer_helpers.hpp"

namespace collimate {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Pieces = std::vector<std::string>;

/// The words by these steps, spelled in bytes where a step spells them in GPT-2's alphabet.
Pieces cut(const PretokenizerChain& pretokenizer, std::string_view text) {
  Pieces pieces;
  pretokenizer.cut(text, Edge::start, [&](std::string_view piece, Edge) {
    pieces.push_back(pretokenizer.spells_bytes() ? alphabet_to_bytes(piece).value() : std::string(piece));
  });
  return pieces;
}
json byte_level(bool prefix = false, bool words = true) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", true}, {"use_regex", words}};
}
json split(const std::string& pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}
PretokenizerChain chain(const json& steps) { return read_pretokenizer({{"type", "Sequence"}, {"pretokenizers", steps}}, "some/tokenizer.json"); }
Pieces gpt2(std::string_view text) { return cut(read_pretokenizer(byte_level(), "test"), text); }

TEST(Pretokenizer, Gpt2CutsWordsNumbersAndContractions) {
  EXPECT_EQ(gpt2(""), Pieces{});
  EXPECT_EQ(gpt2("Hello, world!"), (Pieces{"Hello", ",", " world", "!"}));
  EXPECT_EQ(gpt2("I'll we've don't it's I'm he'd you're"),
            (Pieces{"I", "'ll", " we", "'ve", " don", "'t", " it", "'s", " I", "'m", " he", "'d", " you", "'re"}));
  EXPECT_EQ(gpt2("IT'S"), (Pieces{"IT", "'", "S"}));  // contractions are matched in lower case only
  EXPECT_EQ(gpt2("in 2023: 12abc"), (Pieces{"in", " 2023", ":", " 12", "abc"}));
  EXPECT_EQ(gpt2("a_b $%"), (Pieces{"a", "_", "b", " $%"}));
}

TEST(Pretokenizer, Gpt2LeavesTheLastSpaceToTheWord) {
  EXPECT_EQ(gpt2("a   b"), (Pieces{"a", "  ", " b"}));
  EXPECT_EQ(gpt2("a  "), (Pieces{"a", "  "}));
  EXPECT_EQ(gpt2("a\n\nb"), (Pieces{"a", "\n", "\n", "b"}));
  EXPECT_EQ(gpt2("\t\tx"), (Pieces{"\t", "\t", "x"}));
}

TEST(Pretokenizer, Gpt2FollowsUnicode) {
  EXPECT_EQ(gpt2("naïve Ωmega"), (Pieces{"naïve", " Ωmega"}));
  EXPECT_EQ(gpt2("汉字123"), (Pieces{"汉字", "123"}));
  EXPECT_EQ(gpt2("x²٣"), (Pieces{"x", "²٣"}));      // other numbers are \p{N} too
  EXPECT_EQ(gpt2("e\u0301"), (Pieces{"e", "\u0301"}));  // a combining mark is neither letter nor number
  EXPECT_EQ(gpt2("a\u00a0\u00a0b"), (Pieces{"a", "\u00a0", "\u00a0", "b"}));
  EXPECT_EQ(gpt2("\u180e\u180ex"), (Pieces{"\u180e\u180e", "x"}));  // no white space since Unicode 6.3
  EXPECT_EQ(gpt2("\u0085\u0085x"), (Pieces{"\u0085", "\u0085", "x"}));
}

TEST(Pretokenizer, BrokenUtf8IsAPieceOfItsOwn) {
  EXPECT_EQ(gpt2("ab\xff\xfe" "cd"), (Pieces{"ab", "\xff\xfe", "cd"}));
  EXPECT_EQ(gpt2("\xe6\xb1"), (Pieces{"\xe6\xb1"}));                      // cut short
  EXPECT_EQ(gpt2("a\xed\xa0\x80z"), (Pieces{"a", "\xed\xa0\x80", "z"}));  // a surrogate
  EXPECT_EQ(gpt2("a\xc0\x80z"), (Pieces{"a", "\xc0\x80", "z"}));          // overlong
  EXPECT_EQ(gpt2("a\xf4\x90\x80\x80"), (Pieces{"a", "\xf4\x90\x80\x80"}));  // above U+10FFFF
  EXPECT_EQ(gpt2("  \xff"), (Pieces{"  ", "\xff"}));
}

TEST(Pretokenizer, PiecesAreTheText) {
  std::mt19937 random(1);
  const PretokenizerChain pretokenizer = chain({split("\\p{N}"), byte_level()});
  for (int i = 0; i < 300; ++i) {
    const std::string text = random_text(random, 1 + random() % 40);
    std::string joined;
    for (const std::string& piece : cut(pretokenizer, text)) {
      EXPECT_FALSE(piece.empty());
      joined += piece;
    }
    EXPECT_EQ(joined, text);
  }
}

TEST(Pretokenizer, Llama3Expression) {
  const PretokenizerChain llama3 =
      chain({split(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"),
             byte_level(false, false)});
  EXPECT_EQ(cut(llama3, "IT'S 12345 (ok)!\n\n  x"), (Pieces{"IT", "'S", " ", "123", "45", " (", "ok", ")!\n\n", " ", " x"}));
  EXPECT_EQ(cut(llama3, "a \n b"), (Pieces{"a", " \n", " b"}));
}

TEST(Pretokenizer, ExpressionsAreOnigurumas) {
  EXPECT_EQ(cut(chain(json::array({split(R"([\p{L}&&[^\p{Han}]]+)")})), "ab汉c"), (Pieces{"ab", "汉", "c"}));  // an intersection of sets
  EXPECT_EQ(cut(chain(json::array({split(R"( ?[^(\s|[.,!?…。，、।۔،])]+)")})), "hi, (you)|!"), (Pieces{"hi", ", (", "you", ")|!"}));  // a set in a set
  EXPECT_EQ(cut(chain(json::array({split("b*")})), "aacb"), (Pieces{"a", "a", "c", "b"}));  // empty matches cut too
}

TEST(Pretokenizer, ExpressionsRunOneAfterAnotherAndKeepGaps) {
  EXPECT_EQ(cut(chain({split("\\p{N}"), byte_level()}), "a 12"), (Pieces{"a", " ", "1", "2"}));
  EXPECT_EQ(cut(chain(json::array({split("b")})), "abcb"), (Pieces{"a", "b", "c", "b"}));
  EXPECT_EQ(cut(read_pretokenizer(byte_level(true), "test"), "a b"), (Pieces{" a", " b"}));
  EXPECT_EQ(cut(read_pretokenizer(byte_level(true), "test"), " a"), (Pieces{" a"}));
}

TEST(Pretokenizer, BlanksOfItsOwnComeWhereTheSchemeSaysSo) {
  const auto words = [](const char* scheme, Edge edge, std::string_view text) {
    const auto chain = read_pretokenizer({{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", scheme}, {"split", true}}, "test");
    Pieces pieces;
    chain.cut(text, edge, [&](std::string_view piece, Edge) { pieces.emplace_back(piece); });
    return pieces;
  };
  EXPECT_EQ(words("always", Edge::start, "a  b"), (Pieces{"_a", "_", "_b"}));
  EXPECT_EQ(words("always", Edge::start, " a"), (Pieces{"_a"}));
  EXPECT_EQ(words("always", Edge::behind_token, "a"), (Pieces{"_a"}));
  EXPECT_EQ(words("always", Edge::behind_text, "a b"), (Pieces{"a", "_b"}));
  EXPECT_EQ(words("first", Edge::start, "a"), (Pieces{"_a"}));
  EXPECT_EQ(words("first", Edge::behind_token, "a"), (Pieces{"a"}));
  EXPECT_EQ(words("never", Edge::start, "a b"), (Pieces{"a", "_b"}));
}

TEST(Pretokenizer, LongRunsDoNotOverflow) {
  for (const char* unit : {" ", "a", "!", "\n"}) {
    std::string text;
    for (int i = 0; i < 300000; ++i) text += unit;
    EXPECT_EQ(gpt2(text), Pieces{text});
  }
}

TEST(Pretokenizer, ABadExpressionIsNamed) {
  const std::string error = refusal([] { chain(json::array({split("(a")})); });
  EXPECT_THAT(error, HasSubstr("some/tokenizer.json"));
  EXPECT_THAT(error, HasSubstr("'(a'"));
}

}  // namespace
}  // namespace collimate
