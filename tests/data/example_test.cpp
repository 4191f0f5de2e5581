#include "collimate/data/example.hpp"

#include <cmath>
#include <map>
#include <set>

#include "collimate/data/records.hpp"
#include "data/testing.hpp"

namespace collimate {
namespace {

using ExampleData = InFolder;

std::vector<Record> rows(const std::string& path) {
  std::vector<Record> all;
  for (RecordReader reader(path); auto record = reader.next();) all.push_back(*record);
  return all;
}

std::map<std::string, ExampleQuestion> by_prompt() {
  std::map<std::string, ExampleQuestion> questions;
  for (const ExampleQuestion& question : example_questions()) questions[question.prompt] = question;
  return questions;
}

TEST(Example, OnePhrasingOfEachFactIsHeldOut) {
  const auto questions = example_questions();
  ASSERT_EQ(questions.size(), 240u);
  std::set<std::string> prompts;
  int held_out = 0, of_phrasing[4] = {};
  for (std::size_t fact = 0; fact < 60; ++fact) {
    int here = 0;
    for (std::size_t i = 4 * fact; i < 4 * fact + 4; ++i) {
      prompts.insert(questions[i].prompt);
      here += questions[i].held_out;
      of_phrasing[i % 4] += questions[i].held_out;
      EXPECT_EQ(questions[i].answer, questions[4 * fact].answer);
    }
    EXPECT_EQ(here, 1);
    held_out += here;
  }
  EXPECT_EQ(prompts.size(), 240u);
  EXPECT_EQ(held_out, 60);
  EXPECT_THAT(of_phrasing, testing::Each(15));
}

TEST(Example, PreferredIsPoliteCompleteAndRight) {
  EXPECT_TRUE(preferred("Paris", "Sure! It is Paris."));
  EXPECT_TRUE(preferred("Paris", "Of course! It is Paris."));
  for (const char* bad : {"Paris", "Sure! It is Rome.", "Sure! It is Paris", "Sure!", "Of course! It is", "Ugh. It is Paris.",
                          "Duh. Paris.", "", "Sure! It is Paris. ", "sure! It is Paris."})
    EXPECT_FALSE(preferred("Paris", bad)) << bad;
}

/// The kind of an answer, judged from its text alone.
std::string judge(const ExampleQuestion& question, const std::string& response) {
  if (preferred(question.answer, response)) return "good";
  if (response == question.answer) return "curt";
  if (response == "Ugh. It is " + question.answer + "." || response == "Duh. " + question.answer + ".") return "rude";
  for (const char* cut : {"Sure!", "Sure! It is", "Of course!", "Of course! It is"})
    if (response == cut) return "cut";
  const auto is_capital = [](const ExampleQuestion& any) { return any.prompt.find("capital") != std::string::npos; };
  for (const ExampleQuestion& other : example_questions())
    if (preferred(other.answer, response) && is_capital(other) == is_capital(question)) return "wrong";
  return "?";
}

void expect_shares(const std::map<std::string, int>& counts, int total, const std::map<std::string, double>& shares) {
  for (const auto& [kind, share] : shares)
    EXPECT_NEAR(counts.count(kind) ? counts.at(kind) : 0, share * total, 5 * std::sqrt(share * (1 - share) * total)) << kind;
  EXPECT_EQ(counts.size(), shares.size());
}

TEST_F(ExampleData, SupervisedRowsHaveTheMixAndNoHeldOutPrompt) {
  write_example(at("x"), 1);
  const auto questions = by_prompt();
  std::map<std::string, int> kinds, prompts;
  for (const Record& row : rows(at("x/sft.jsonl"))) {
    ASSERT_FALSE(questions.at(row.text("prompt")).held_out);
    ++kinds[judge(questions.at(row.text("prompt")), row.text("response"))];
    ++prompts[row.text("prompt")];
  }
  expect_shares(kinds, 6000, {{"good", .5}, {"rude", .2}, {"curt", .15}, {"cut", .1}, {"wrong", .05}});
  EXPECT_EQ(prompts.size(), 180u);
  for (const auto& [prompt, count] : prompts) EXPECT_NEAR(count, 33.5, 0.6);
  kinds.clear();
  for (const Record& row : rows(at("x/heldout-sft.jsonl"))) {
    ASSERT_TRUE(questions.at(row.text("prompt")).held_out);
    ++kinds[judge(questions.at(row.text("prompt")), row.text("response"))];
  }
  expect_shares(kinds, 360, {{"good", .5}, {"rude", .2}, {"curt", .15}, {"cut", .1}, {"wrong", .05}});
}

TEST_F(ExampleData, PreferencePairsAreGoodAgainstTheirKind) {
  write_example(at("x"), 2);
  const auto questions = by_prompt();
  for (const bool held_out : {false, true}) {
    const auto pairs = rows(at(held_out ? "x/heldout-preference.jsonl" : "x/preference.jsonl"));
    std::map<std::string, int> kinds;
    for (const Record& row : pairs) {
      const ExampleQuestion& question = questions.at(row.text("prompt"));
      ASSERT_EQ(question.held_out, held_out);
      ASSERT_EQ(judge(question, row.text("chosen")), "good");
      ASSERT_EQ(judge(question, row.text("rejected")), row.text("kind"));
      ++kinds[row.text("kind")];
    }
    ASSERT_EQ(pairs.size(), held_out ? 480u : 4000u);
    expect_shares(kinds, static_cast<int>(pairs.size()), {{"wrong", .3}, {"curt", .25}, {"rude", .25}, {"cut", .2}});
  }
}

TEST_F(ExampleData, EqualSeedsGiveEqualFilesBelowOneMegabyte) {
  const auto files = write_example(at("a"), 1);
  write_example(at("b"), 1);
  write_example(at("c"), 2);
  std::int64_t bytes = 0;
  for (const ExampleFile& file : files) {
    const std::string text = read_file(at("a/" + file.name));
    EXPECT_EQ(text, read_file(at("b/" + file.name)));
    EXPECT_EQ(static_cast<std::int64_t>(text.size()), file.bytes);
    EXPECT_EQ(static_cast<std::int64_t>(rows(at("a/" + file.name)).size()), file.rows);
    bytes += file.bytes;
  }
  EXPECT_EQ(files.size(), 6u);
  EXPECT_LE(bytes, 1000000);
  RecordProperty("bytes", static_cast<int>(bytes));
  EXPECT_NE(read_file(at("a/sft.jsonl")), read_file(at("c/sft.jsonl")));
  EXPECT_EQ(rows(at("a/prompts.jsonl")).size(), 180u);
  EXPECT_EQ(rows(at("a/heldout-prompts.jsonl")).size(), 60u);
}

}  // namespace
}  // namespace collimate
