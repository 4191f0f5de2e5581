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
  EXPECT_THAT(of_text("good\tthree\n"), HasSubstr("'three' is not a number"));
  EXPECT_THAT(of_text("good\tnan\n"), HasSubstr("is not a number"));
  EXPECT_THAT(of_text("\t3\n"), HasSubstr("line 1"));
  EXPECT_THAT(of_text(" \t3\n"), HasSubstr("line 1"));
  EXPECT_THAT(of_text("good\t1.9\t0.9\t[2, 2]\n"), HasSubstr("line 1 of the lexicon"));
  EXPECT_THAT(of_text("good\t1.9\t0.9\t[2, 2]\n"), HasSubstr("has 4 columns: say which hold words and values"));
  EXPECT_THAT(of_text("well, done\t3\n"), HasSubstr("joined by"));
  EXPECT_THAT(of_text("good\t3\nGood\t2\n"), HasSubstr("earlier line"));
  EXPECT_THAT(of_text(""), HasSubstr("no entries"));
  EXPECT_THAT(refusal([] { make_lexicon_scorer("/nowhere/lexicon"); }), HasSubstr("/nowhere/lexicon"));
  EXPECT_THAT(refusal([&] { make_lexicon_scorer(written_, 0); }), HasSubstr("factor"));
  const std::string path = write("good\t3\n");
  EXPECT_THAT(refusal([&] { make_lexicon_scorer(path, 1, {1, 3}); }), HasSubstr("has 2 columns, and column 3 is asked for"));
  EXPECT_THAT(refusal([&] { make_lexicon_scorer(path, 1, {2, 2}); }), HasSubstr("cannot hold both words and values"));
}

// "good day" scored 0 where the list began with a byte order mark.
TEST_F(LexiconTest, AByteOrderMarkIsNoPartOfTheFirstWord) {
  const auto scorer = make_lexicon_scorer(write("\xEF\xBB\xBFgood\t3\nbad\t-3\n"));
  EXPECT_EQ(score_of(*scorer, "good day"), 3);
  EXPECT_EQ(score_of(*scorer, "bad,good"), 0);
  EXPECT_EQ(score_of(*scorer, "\xEF\xBB\xBFgood"), 3) << "nor of a response's";
}

// Expected by hand after Unicode's CaseFolding.txt.
TEST_F(LexiconTest, LetterCaseIsUnicodes) {
  const auto scorer = make_lexicon_scorer(write("\u00e9l\u00e8ve\t1\nSTRASSE\t2\n\u03bf\u03b4\u03cc\u03c2\t4\n\u043c\u0438\u0440\t8\n\u00dcbel\t16\n"));
  EXPECT_EQ(score_of(*scorer, "\u00c9L\u00c8VE"), 1);
  EXPECT_EQ(score_of(*scorer, "stra\u00dfe, Stra\u1e9ee"), 4);
  EXPECT_EQ(score_of(*scorer, "\u039f\u0394\u038c\u03a3"), 4) << "a final sigma";
  EXPECT_EQ(score_of(*scorer, "\u041c\u0418\u0420!"), 8);
  EXPECT_EQ(score_of(*scorer, "U\u0308BEL \u00fcbel"), 32) << "a mark apart and a letter with it are the same";
}

TEST_F(LexiconTest, SignsAreNoLettersAndSymbolsAreWords) {
  const auto scorer = make_lexicon_scorer(write("good\t1\n\U0001F600\t4\n\u2764\uFE0F\t8\n\U0001F469\u200D\U0001F4BB\t16\n"));
  for (const char* text : {"\u00abgood\u00bb", "\u00bfgood?", "\u00a9good\u00ae", "good\u00b0", "\u00a0good\u00a0", "\u00b7good\u00b7", "\u300cgood\u300d",
                           "good\u3002", "\u2014good\u2026", "\u20acgood", "go\u00adod", "\u200bgood"})
    EXPECT_EQ(score_of(*scorer, text), 1) << text;
  for (const char* text : {"\u00aagood", "\u00bagood", "\u00b5good", "good\u0301", "good\u0660", "gooda\u00e9"})
    EXPECT_EQ(score_of(*scorer, text), 0) << text << ": letters, marks and digits are parts of the word";
  EXPECT_EQ(score_of(*scorer, "good\U0001F600\U0001F600good"), 10);
  EXPECT_EQ(score_of(*scorer, "\u2764 and \u2764\uFE0F"), 16) << "how a symbol looks does not matter";
  EXPECT_EQ(score_of(*scorer, "\U0001F469\u200D\U0001F4BB"), 16);
  for (const char* tone : {"\U0001F3FB", "\U0001F3FC", "\U0001F3FD", "\U0001F3FE", "\U0001F3FF"})
    EXPECT_EQ(score_of(*scorer, fmt::format("\U0001F469{}\u200D\U0001F4BB", tone)), 16) << "of any skin";
  EXPECT_EQ(score_of(*scorer, "\U0001F469 \U0001F4BB"), 0);
}

// Lines as VADER's list has them: word, mean, deviation, ratings. Signs with letters (":D", "d:") are no words, LOL and lol are one.
TEST_F(LexiconTest, ColumnsAreChosen) {
  const std::string vader = write(
      "( '}{' )\t1.6\t0.66332\t[1, 2]\n:D\t2.3\t0.9\t[2, 3]\nd:\t1.2\t1.8\t[-2, 1]\nd:\t-2.9\t0.8\t[-3, -1]\n:-)\t1.3\t0.5\t[1, 1]\n"
      "good\t1.9\t0.9\t[2, 1]\nlol\t2.9\t0.5\t[3, 3]\nLOL\t1.8\t0.5\t[1, 2]\nh&k\t2.3\t0.78\t[2, 2]\n");
  const auto scorer = make_lexicon_scorer(vader, 1, {1, 2});
  EXPECT_DOUBLE_EQ(score_of(*scorer, "Good :-) good :-)!"), 2 * (1.9 + 1.3));
  EXPECT_EQ(score_of(*scorer, "plan d: k, d and h"), -2.9) << "'d:' is a sign between blanks; d, h and k are no words of the list";
  EXPECT_EQ(score_of(*scorer, "LOL"), 2.9) << "the one in small letters counts";
  EXPECT_EQ(score_of(*scorer, ":D"), 2.3);
  EXPECT_EQ(score_of(*scorer, "H&K good:-)"), 2.3 + 1.9) << "a sign is found only between blanks";
  for (const char* text : {":-).", ":-),", ":-)!", ":-)?", ":-);", ":-):", ":-)?!"}) EXPECT_EQ(score_of(*scorer, text), 1.3) << text;
  EXPECT_THAT(scorer->remark(), HasSubstr("another value than an earlier line: 2, first line 4"));
  EXPECT_THAT(scorer->remark(), HasSubstr("left out: 1, first '( '}{' )'"));
  EXPECT_DOUBLE_EQ(score_of(*make_lexicon_scorer(vader, 1, {1, 3}), "good"), 0.9);
  EXPECT_EQ(score_of(*make_lexicon_scorer(write("3\tgood\n"), 1, {2, 1}), "good"), 3);
  EXPECT_EQ(make_lexicon_scorer(written_, 1, {2, 1})->remark(), "");
  EXPECT_EQ(score_of(*make_lexicon_scorer(write("Lol\t1\t0\nLOL\t2\t0\n"), 1, {1, 2}), "lol"), 2) << "of two in capital letters the last";
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
  const auto marked = [](const char* text) { return marked_number(text).value_or("none"); };
  EXPECT_EQ(marked("so 3 + 4\n#### 7"), "7");
  EXPECT_EQ(marked("####7"), "7");
  EXPECT_EQ(marked("#### $1,450,000"), "1450000");
  EXPECT_EQ(marked("#### -3"), "-3");
  EXPECT_EQ(marked("#### \u22123"), "-3") << "the sign that typesetters use";
  EXPECT_EQ(marked("#### $-3.50"), "-3.5");
  EXPECT_EQ(marked("#### -\u20ac3.50"), "-3.5");
  EXPECT_EQ(marked("####\u00a018"), "18");
  EXPECT_EQ(marked("####\u202f18\u00a0%"), "18");
  EXPECT_EQ(marked("#### 18.00 dollars."), "18");
  EXPECT_EQ(marked("#### 18."), "18");
  EXPECT_EQ(marked("#### 18%"), "18");
  EXPECT_EQ(marked("#### 007"), "7");
  EXPECT_EQ(marked("#### 0.0"), "0");
  EXPECT_EQ(marked("#### -0"), "0");
  EXPECT_EQ(marked("#### .5"), "0.5");
  EXPECT_EQ(marked("#### seven"), "none");
  EXPECT_EQ(marked("####"), "none");
  EXPECT_EQ(marked("### 7"), "none");
  EXPECT_EQ(marked("the answer is 7"), "none");
}

// Texts with several marks: GSM8K's own expression, #### (\-?[0-9\.\,]+), finds these numbers last.
TEST(FinalNumber, IsBehindTheLastMarkThatANumberFollows) {
  const auto marked = [](const char* text) { return marked_number(text).value_or("none"); };
  EXPECT_EQ(marked("#### Plan\nAdd both.\n#### 18"), "18");
  EXPECT_EQ(marked("#### 5\nNext question ... #### 6"), "6");
  EXPECT_EQ(marked("#### 18\n#### Done"), "18");
  EXPECT_EQ(marked("#### 1. Plan\n#### 2. Sum\n#### 42\n####"), "42");
  EXPECT_EQ(marked("##### Plan\n##### 18"), "18");
  EXPECT_EQ(marked("#### #### 7"), "7");
  const auto reference = [](const char* text) { return reference_number(text).value_or("none"); };
  EXPECT_EQ(reference("#### Plan\n3 steps\n#### 18"), "18");
  EXPECT_EQ(reference("18"), "18");
  EXPECT_EQ(reference("3 steps\n#### seven"), "none") << "a mark without a number is no answer, nor is a number elsewhere";
}

TEST(FinalNumber, IsTheLastNumberWithoutAMark) {
  const auto last = [](const char* text) { return last_number(text).value_or("none"); };
  EXPECT_EQ(last("first 3, then $1,204.50."), "1204.5");
  EXPECT_EQ(last("10-4"), "4");
  EXPECT_EQ(last("10\u22124"), "4");
  EXPECT_EQ(last("it fell to -4 degrees"), "-4");
  EXPECT_EQ(last("it fell to \u22124 degrees"), "-4");
  EXPECT_EQ(last("1, 2, 3"), "3");
  EXPECT_EQ(last("no digits - at all"), "none");
  EXPECT_EQ(last("1e3"), "1000");
  EXPECT_EQ(last("1.25E+1"), "12.5");
  EXPECT_EQ(last("1e-05"), "0.00001");
  EXPECT_EQ(last("-12.5e-1 m"), "-1.25");
  EXPECT_EQ(last("0e9"), "0");
  EXPECT_EQ(last("3 eggs"), "3");
  EXPECT_EQ(last("it is 01/2."), "1/2");
  EXPECT_EQ(last("10/2 = 5"), "5");
  EXPECT_EQ(last("on 3/4/2020"), "2020");
  EXPECT_EQ(last("3e4b"), "4") << "a word, no exponent";
  EXPECT_EQ(last("1e999999"), "999999");
}

TEST(FinalNumber, ScoresOneOrZero) {
  const auto strict = make_final_number_scorer(), lenient = make_final_number_scorer(AnswerForm::last_number);
  EXPECT_EQ(score_of(*strict, "#### 1450", "so\n#### 1,450"), 1);
  EXPECT_EQ(score_of(*strict, "#### 1451", "#### 1,450"), 0);
  EXPECT_EQ(score_of(*strict, "#### Plan\nAdd both.\n#### 18", "#### 18"), 1);
  EXPECT_EQ(score_of(*strict, "#### 18", "#### Plan\nAdd both.\n#### 18"), 1);
  EXPECT_EQ(score_of(*strict, "it is 1450", "#### 1,450"), 0);
  EXPECT_EQ(score_of(*lenient, "it is 1450.", "1450"), 1);
  EXPECT_EQ(score_of(*strict, "#### 2", "1/2"), 0) << "a part of the reference";
  EXPECT_EQ(score_of(*strict, "#### 1/2", "1/2"), 1);
  EXPECT_EQ(score_of(*lenient, "#### Plan\nIt is 1450.", "1450"), 1);
  EXPECT_EQ(score_of(*lenient, "#### 1450\nThat took 3 steps.", "1450"), 1) << "a marked number comes first";
  EXPECT_THAT(refusal([&] { score_of(*strict, "#### 1", "none"); }), HasSubstr("sample 7"));
}

TEST(Scorers, SayWhyAllScoresAreEqual) {
  const auto why = [](const Scorer& scorer, std::vector<std::string> responses, const std::string& finish = "eos") {
    std::vector<ScoredSample> samples;
    for (const std::string& response : responses) samples.push_back({0, "", response, "#### 7", finish, 3});
    return scorer.why_equal(samples);
  };
  const auto strict = make_final_number_scorer(), lenient = make_final_number_scorer(AnswerForm::last_number);
  EXPECT_THAT(why(*strict, {"it is 7", "7"}), HasSubstr("ppo.exact_answer = last_number"));
  EXPECT_THAT(why(*strict, {"it is", "seven"}), HasSubstr("no response holds a number"));
  EXPECT_THAT(why(*strict, {"#### 8", "7"}), HasSubstr("no answer is right"));
  EXPECT_THAT(why(*strict, {"#### 7", "7\n#### 7."}), HasSubstr("all answers are right"));
  EXPECT_THAT(why(*lenient, {"it is", "seven"}), HasSubstr("no response holds a number"));
  EXPECT_THAT(why(*lenient, {"it is 8", "seven"}), HasSubstr("no answer is right"));
  const auto expression = make_expression_scorer("x");
  EXPECT_THAT(why(*expression, {"a", "b"}), HasSubstr("matches in no response"));
  EXPECT_THAT(why(*expression, {"x", "ax"}), HasSubstr("equally often"));
  const auto length = make_length_scorer(3, LengthUnit::characters);
  EXPECT_THAT(why(*length, {"ab", "abcd"}), HasSubstr("equally far"));
  EXPECT_THAT(why(*length, {"ab", "cd"}, "length"), HasSubstr("ppo.max_new"));
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
    const auto number = marked_number(answer);
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
