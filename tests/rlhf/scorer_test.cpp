#include "collimate/rlhf/scorer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"
#include "support/refusal.hpp"

namespace collimate::rlhf {
namespace {

using test::refusal;
using testing::HasSubstr;

double score_of(Scorer& scorer, const std::string& response, const std::string& answer = "", std::int64_t tokens = 0) {
  const ScoredSample sample{7, "a prompt", response, answer, "eos", tokens};
  return scorer.score({&sample, 1}).at(0);
}

class LexiconTest : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    const auto path = std::filesystem::temp_directory_path() / ("collimate_lexicon_" + std::to_string(::getpid()));
    std::ofstream(path) << text;
    written_ = path.string();
    return written_;
  }
  ~LexiconTest() override {
    if (!written_.empty()) std::filesystem::remove(written_);
  }
  std::string written_;
};

TEST_F(LexiconTest, WordsPhrasesAndJoints) {
  const auto scorer = make_lexicon_scorer(
      write("good\t3\nnot good\t-2\nbad\t-3\nself-made\t2\ncan't stand\t-3\nna\u00efve\t-2\r\nmade\t0.5\nwhat a bad day\t-10\n"));
  EXPECT_EQ(score_of(*scorer, ""), 0);
  EXPECT_EQ(score_of(*scorer, "Good, GOOD. good!"), 9);
  EXPECT_EQ(score_of(*scorer, "goodness badly agood"), 0) << "whole words only";
  EXPECT_EQ(score_of(*scorer, "This is not good"), -2) << "the longest entry wins and uses its words up";
  EXPECT_EQ(score_of(*scorer, "This is not\n  good"), -2);
  EXPECT_EQ(score_of(*scorer, "Not, good"), 3) << "a comma parts a phrase";
  EXPECT_EQ(score_of(*scorer, "not-good"), 3) << "and a hyphen is no blank";
  EXPECT_EQ(score_of(*scorer, "a self-made man, a self made man"), 2.5);
  EXPECT_EQ(score_of(*scorer, "well-made"), 0.5);
  EXPECT_EQ(score_of(*scorer, "self--made"), 0.5);
  EXPECT_EQ(score_of(*scorer, "I can't stand it; I can\u2019t stand it"), -6);
  EXPECT_EQ(score_of(*scorer, "the 'good' and \u201cgood\u201d\u2014good\u2026"), 9);
  EXPECT_EQ(score_of(*scorer, "na\u00efve"), -2);
  EXPECT_EQ(score_of(*scorer, "What a bad day. What a bad dog"), -13) << "a phrase that breaks off gives its words back";
  EXPECT_EQ(score_of(*scorer, "what a"), 0);
  EXPECT_EQ(score_of(*scorer, "\xff good \xe2\x80"), 3) << "broken UTF-8 does no harm";
  const auto flipped = make_lexicon_scorer(written_, -1);
  EXPECT_EQ(score_of(*flipped, "bad bad good"), 3);
}

TEST_F(LexiconTest, BadFilesAreRefusedWithTheirLine) {
  const auto of_text = [&](const std::string& text) {
    const std::string path = write(text);
    return refusal([&] { make_lexicon_scorer(path); });
  };
  EXPECT_THAT(of_text("good\t3\nbad -3\n"), HasSubstr("line 2"));
  EXPECT_THAT(of_text("good\tthree\n"), HasSubstr("'three' is no number"));
  EXPECT_THAT(of_text("good\tnan\n"), HasSubstr("is no number"));
  EXPECT_THAT(of_text(":-)\t3\n"), HasSubstr("no letter"));
  EXPECT_THAT(of_text("well, done\t3\n"), HasSubstr("joined by"));
  EXPECT_THAT(of_text("good\t3\nGood\t2\n"), HasSubstr("earlier line"));
  EXPECT_THAT(of_text(""), HasSubstr("no entries"));
  EXPECT_THAT(refusal([] { make_lexicon_scorer("/nowhere/lexicon"); }), HasSubstr("cannot be opened"));
  EXPECT_THAT(refusal([&] { make_lexicon_scorer(written_, 0); }), HasSubstr("factor"));
}

TEST(ExpressionScorer, OnceAndEvery) {
  EXPECT_EQ(score_of(*make_expression_scorer("colou?r"), "my color, my colour"), 1);
  EXPECT_EQ(score_of(*make_expression_scorer("colou?r", -2), "none"), 0);
  EXPECT_EQ(score_of(*make_expression_scorer("colou?r", -2, ExpressionCount::every), "my color, my colour"), -4);
  EXPECT_EQ(score_of(*make_expression_scorer("aa", 1, ExpressionCount::every), "aaaaa"), 2);
  EXPECT_EQ(score_of(*make_expression_scorer("x*", 1, ExpressionCount::every), "axxb\u00e9x"), 2) << "empty matches do not count";
  EXPECT_EQ(score_of(*make_expression_scorer("(?i)^\\p{L}+$"), "\u00c9t\u00e9"), 1);
  EXPECT_EQ(score_of(*make_expression_scorer("b", 1, ExpressionCount::every), "b\xff\xfe" "b"), 2) << "broken UTF-8 does no harm";
  EXPECT_THAT(refusal([] { make_expression_scorer("a(b"); }), HasSubstr("'a(b' is wrong at character 3"));
  const auto slow = make_expression_scorer("^(a+)+$");
  EXPECT_THAT(refusal([&] { score_of(*slow, std::string(64, 'a') + "b"); }), HasSubstr("sample 7"));
}

TEST(LengthScorer, CharactersAndTokens) {
  const auto characters = make_length_scorer(4, LengthUnit::characters);
  EXPECT_EQ(score_of(*characters, "\u00e9t\u00e9s"), 0);
  EXPECT_EQ(score_of(*characters, ""), -1);
  EXPECT_EQ(score_of(*characters, "123456"), -0.5);
  EXPECT_EQ(score_of(*make_length_scorer(10, LengthUnit::tokens), "whatever", "", 8), -0.2);
  EXPECT_THROW(make_length_scorer(0, LengthUnit::tokens), Error);
}

TEST(FinalNumber, IsReadAsItIsMeant) {
  const auto strict = [](const char* text) { return final_number(text, false).value_or("none"); };
  EXPECT_EQ(strict("so 3 + 4\n#### 7"), "7");
  EXPECT_EQ(strict("####7"), "7");
  EXPECT_EQ(strict("#### $1,450,000"), "1450000");
  EXPECT_EQ(strict("#### -3"), "-3");
  EXPECT_EQ(strict("#### $-3.50"), "-3.5");
  EXPECT_EQ(strict("#### 18.00 dollars."), "18");
  EXPECT_EQ(strict("#### 18."), "18");
  EXPECT_EQ(strict("#### 007"), "7");
  EXPECT_EQ(strict("#### 0.0"), "0");
  EXPECT_EQ(strict("#### -0"), "0");
  EXPECT_EQ(strict("#### .5"), "0.5");
  EXPECT_EQ(strict("#### 5\nNext question ... #### 6"), "5") << "the first mark counts";
  EXPECT_EQ(strict("#### seven"), "none");
  EXPECT_EQ(strict("####"), "none");
  EXPECT_EQ(strict("the answer is 7"), "none");
  const auto lenient = [](const char* text) { return final_number(text, true).value_or("none"); };
  EXPECT_EQ(lenient("first 3, then $1,204.50."), "1204.5");
  EXPECT_EQ(lenient("10-4"), "4");
  EXPECT_EQ(lenient("it fell to -4 degrees"), "-4");
  EXPECT_EQ(lenient("1, 2, 3"), "3");
  EXPECT_EQ(lenient("no digits - at all"), "none");
  EXPECT_EQ(lenient("9 then #### x"), "none") << "a mark without a number is no answer";
}

TEST(FinalNumber, ScoresOneOrZero) {
  const auto strict = make_final_number_scorer(), lenient = make_final_number_scorer(true);
  EXPECT_EQ(score_of(*strict, "#### 1450", "so\n#### 1,450"), 1);
  EXPECT_EQ(score_of(*strict, "#### 1451", "#### 1,450"), 0);
  EXPECT_EQ(score_of(*strict, "it is 1450", "#### 1,450"), 0);
  EXPECT_EQ(score_of(*lenient, "it is 1450.", "1450"), 1);
  EXPECT_THAT(refusal([&] { score_of(*strict, "#### 1", "none"); }), HasSubstr("sample 7"));
}

// ---- real files ----

class RealDataTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("COLLIMATE_TEST_DATA");
    if (!folder) GTEST_SKIP() << "COLLIMATE_TEST_DATA is not set";
    folder_ = folder;
  }
  std::string folder_;
};

TEST_F(RealDataTest, AfinnSentences) {
  const auto scorer = make_lexicon_scorer(folder_ + "/rlhf/AFINN-en-165.txt");
  EXPECT_EQ(score_of(*scorer, "This is utterly excellent!"), 3);
  EXPECT_EQ(score_of(*scorer, "The movie was not good, it was terrible and boring."), -8);
  EXPECT_EQ(score_of(*scorer, "I can't stand bad luck."), -5);
  EXPECT_EQ(score_of(*scorer, "A happy, well-loved little dog had a GREAT day."), 9);
  EXPECT_EQ(score_of(*scorer, "Once upon a time there was a girl named Lily. She loved to play, but she was sad and scared."), -1);
  EXPECT_EQ(score_of(*scorer, "The naïve plan had no fun in it; the screwed up idea does not work."), -11);
  EXPECT_EQ(score_of(*scorer, "Cool stuff! Some kind of breathtaking, self-confident winner's smile."), 16);
  EXPECT_EQ(score_of(*scorer, "It is on the table."), 0);
}

TEST_F(RealDataTest, EveryGsm8kAnswerParses) {
  std::ifstream input(folder_ + "/rlhf/gsm8k_test.jsonl");
  const auto scorer = make_final_number_scorer();
  std::vector<ScoredSample> samples;
  double total = 0;
  for (std::string line; std::getline(input, line);) {
    const auto record = nlohmann::json::parse(line);
    const std::string answer = record["answer"];
    const auto number = final_number(answer, false);
    ASSERT_TRUE(number.has_value()) << answer;
    std::string by_hand = answer.substr(answer.rfind("#### ") + 5);
    std::erase(by_hand, ',');
    EXPECT_EQ(std::stod(*number), std::stod(by_hand));
    total += std::stod(*number);
    samples.push_back({static_cast<std::int64_t>(samples.size()), record["question"], "#### " + *number, answer, "eos", 0});
  }
  ASSERT_EQ(samples.size(), 1319u);
  EXPECT_EQ(scorer->score(samples), std::vector<double>(1319, 1.0));
  for (ScoredSample& sample : samples) sample.response += "1";
  EXPECT_EQ(scorer->score(samples), std::vector<double>(1319, 0.0));
  EXPECT_EQ(total, 9009187.0);
}

}  // namespace
}  // namespace collimate::rlhf
