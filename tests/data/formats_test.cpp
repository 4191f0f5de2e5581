#include "collimate/data/formats.hpp"

#include "collimate/data/template.hpp"
#include "data/testing.hpp"

namespace collimate {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Formats : public InFolder {
 protected:
  Record record(std::string_view json) const { return *RecordReader(file("r.jsonl", json)).next(); }
  Example example(std::string_view json, SampleFormat format = SampleFormat::automatic) const { return read_example(record(json), format); }
  std::string complaint(std::string_view json, SampleFormat format = SampleFormat::automatic) const {
    return refusal([&] { example(json, format); });
  }
};

TEST_F(Formats, AreToldApartByTheirFields) {
  const std::pair<std::string_view, SampleFormat> cases[] = {
      {R"({"instruction": "a", "input": "", "output": "c"})", SampleFormat::alpaca},
      {R"({"prompt": "a", "response": "c"})", SampleFormat::prompt_response},
      {R"({"question": "a", "answer": "c"})", SampleFormat::prompt_response},
      {R"({"prompt": "a", "chosen": "b", "rejected": "c"})", SampleFormat::preference},
      {R"({"chosen": "b", "rejected": "c"})", SampleFormat::hh},
      {R"({"conversations": []})", SampleFormat::dialogue},
      {R"({"messages": [], "chosen": "b", "rejected": "c"})", SampleFormat::dialogue_preference},
      {R"({"act": "x", "prompt": "a"})", SampleFormat::prompts},
      {R"({"instruction": "a"})", SampleFormat::prompts},
      {R"({"text": "a"})", SampleFormat::text}};
  for (const auto& [json, format] : cases) {
    EXPECT_EQ(detect_format(record(json)), format) << json;
    EXPECT_EQ(sample_format_named(name_of(format)), format);
  }
  EXPECT_THAT(complaint(R"({"foo": "a", "bar": "b"})"),
              AllOf(HasSubstr("r.jsonl', line 1"), HasSubstr("bar, foo"), HasSubstr("prompt/response")));
  EXPECT_THAT(refusal([] { sample_format_named("alpacca"); }), HasSubstr("alpaca"));
}

TEST_F(Formats, GiveTheirParts) {
  const Example alpaca = example(R"({"instruction": "i", "input": "n", "output": "o"})");
  EXPECT_TRUE(alpaca.prompt == "i" && alpaca.input == "n" && alpaca.response == "o" && !alpaca.chosen);
  const Example pair = example(R"({"prompt": "p", "chosen": "c", "rejected": "r", "margin": 0.5, "kind": "rude"})");
  EXPECT_TRUE(pair.prompt == "p" && pair.chosen == "c" && pair.rejected == "r" && pair.margin == 0.5 && pair.category == "rude");
  EXPECT_EQ(example(R"({"question": "q", "answer": "#### 4"})", SampleFormat::prompts).answer, "#### 4");
  const Example turns = example(R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})");
  EXPECT_TRUE(turns.turns.size() == 1 && turns.turns[0].text == "q" && turns.response == "a");
  const Example text = example(R"({"text": "t"})");
  EXPECT_TRUE(text.is_text && text.response == "t");
}

TEST_F(Formats, HhPromptsReachToTheLastSharedCue) {
  const Example hh = example(
      R"({"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: Yes, it is", "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: Yes no"})");
  EXPECT_EQ(hh.prompt, "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:");
  EXPECT_EQ(hh.chosen, " Yes, it is");
  EXPECT_EQ(hh.rejected, " Yes no");
  EXPECT_EQ(Template().prompt_text(hh).text, hh.prompt);
  EXPECT_THAT(complaint(R"({"chosen": "yes", "rejected": "no"})"), HasSubstr("share no text"));
}

TEST_F(Formats, KindsTakeWhatTheyNeed) {
  const Example pair = example(R"({"prompt": "p", "chosen": "c", "rejected": "r"})");
  EXPECT_EQ(as_kind(pair, DatasetKind::supervised).response, "c");
  EXPECT_FALSE(as_kind(pair, DatasetKind::prompts).answer.has_value());
  const Example answered = example(R"({"prompt": "p", "response": "c"})");
  EXPECT_EQ(as_kind(answered, DatasetKind::prompts).answer, "c");
  EXPECT_THAT(refusal([&] { as_kind(answered, DatasetKind::preference); }), AllOf(HasSubstr("line 1"), HasSubstr("'chosen'")));
  EXPECT_THAT(refusal([&] { as_kind(example(R"({"prompt": "p"})"), DatasetKind::supervised); }), HasSubstr("needs a response"));
  // Nothing is no response; in a pair it can be the better or the worse one.
  const auto supervised = [&](const char* json) { return refusal([&] { as_kind(example(json), DatasetKind::supervised); }); };
  EXPECT_THAT(supervised(R"({"prompt": "p", "response": ""})"), AllOf(HasSubstr("line 1"), HasSubstr("the response is empty")));
  EXPECT_THAT(supervised(R"({"instruction": "i", "output": " \n"})"), HasSubstr("the response is empty"));
  EXPECT_THAT(supervised(R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": ""}]})"), HasSubstr("is empty"));
  EXPECT_EQ(as_kind(example(R"({"prompt": "p", "chosen": "", "rejected": "r"})"), DatasetKind::preference).chosen, "");
  EXPECT_THAT(refusal([&] { as_kind(example(R"({"prompt": "p", "chosen": "", "rejected": " "})"), DatasetKind::preference); }),
              HasSubstr("both empty"));
  const Example text = as_kind(example(R"({"text": "t"})"), DatasetKind::prompts);
  EXPECT_TRUE(text.prompt == "t" && !text.answer && !text.is_text);
}

TEST_F(Formats, BadFieldsAreNamed) {
  EXPECT_THAT(complaint(R"({"instruction": "i", "output": 3})"), AllOf(HasSubstr("line 1"), HasSubstr("'output' must be a text")));
  EXPECT_THAT(complaint(R"({"prompt": "p"})", SampleFormat::alpaca), HasSubstr("'instruction' is missing"));
  EXPECT_THAT(complaint(R"({"prompt": "p", "chosen": "c", "rejected": "r", "margin": "wide"})"), HasSubstr("'margin' must be a number"));
  EXPECT_THAT(complaint(R"({"conversations": [{"from": "alien", "value": "q"}]})"), HasSubstr("'alien'"));
  EXPECT_THAT(complaint(R"({"conversations": [{"from": "gpt", "value": "q"}]})"), HasSubstr("no question"));
  EXPECT_THAT(complaint(R"({"conversations": [{"from": "human", "value": "q"}], "chosen": [], "rejected": []})"), HasSubstr("one message"));
}

TEST(RealFormats, AllPairsAndDialoguesAreRead) {
  if (test_data("").empty()) GTEST_SKIP() << "COLLIMATE_TEST_DATA is not set";
  int pairs = 0;
  for (RecordReader reader(test_data("rlhf/hh-harmless-base-test.jsonl.gz")); auto record = reader.next(); ++pairs) {
    const Example example = read_example(*record, SampleFormat::automatic);
    EXPECT_TRUE(example.prompt.starts_with("\n\nHuman:") && example.prompt.ends_with("\n\nAssistant:"));
    EXPECT_NE(example.chosen, example.rejected);
    EXPECT_EQ(example.prompt + *example.chosen, record->text("chosen"));
    EXPECT_EQ(example.prompt + *example.rejected, record->text("rejected"));
  }
  EXPECT_EQ(pairs, 2312);
  pairs = 0;
  for (RecordReader reader(test_data("rlhf/llamafactory_dpo_en_demo.json")); auto record = reader.next(); ++pairs)
    EXPECT_TRUE(as_kind(read_example(*record, SampleFormat::automatic), DatasetKind::preference).chosen.has_value());
  EXPECT_EQ(pairs, 300);
}

}  // namespace
}  // namespace collimate
