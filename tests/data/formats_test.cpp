#include "collimate/data/formats.hpp"

#include <set>

#include "collimate/data/template.hpp"
#include "data/testing.hpp"

namespace collimate {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Formats : public InFolder {
 protected:
  Record record(std::string_view json) const { return *RecordReader(file("r.jsonl", json)).next(); }
  Example example(std::string_view json, SampleFormat format = SampleFormat::automatic) const { return read_examples(record(json), format).examples.at(0); }
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
      {R"({"chosen": [{"role": "user", "content": "a"}], "rejected": []})", SampleFormat::preference},
      {R"({"prompt": "a", "messages": [], "chosen": [], "rejected": []})", SampleFormat::preference},
      {R"({"prompt": "a", "responses": ["b", "c"], "scores": [1, 2]})", SampleFormat::ranking},
      {R"({"instruction": "a", "completions": [{"response": "b", "overall_score": 1}]})", SampleFormat::ranking},
      {R"({"prompt": [{"role": "user", "content": "a"}]})", SampleFormat::prompts},
      {R"({"prompt": {"text": "a", "role": "prompter", "replies": []}})", SampleFormat::oasst},
      {R"({"act": "x", "prompt": "a"})", SampleFormat::prompts},
      {R"({"instruction": "a"})", SampleFormat::prompts},
      {R"({"text": "a"})", SampleFormat::text}};
  for (const auto& [json, format] : cases) EXPECT_EQ(detect_format(record(json)), format) << json;
  std::set<SampleFormat> named;
  for (const std::string& name : sample_format_names()) named.insert(sample_format_named(name));
  EXPECT_EQ(named.size(), sample_format_names().size());
  EXPECT_EQ(sample_format_named("prompt-response"), SampleFormat::prompt_response);
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

TEST_F(Formats, ASystemTextOfTheRecordIsATurn) {
  const auto first = [](const Example& read) { return read.turns.empty() ? Turn{} : read.turns.front(); };
  const char* dialogue = R"({"system": "Be brief.", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  EXPECT_EQ(first(example(dialogue)), (Turn{"system", "Be brief."}));
  const char* own = R"({"system": "no", "messages": [{"role": "system", "content": "yes"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  EXPECT_EQ(first(example(own)), (Turn{"system", "yes"})) << "the dialogue's own stays";
  EXPECT_EQ(example(own).turns.size(), 2u);
  // Beside a prompt it is a turn for a chat template, and unused without one.
  const char* prompt = R"({"system_prompt": "Be brief.", "prompt": "q", "response": "a"})";
  EXPECT_EQ(example(prompt).system, "");
  Template chatml;
  chatml.chat.name = "chatml";
  chatml.chat.default_system = "You help.";
  chatml.system = "<s>", chatml.human = "<u>", chatml.assistant = "<a>", chatml.turn_suffix = "</>", chatml.prompt = "{prompt}";
  const Record record = this->record(prompt);
  Example asked = read_examples(record, SampleFormat::automatic, {.chat = &chatml.chat}).examples.at(0);
  EXPECT_EQ(chatml.prompt_text(asked).text, "<s>Be brief.</><u>q</><a>");
  EXPECT_TRUE(record.unused().empty());
  asked.system.clear();
  EXPECT_EQ(chatml.prompt_text(asked).text, "<s>You help.</><u>q</><a>");
}

TEST_F(Formats, KindsTakeWhatTheyNeed) {
  const Example pair = example(R"({"prompt": "p", "chosen": "c", "rejected": "r"})");
  EXPECT_EQ(as_kind(pair, DatasetKind::supervised).response, "c");
  EXPECT_FALSE(as_kind(pair, DatasetKind::prompts).answer.has_value());
  const Example answered = example(R"({"prompt": "p", "response": "c"})");
  EXPECT_EQ(as_kind(answered, DatasetKind::prompts).answer, "c");
  EXPECT_THAT(refusal([&] { as_kind(answered, DatasetKind::preference); }), AllOf(HasSubstr("line 1"), HasSubstr("'chosen'")));
  EXPECT_THAT(refusal([&] { as_kind(example(R"({"prompt": "p"})"), DatasetKind::supervised); }), HasSubstr("needs a response"));
  EXPECT_THAT(refusal([&] { as_kind(example(R"({"messages": [{"role": "user", "content": "q"}]})"), DatasetKind::supervised); }),
              HasSubstr("the dialogue ends with a question"));
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
  EXPECT_THAT(complaint(R"({"instruction": "i", "output": [3]})"), AllOf(HasSubstr("line 1"), HasSubstr("'output' must be a text")));
  EXPECT_THAT(complaint(R"({"prompt": "p"})", SampleFormat::alpaca), HasSubstr("'instruction' is missing"));
  EXPECT_THAT(complaint(R"({"prompt": "p", "chosen": "c", "rejected": "r", "margin": "wide"})"), HasSubstr("'margin' must be a number"));
  EXPECT_THAT(complaint(R"({"conversations": [{"from": "alien", "value": "q"}]})"), HasSubstr("'alien'"));
  EXPECT_THAT(complaint(R"({"conversations": [{"from": "gpt", "value": "q"}]})"), HasSubstr("no question"));
  EXPECT_THAT(complaint(R"({"conversations": [{"from": "human", "value": "q"}], "chosen": [], "rejected": []})"), HasSubstr("empty list"));
}

/// Case 31 and its kin: the pair "Blue." over "No." behind the question, in every form in which people have it.
TEST_F(Formats, PairsOfMessagesAreThoseOfTheLastAnswer) {
  const std::string user = R"({"role": "user", "content": "Name a colour."})", good = R"({"role": "assistant", "content": "Blue."})",
                    bad = R"({"role": "assistant", "content": "No."})", text = R"("prompt": "Name a colour.")";
  const std::string whole = fmt::format(R"("chosen": [{0}, {1}], "rejected": [{0}, {2}])", user, good, bad);
  const std::string forms[] = {
      fmt::format(R"({{"prompt": [{}], "chosen": [{}], "rejected": [{}]}})", user, good, bad),
      fmt::format("{{{}, {}}}", text, whole),
      fmt::format("{{{}}}", whole),
      fmt::format(R"({{{}, {}, "messages": [{}, {}], "score_chosen": 8.5}})", text, whole, user, good),
      fmt::format(R"({{"conversations": [{{"from": "human", "value": "Name a colour."}}], "chosen": {{"from": "gpt", "value": "Blue."}}, "rejected": {}}})", bad),
      fmt::format(R"({{{}, "chosen": [{}], "rejected": [{}]}})", text, good, bad),
      fmt::format(R"({{"prompt": [{}], "chosen": "Blue.", "rejected": "No."}})", user),
      fmt::format(R"({{"messages": [{}], "chosen": {}, "rejected": {}}})", user, good, bad)};
  for (const std::string& form : forms) {
    const Example pair = example(form);
    EXPECT_EQ(pair.turns, (std::vector<Turn>{{"human", "Name a colour."}})) << form;
    EXPECT_TRUE(pair.chosen == "Blue." && pair.rejected == "No.") << form;
  }
  const std::string alpaca = R"("instruction": "Name a colour.", "input": "Of the sky.")";
  EXPECT_EQ(example(fmt::format(R"({{{}, "chosen": [{}], "rejected": [{}]}})", alpaca, good, bad)).turns,
            (std::vector<Turn>{{"human", "Name a colour.\nOf the sky."}}));
  const std::string two = fmt::format(R"({{"chosen": [{0}, {1}, {0}, {1}], "rejected": [{0}, {1}, {0}, {2}]}})", user, good, bad);
  EXPECT_EQ(example(two).turns.size(), 3u);
  EXPECT_THAT(complaint(fmt::format(R"({{"chosen": [{0}, {1}, {0}, {1}], "rejected": [{0}, {2}, {0}, {2}]}})", user, good, bad)),
              HasSubstr("one answer of the assistant"));  // they part at the first answer
  EXPECT_THAT(complaint(fmt::format(R"({{"prompt": "Another one?", {}}})", whole)), HasSubstr("not a question of the record's dialogue"));
  EXPECT_THAT(complaint(fmt::format(R"({{{}, {}, "messages": [{}, {}]}})", text, whole, user, bad)), HasSubstr("'messages'"));
  EXPECT_THAT(complaint(fmt::format(R"({{"chosen": [{}], "rejected": [{}]}})", good, bad)), HasSubstr("no field holds what was asked"));
  EXPECT_THAT(complaint(fmt::format(R"({{{}, "chosen": "a", "rejected": [{}]}})", text, bad)), HasSubstr("write both alike"));
}

TEST_F(Formats, MessagesStandForPromptsAndCompletions) {
  const Example prompt = example(R"({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "answer": 7})", SampleFormat::prompts);
  EXPECT_EQ(prompt.turns, (std::vector<Turn>{{"system", "s"}, {"human", "q"}}));
  EXPECT_EQ(prompt.answer, "7");
  const Example both = example(R"({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]})");
  EXPECT_TRUE(both.turns == (std::vector<Turn>{{"human", "q"}}) && both.response == "a");
  EXPECT_EQ(example(R"({"prompt": "q", "completion": [{"role": "assistant", "content": "a"}]})").turns.size(), 1u);
  EXPECT_THAT(complaint(R"({"prompt": [{"role": "assistant", "content": "q"}]})"), HasSubstr("must end with a question"));
  EXPECT_THAT(complaint(R"({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "user", "content": "a"}]})"),
              HasSubstr("the assistant's answer"));
}

using Pair = std::tuple<std::string, std::string, double>;
std::vector<Pair> pairs_in(const Reading& reading) {
  std::vector<Pair> pairs;
  for (const Example& e : reading.examples) pairs.emplace_back(*e.chosen, *e.rejected, e.margin);
  return pairs;
}

/// Case 33: every two answers that differ in their scores.
TEST_F(Formats, SeveralAnswersBecomePairs) {
  using testing::ElementsAre;
  const auto pairs = [&](std::string_view json) { return pairs_in(read_examples(record(json), SampleFormat::automatic)); };
  EXPECT_THAT(pairs(R"({"prompt": "Q?", "chosen": "a", "rejected": ["b", "c"]})"), ElementsAre(Pair("a", "b", 0), Pair("a", "c", 0)));
  const auto three = ElementsAre(Pair("a", "b", 1), Pair("a", "c", 2.5), Pair("b", "c", 1.5));
  EXPECT_THAT(pairs(R"({"prompt": "Q?", "responses": ["b", "c", "a"], "scores": [2, 0.5, 3]})"), three);
  EXPECT_THAT(pairs(R"({"instruction": "Q?", "completions": [{"response": "a", "overall_score": 3}, {"response": "b", "overall_score": 2}, )"
                    R"({"response": "c", "overall_score": 0.5}, {"response": "d", "overall_score": null}]})"),
              three);
  EXPECT_THAT(pairs(R"({"prompt": "Q?", "responses": ["a", "b"], "ranks": [2, 1]})"), ElementsAre(Pair("b", "a", 0)));
  EXPECT_THAT(pairs(R"({"prompt": "Q?", "answers": [{"answer": "x", "rank": 1}, {"answer": "y", "rank": 2}]})"), ElementsAre(Pair("x", "y", 0)));
  EXPECT_THAT(pairs(R"({"prompt": "Q?", "responses": ["a", "b", "c"], "scores": [1, 1, 0]})"), ElementsAre(Pair("a", "c", 1), Pair("b", "c", 1)));
  EXPECT_THAT(pairs(R"({"prompt": "Q?", "chosen": 51.0, "rejected": true})"), ElementsAre(Pair("51.0", "true", 0)));
  const Reading equal = read_examples(record(R"({"prompt": "Q?", "responses": ["a", "b"], "scores": [1, 1.0]})"), SampleFormat::automatic);
  EXPECT_TRUE(equal.examples.empty() && equal.left_out.find("no two answers") != std::string::npos);
  EXPECT_THAT(complaint(R"({"prompt": "Q?", "responses": ["a", "b"]})"), HasSubstr("nothing says which is better"));
  EXPECT_THAT(complaint(R"({"prompt": "Q?", "responses": ["a", "b"], "scores": [1]})"), HasSubstr("2 answers and 'scores' 1 numbers"));
  EXPECT_THAT(complaint(R"({"prompt": "Q?", "responses": ["a", "b"], "scores": [1, "x"]})"), HasSubstr("'x' where a number"));
  const Reading best = read_examples(record(R"({"prompt": "Q?", "responses": ["b", "a"], "scores": [2, 3]})"), SampleFormat::automatic, {.kind = DatasetKind::supervised});
  ASSERT_EQ(best.examples.size(), 1u);
  EXPECT_EQ(as_kind(best.examples[0], DatasetKind::supervised).response, "a");
}

TEST_F(Formats, ColumnsThatTheUserNames) {
  const auto read = [&](std::string_view json, const FieldNames& names, std::optional<DatasetKind> kind = {}) {
    names.check();
    return read_examples(with_usual_names(record(json), names), SampleFormat::automatic, {names, Learn::last, kind});
  };
  const FieldNames farm{.prompt = "input", .answers = {"output_1", "output_2"}, .label = "label", .label_values = {"1", "2"}};
  using testing::ElementsAre;
  EXPECT_THAT(pairs_in(read(R"({"input": "q", "output_1": "a", "output_2": "b", "label": 1})", farm)), ElementsAre(Pair("a", "b", 0)));
  const Reading second = read(R"({"input": "q", "output_1": "a", "output_2": "b", "label": "2", "prompt": "other", "input_2": "x"})", farm);
  EXPECT_THAT(pairs_in(second), ElementsAre(Pair("b", "a", 0)));
  EXPECT_EQ(second.examples[0].prompt, "q");
  EXPECT_THAT(read(R"({"input": "q", "output_1": "a", "output_2": "b", "label": "tie"})", farm).left_out, HasSubstr("none of 1, 2"));
  const FieldNames names{.prompt = "q", .chosen = "better", .rejected = "worse"};
  EXPECT_THAT(pairs_in(read(R"({"q": "a", "better": "x", "worse": "y"})", names)), ElementsAre(Pair("x", "y", 0)));
  const Reading sst = read(R"({"sentence": "fine", "label": 1})", {.prompt = "sentence", .response = "label"});
  EXPECT_TRUE(sst.examples[0].prompt == "fine" && sst.examples[0].response == "1");
  const Reading swapped = read(R"({"prompt": "p", "response": "r", "text": "t"})", {.prompt = "response", .response = "prompt"});
  EXPECT_TRUE(swapped.examples[0].prompt == "r" && swapped.examples[0].response == "p");
  EXPECT_THAT(refusal([&] { read(R"({"a": "b"})", names); }), AllOf(HasSubstr("no field 'q'"), HasSubstr("it has a")));
  EXPECT_THAT(refusal([&] { FieldNames{.answers = {"a", "b"}, .label = "l", .label_values = {"1"}}.check(); }), HasSubstr("needs the label"));
  EXPECT_THAT(refusal([&] { FieldNames{.label = "l"}.check(); }), HasSubstr("go together"));
}

/// A label that says good or bad is never passed over.
TEST_F(Formats, LabelsOfKtoAreRefusedOrTakenAtTheirWord) {
  const std::string bad = R"({"prompt": "p", "completion": "c", "label": false})", good = R"({"prompt": "p", "completion": "c", "label": true})";
  for (const std::string& json : {bad, good, std::string(R"({"prompt": "p", "completion": "c", "label": "True"})"),
                                  std::string(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "kto_tag": true})"),
                                  std::string(R"({"prompt": "p", "completion": "c", "label": 0})")})
    EXPECT_THAT(complaint(json), AllOf(HasSubstr("good or bad"), HasSubstr("--label-values true"))) << json;
  const FieldNames names{.label = "label", .label_values = {"true"}};
  const auto read = [&](std::string_view json) { return read_examples(with_usual_names(record(json), names), SampleFormat::automatic, {.names = names}); };
  EXPECT_EQ(read(good).examples.at(0).response, "c");
  EXPECT_TRUE(read(bad).examples.empty());
  EXPECT_THAT(read(bad).left_out, HasSubstr("label"));
  EXPECT_NO_THROW(example(R"({"text": "t", "label": 3})"));
}

TEST_F(Formats, APromptBesideAnswersThatNobodyReadsIsNoPromptAlone) {
  const auto alone = [&](std::string_view json) {
    return refusal([&] {
      const Record r = record(json);
      read_examples(r, SampleFormat::automatic);
      require_no_answers(r);
    });
  };
  EXPECT_THAT(alone(R"({"prompt": "p", "response_0": "a", "response_1": "b", "better_response_id": 0})"), HasSubstr("--answer-fields"));
  EXPECT_THAT(alone(R"({"prompt": "p", "chosen": "a"})"), HasSubstr("'chosen'"));
  const Record fine = record(R"({"act": "x", "prompt": "p"})");
  read_examples(fine, SampleFormat::automatic);
  EXPECT_NO_THROW(require_no_answers(fine));
}

/// Case 29 and its kin: what a message says about being learned is used, what cannot be used is refused.
TEST_F(Formats, MessagesSayWhatIsLearned) {
  const auto dialogue = [&](std::string_view first, std::string_view second, Learn learn) {
    const std::string json = fmt::format(
        R"({{"messages": [{{"role": "user", "content": "A?"}}, {{"role": "assistant", "content": "good"{}}}, {{"role": "user", "content": "B?"}}, {{"role": "assistant", "content": "bad"{}}}]}})",
        first, second);
    return read_examples(record(json), SampleFormat::automatic, {.learn = learn});
  };
  for (const std::string no : {R"(, "weight": 0)", R"(, "weight": 0.0)", R"(, "train": false)", R"(, "loss": false)", R"(, "training": false)"}) {
    const Reading last = dialogue(R"(, "weight": 1)", no, Learn::last);
    EXPECT_TRUE(last.examples.empty()) << no;
    EXPECT_THAT(last.left_out, HasSubstr("not to be learned"));
    const Reading all = dialogue("", no, Learn::all);
    EXPECT_EQ(all.examples.at(0).response, "good") << no;
    EXPECT_EQ(all.examples[0].turns.size(), 1u);
    const Reading second = dialogue(no, "", Learn::all);
    EXPECT_EQ(second.examples.at(0).response, "bad");
    EXPECT_EQ(second.examples[0].turns.at(1).learned, false);
  }
  EXPECT_EQ(dialogue("", "", Learn::all).examples.at(0).turns.at(1).learned, true);
  EXPECT_FALSE(dialogue("", "", Learn::last).examples.at(0).turns.at(1).learned.has_value());
  EXPECT_TRUE(dialogue(R"(, "weight": 0)", R"(, "weight": 0)", Learn::all).examples.empty());
  const auto refused = [&](std::string_view more) { return refusal([&] { dialogue("", more, Learn::last); }); };
  EXPECT_THAT(refused(R"(, "weight": 0.5)"), HasSubstr("0.5"));
  EXPECT_THAT(refused(R"(, "weight": 1, "train": false)"), HasSubstr("contradicts"));
  for (const std::string key : {R"("tool_calls": [{"id": 1}])", R"("reasoning_content": "hm")", R"("thinking": "hm")", R"("prefix": true)", R"("partial": true)",
                                R"("function_call": {"name": "f"})", R"("images": ["a.png"])"})
    EXPECT_THAT(refused(", " + key), AllOf(HasSubstr("line 1: message 4 of 'messages' has '"), HasSubstr("take the record out"))) << key;
  for (const std::string key : {R"("tool_calls": [])", R"("tool_calls": null)", R"("reasoning_content": "")", R"("prefix": false)"})
    EXPECT_NO_THROW(dialogue("", ", " + key, Learn::last)) << key;
  EXPECT_THAT(complaint(R"({"messages": [{"role": "user", "content": "q", "train": true}, {"role": "assistant", "content": "a"}]})"), HasSubstr("only the assistant's"));
  EXPECT_THAT(complaint(R"({"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "a"}]})"), HasSubstr("results of tools"));
  EXPECT_THAT(complaint(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null}]})"), HasSubstr("has no text"));
}

TEST_F(Formats, PartsOfAMessageArePutTogether) {
  const Record parts = record(R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Eve"}, {"role": "assistant", "content": "c"}]})");
  EXPECT_EQ(read_examples(parts, SampleFormat::automatic).examples[0].turns.at(0).text, "ab");
  EXPECT_THAT(parts.unused(), testing::ElementsAre("messages[].name"));
  EXPECT_THAT(complaint(R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]})"), HasSubstr("'image_url'"));
}

TEST_F(Formats, TreesOfOpenAssistant) {
  const std::string_view tree =
      R"({"message_tree_id": "t", "prompt": {"text": "q", "role": "prompter", "rank": null, "replies": [)"
      R"({"text": "worse", "role": "assistant", "rank": 1, "replies": []},)"
      R"({"text": "best", "role": "assistant", "rank": 0, "replies": [{"text": "more?", "role": "prompter", "replies": [)"
      R"({"text": "yes", "role": "assistant", "replies": []}]}]},)"
      R"({"text": "gone", "role": "assistant", "rank": 2, "deleted": true, "replies": []},)"
      R"({"text": "unranked", "role": "assistant", "rank": null, "replies": []}]}})";
  const auto read = [&](DatasetKind kind) { return read_examples(record(tree), SampleFormat::automatic, {.kind = kind}); };
  const Reading pairs = read(DatasetKind::preference);
  EXPECT_THAT(pairs_in(pairs), testing::ElementsAre(Pair("best", "worse", 0)));
  EXPECT_EQ(pairs.examples[0].turns, (std::vector<Turn>{{"human", "q"}}));
  const Example dialogue = read(DatasetKind::supervised).examples.at(0);
  EXPECT_EQ(dialogue.turns, (std::vector<Turn>{{"human", "q"}, {"assistant", "best"}, {"human", "more?"}}));
  EXPECT_EQ(dialogue.response, "yes");
  EXPECT_EQ(read(DatasetKind::prompts).examples.at(0).turns.size(), 1u);
  EXPECT_THAT(complaint(R"({"message_id": "1", "parent_id": "0", "text": "t", "role": "assistant"})"), HasSubstr("a tree of replies"));
  EXPECT_THAT(complaint(R"({"message_tree_id": "1", "text": "t", "role": "prompter", "parent_id": null})"), HasSubstr("one message of a dialogue"));
  EXPECT_THAT(complaint(R"({"content": "t", "role": "user"})"), HasSubstr("one message of a dialogue"));
  EXPECT_EQ(example(R"({"text": "t", "role": "doctor"})").response, "t") << "a role that nobody has in a dialogue";
}

TEST(RealFormats, AllPairsAndDialoguesAreRead) {
  if (test_data("").empty()) GTEST_SKIP() << "COLLIMATE_TEST_DATA is not set";
  int pairs = 0;
  for (RecordReader reader(test_data("rlhf/hh-harmless-base-test.jsonl.gz")); auto record = reader.next(); ++pairs) {
    const Example example = read_examples(*record, SampleFormat::automatic).examples.at(0);
    EXPECT_TRUE(example.prompt.starts_with("\n\nHuman:") && example.prompt.ends_with("\n\nAssistant:"));
    EXPECT_NE(example.chosen, example.rejected);
    EXPECT_EQ(example.prompt + *example.chosen, record->text("chosen"));
    EXPECT_EQ(example.prompt + *example.rejected, record->text("rejected"));
  }
  EXPECT_EQ(pairs, 2312);
  pairs = 0;
  for (RecordReader reader(test_data("rlhf/llamafactory_dpo_en_demo.json")); auto record = reader.next(); ++pairs)
    EXPECT_TRUE(as_kind(read_examples(*record, SampleFormat::automatic).examples.at(0), DatasetKind::preference).chosen.has_value());
  EXPECT_EQ(pairs, 300);
}

}  // namespace
}  // namespace collimate
