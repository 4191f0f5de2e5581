#include "collimate/data/prepare.hpp"

#include <sys/resource.h>

#include <csignal>
#include <set>

#include "collimate/base/text.hpp"
#include "collimate/data/chat_templates.hpp"
#include "collimate/data/example.hpp"
#include "data/testing.hpp"

namespace collimate {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using Ids = std::vector<std::int32_t>;

class Prepare : public InFolder {
 protected:
  PrepareOptions options(const std::string& input, const std::string& output = "out.h5") const {
    PrepareOptions options;
    options.inputs = {input};
    options.output = at(output);
    return options;
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) names.push_back(entry.path().filename().string());
    return names;
  }
};

constexpr std::int32_t bos = 256, eos = 257;  // of the tokenizer "bytes"

TEST_F(Prepare, SupervisedByHand) {
  const auto report = prepare(options(file("a.jsonl", "{\"instruction\": \"ab\", \"input\": \"c\", \"output\": \"d\"}\n")));
  EXPECT_EQ(report.kind, DatasetKind::supervised);
  EXPECT_EQ(report.samples, 1);
  EXPECT_EQ(report.targets, 2);
  const SupervisedSample sample = Dataset(at("out.h5")).supervised(0);
  EXPECT_EQ(sample.tokens, (Ids{bos, 'a', 'b', '\n', 'c', '\n', 'd', eos}));
  EXPECT_THAT(sample.mask, ElementsAre(0, 0, 0, 0, 0, 0, 1, 1));
  EXPECT_EQ(sample.prompt, "ab\nc\n");
  EXPECT_EQ(sample.response, "d");
  EXPECT_THAT(report.text(),
              AllOf(HasSubstr("1 record read"), HasSubstr("1 sample, 8 tokens, 2 learned tokens"), HasSubstr("BOS added")));
  EXPECT_THAT(describe(Dataset(at("out.h5"))), AllOf(HasSubstr("supervised dataset, 1 sample"), HasSubstr("\"ab\\nc\\n\"")));
}

/// A line of JSONL with a preference pair.
std::string row(const std::string& prompt, const std::string& chosen) {
  return "{\"prompt\": \"" + prompt + "\", \"chosen\": \"" + chosen + "\", \"rejected\": \"r\", \"margin\": 2, \"kind\": \"k\"}\n";
}

TEST_F(Prepare, PairsOfOnePromptAreOneGroupWhereverTheyStand) {
  const std::string apart = row("x", "a") + row("y", "b") + row("x", "c") + row("z", "d") + row("y", "e") + row("x", "f");
  const std::string together = row("x", "a") + row("x", "c") + row("x", "f") + row("y", "b") + row("y", "e") + row("z", "d");
  const auto report = prepare(options(file("apart.jsonl", apart), "apart.h5"));
  prepare(options(file("together.jsonl", together), "together.h5"));
  EXPECT_EQ(report.samples, 3);
  EXPECT_EQ(report.targets, 6);
  const Dataset in(at("apart.h5")), wanted(at("together.h5"));
  ASSERT_EQ(in.size(), 3);
  EXPECT_EQ(in.tokens(), wanted.tokens());
  for (std::int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(in.preference(i), wanted.preference(i)) << i;
    EXPECT_EQ(in.rows(i), in.preference(i).rows()) << i;
    EXPECT_EQ(in.longest(i), 5) << i;
  }
  PrepareOptions other = options(at("together.jsonl"), "other.h5");  // where they stand together nothing else is stored
  other.pair_groups = PairGroups::consecutive;
  EXPECT_EQ(prepare(other).samples, 3);
  EXPECT_EQ(read_file(at("other.h5")), read_file(at("together.h5")));
  other.inputs = {at("apart.jsonl")};
  EXPECT_EQ(prepare(other).samples, 6);
  other.inputs = {at("together.jsonl")};
  other.pair_groups = PairGroups::none;
  EXPECT_EQ(prepare(other).samples, 6);

  const std::int64_t rows_of_groups[] = {0, 2, 5, 1, 4, 3};
  std::string bytes = read_file(at("apart.h5"));
  const std::size_t place = bytes.find(std::string(reinterpret_cast<const char*>(rows_of_groups), sizeof rows_of_groups));
  ASSERT_NE(place, std::string::npos);
  bytes[place + 8] = 3;
  write_file(at("bad.h5"), bytes);
  EXPECT_THAT(refusal([&] { Dataset(at("bad.h5")); }), AllOf(HasSubstr("damaged"), HasSubstr("/groups")));
  bytes[place + 8] = 77;
  write_file(at("bad.h5"), bytes);
  EXPECT_THAT(refusal([&] { Dataset(at("bad.h5"), false); }), AllOf(HasSubstr("damaged"), HasSubstr("row 77 of 6")));
}

TEST_F(Prepare, PromptsThatOnlyACutMakesEqualKeepTheirGroups) {
  PrepareOptions cut = options(file("p.jsonl", row("ax", "a") + row("bx", "b") + row("ax", "c")));
  cut.rules.max_prompt_tokens = 3;
  cut.rules.prompt_rule = TooLong::cut;
  EXPECT_EQ(prepare(cut).samples, 2);
}

TEST_F(Prepare, PairsOfAPromptAreHeldOutTogether) {
  std::string lines;
  for (int i = 0; i < 120; ++i) lines += row(fmt::format("p{}", i % 40), fmt::format("a{}", i));
  PrepareOptions asked = options(file("p.jsonl", lines));
  asked.held_out_fraction = 0.3;
  asked.held_out_output = at("rest.h5");
  for (const PairGroups groups : {PairGroups::prompt, PairGroups::none}) {
    asked.pair_groups = groups;
    prepare(asked);
    std::set<std::string> prompts[2];
    for (const int part : {0, 1}) {
      const Dataset in(part == 0 ? asked.output : asked.held_out_output);
      for (std::int64_t i = 0; i < in.size(); ++i) prompts[part].insert(in.preference(i).text);
    }
    EXPECT_EQ(prompts[0].size(), 28u);
    EXPECT_EQ(prompts[1].size(), 12u);
    prompts[0].merge(prompts[1]);
    EXPECT_EQ(prompts[0].size(), 40u);
  }
}

TEST_F(Prepare, PairsHaveTheirAnswersMarginAndKind) {
  const auto report = prepare(options(file("p.jsonl", row("x", "a") + row("x", "b") + row("y", "c"))));
  EXPECT_EQ(report.samples, 2);
  EXPECT_EQ(report.targets, 3);
  const Dataset in(at("out.h5"));
  const PreferenceGroup group = in.preference(0);
  EXPECT_EQ(group.prompt, (Ids{bos, 'x', '\n'}));
  ASSERT_EQ(group.pairs.size(), 2u);
  EXPECT_EQ(group.pairs[1], (PreferencePair{{'b', eos}, {'r', eos}, 2, "b", "r", "k"}));
  EXPECT_EQ(in.rows(0), 2 * (3 + 3 + 2 + 2));
  EXPECT_EQ(in.preference(1).pairs.size(), 1u);
  EXPECT_THAT(refusal([&] { prepare(options(file("e.jsonl", row("x", "r")), "e.h5")); }),
              AllOf(HasSubstr("line 1"), HasSubstr("are equal")));
  PrepareOptions cut = options(file("cut.jsonl", row("x", "a") + row("x", "rest")), "cut.h5");  // "rest" and "r" begin alike
  cut.rules.max_response_tokens = 1;
  cut.rules.response_rule = TooLong::cut;
  const auto shortened = prepare(cut);
  EXPECT_EQ(shortened.lengths.dropped, 1);
  EXPECT_EQ(Dataset(at("cut.h5")).preference(0).pairs.size(), 1u);
}

TEST_F(Prepare, PromptsKeepTheirReferenceAnswer) {
  PrepareOptions asked = options(file("g.jsonl", "{\"question\": \"1+1?\", \"answer\": \"#### 2\"}\n"));
  asked.kind = DatasetKind::prompts;
  prepare(asked);
  EXPECT_EQ(Dataset(at("out.h5")).prompt(0), (PromptSample{{bos, '1', '+', '1', '?', '\n'}, "1+1?\n", "#### 2"}));
}

TEST_F(Prepare, TextWindowsLoseNoTokenAndRepeatNone) {
  const std::string text = "abcdefghij\nklm";
  for (const std::int64_t window : {0, 2, 3, 5, 14, 15, 16, 17, 100}) {
    PrepareOptions asked = options(file("t.txt", text));
    asked.text_window = window;
    const auto report = prepare(asked);
    const Dataset in(at("out.h5"));
    Ids learned;
    std::string words;
    for (std::int64_t i = 0; i < in.size(); ++i) {
      const SupervisedSample sample = in.supervised(i);
      if (window) {
        EXPECT_LE(in.rows(i), window);
      }
      EXPECT_EQ(sample.tokens[0], i == 0 ? bos : learned.back());
      for (std::size_t t = 0; t < sample.tokens.size(); ++t)
        if (sample.mask[t]) learned.push_back(sample.tokens[t]);
      words += sample.response;
    }
    Ids expected(text.begin(), text.end());
    expected.push_back(eos);
    EXPECT_EQ(learned, expected) << window;
    EXPECT_EQ(words, text);
    EXPECT_EQ(report.targets, 15);
  }
}

TEST_F(Prepare, HeldOutPartIsExactAndDisjoint) {
  std::string lines;
  for (int i = 0; i < 101; ++i) lines += fmt::format("{{\"prompt\": \"p{}\", \"response\": \"r\"}}\n", i);
  PrepareOptions asked = options(file("a.jsonl", lines));
  asked.held_out_fraction = 0.3;
  asked.held_out_output = at("rest.h5");
  const auto report = prepare(asked);
  EXPECT_EQ(report.samples, 71);
  EXPECT_EQ(report.held_out_samples, 30);
  std::set<std::string> prompts;
  for (const std::string name : {"out.h5", "rest.h5"}) {
    const Dataset in(at(name));
    for (std::int64_t i = 0; i < in.size(); ++i) prompts.insert(in.supervised(i).prompt);
  }
  EXPECT_EQ(prompts.size(), 101u);
  const std::string first = Dataset(at("rest.h5")).checksum();
  prepare(asked);
  EXPECT_EQ(Dataset(at("rest.h5")).checksum(), first);
  asked.seed = 2;
  prepare(asked);
  EXPECT_NE(Dataset(at("rest.h5")).checksum(), first);
}

TEST_F(Prepare, BpeIsTrainedAndTakenOverByTheNextStage) {
  PrepareOptions sft = options(file("a.jsonl", "{\"prompt\": \"the the the cat\", \"response\": \"the cat\"}\n"), "sft.h5");
  sft.train_bpe = 270;
  sft.rules.prompt = "Q: {prompt}\n";
  const auto report = prepare(sft);
  EXPECT_GT(report.vocabulary, 258);
  EXPECT_LE(report.vocabulary, 270);
  EXPECT_THAT(report.text(), HasSubstr(fmt::format("has {} tokens instead of 270", report.vocabulary)));
  PrepareOptions next = options(file("p.jsonl", "{\"prompt\": \"the cat\"}\n"), "prompts.h5");
  next.like = at("sft.h5");
  prepare(next);
  const Dataset first(at("sft.h5")), second(at("prompts.h5"));
  EXPECT_EQ(refusal([&] { second.check_rules(first.rules(), first.tokenizer_fingerprint(), "the SFT dataset"); }), "accepted");
  EXPECT_EQ(second.prompt(0).text, "Q: the cat\n");
  EXPECT_EQ(deserialize_tokenizer(second.tokenizer())->decode(second.prompt(0).tokens), "Q: the cat\n");
  next.like.clear();
  next.tokenizer = at("sft.h5");
  prepare(next);
  EXPECT_EQ(Dataset(at("prompts.h5")).tokenizer_fingerprint(), first.tokenizer_fingerprint());
  sft.train_bpe = report.vocabulary;
  EXPECT_THAT(prepare(sft).text(), Not(HasSubstr("instead of")));
  sft.train_bpe = 100;
  EXPECT_THAT(refusal([&] { prepare(sft); }), HasSubstr("too small"));
}

TEST_F(Prepare, BadRecordsStopOrAreCountedAndNothingIsHalfWritten) {
  PrepareOptions asked = options(
      file("a.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": \"a\"}\n{\"pro\n{\"prompt\": \"c\", \"response\": \"d\"}\n"));
  asked.held_out_fraction = 0.4;
  asked.held_out_output = at("rest.h5");
  EXPECT_THAT(refusal([&] { prepare(asked); }), AllOf(HasSubstr("line 2"), HasSubstr("'response' is missing")));
  EXPECT_THAT(files(), ElementsAre("a.jsonl"));
  asked.reading.skip_bad = true;
  const auto report = prepare(asked);
  EXPECT_EQ(report.bad, 2);
  EXPECT_EQ(report.samples + report.held_out_samples, 2);
  EXPECT_THAT(report.text(), AllOf(HasSubstr("2 skipped"), HasSubstr("line 2"), HasSubstr("line 3")));
}

TEST_F(Prepare, WhereNothingIsLeftItSaysWhy) {
  PrepareOptions asked = options(file("a.jsonl", "{\"pro\n{\"x\": 1}\n"));
  asked.reading.skip_bad = true;
  asked.kind = DatasetKind::supervised;
  EXPECT_THAT(refusal([&] { prepare(asked); }),
              AllOf(HasSubstr("2 of the 2 records of "), HasSubstr("a.jsonl' are bad"), HasSubstr("the first: "), HasSubstr("line")));
  const std::string good = "{\"prompt\": \"abc\", \"response\": \"d\"}\n{\"prompt\": \"e\", \"response\": \"f\"}\n";
  asked = options(file("b.jsonl", good));
  asked.rules.prompt_rule = TooLong::drop;
  asked.rules.max_prompt_tokens = 2;
  EXPECT_THAT(refusal([&] { prepare(asked); }),
              AllOf(HasSubstr("0 records are bad, and 2 were dropped"), HasSubstr("; raise --max-prompt-tokens")));
  asked.rules.max_prompt_tokens = 3;  // one of the two is left
  asked.held_out_fraction = 0.5;
  asked.held_out_output = at("rest.h5");
  EXPECT_THAT(refusal([&] { prepare(asked); }), AllOf(HasSubstr("1 were dropped"), HasSubstr("or hold out another share")));
  asked.held_out_fraction = 0.1;
  EXPECT_THAT(refusal([&] { prepare(asked); }), HasSubstr("0.1 is 0 of 2 samples, which leaves none to hold out"));
  EXPECT_THAT(files(), testing::UnorderedElementsAre("a.jsonl", "b.jsonl"));
}

TEST_F(Prepare, ADamagedTokenizerOfAnotherDatasetIsNamed) {
  const std::string input = file("a.jsonl", "{\"prompt\": \"abc\", \"response\": \"d\"}\n");
  prepare(options(input, "first.h5"));
  std::string bytes = read_file(at("first.h5"));
  bytes[bytes.find("collimate_tokenizer") + 3] = '?';
  write_file(at("first.h5"), bytes);
  PrepareOptions next = options(input);
  next.like = at("first.h5");
  EXPECT_THAT(refusal([&] { prepare(next); }), AllOf(HasSubstr("first.h5' is damaged: its tokenizer"), HasSubstr("prepare it again")));
  next.like.clear();
  next.tokenizer = at("first.h5");
  EXPECT_THAT(refusal([&] { prepare(next); }), HasSubstr("first.h5' is damaged: its tokenizer"));
}

TEST_F(Prepare, ABadFirstRecordDoesNotDecideTheFormat) {
  PrepareOptions asked = options(file("a.jsonl", "{\"x\": \"y\"}\n{\"prompt\": \"a\"}\n{\"instruction\": \"c\", \"output\": \"d\"}\n{\"instruction\": \"e\", \"output\": \"f\"}\n"));
  asked.reading.skip_bad = true;
  asked.kind = DatasetKind::supervised;
  const auto report = prepare(asked);
  EXPECT_TRUE(report.bad == 2 && report.samples == 2);
  asked.kind.reset();
  EXPECT_EQ(prepare(asked).kind, DatasetKind::prompts);
  asked.inputs = {file("b.jsonl", "{\"x\": \"y\"}\n")};
  EXPECT_THAT(refusal([&] { prepare(asked); }), AllOf(HasSubstr("b.jsonl"), HasSubstr("fields x")));
}

TEST_F(Prepare, FieldsThatAreNotUsedAreSaidOnce) {
  PrepareOptions asked = options(file("a.jsonl",
                                      R"({"instruction": "a", "output": "b", "system": "be kind", "history": [["x", "y"]], "id": 1}
{"instruction": "a", "input": "c", "output": "b", "system": " ", "history": [], "id": 2}
{"instruction": "a", "output": "b", "history": [["x", "y"]], "note": null}
)"));
  asked.held_out_fraction = 0.3;  // more passes over the file count them no more often
  asked.held_out_output = at("rest.h5");
  const auto report = prepare(asked);
  EXPECT_EQ(report.unused, (std::map<std::string, std::int64_t>{{"history", 2}, {"id", 2}, {"system", 1}}));
  EXPECT_THAT(report.text(), HasSubstr("does not use: history (2 records), id (2), system (1)\n"));
  const std::string used = file("p.jsonl", R"({"prompt": "a", "input": "b", "chosen": "c", "rejected": "d", "margin": 1, "kind": "k"})");
  EXPECT_THAT(prepare(options(used)).text(), Not(HasSubstr("does not use")));
}

TEST_F(Prepare, FilesOfAnotherKindAreRefusedUnlessTheKindIsSaid) {
  const std::string learned = file("a.jsonl", "{\"instruction\": \"a\", \"output\": \"b\"}\n");
  const std::string pairs = file("p.jsonl", "{\"prompt\": \"a\", \"chosen\": \"c\", \"rejected\": \"d\"}\n");
  PrepareOptions asked = options(learned);
  asked.inputs.push_back(pairs);
  EXPECT_THAT(refusal([&] { prepare(asked); }), AllOf(HasSubstr("p.jsonl', line 1"), HasSubstr("preference"), HasSubstr("--kind")));
  asked.kind = DatasetKind::supervised;
  EXPECT_EQ(prepare(asked).samples, 2);
  asked = options(pairs);
  asked.inputs.push_back(learned);
  EXPECT_THAT(refusal([&] { prepare(asked); }), AllOf(HasSubstr("a.jsonl', line 1"), HasSubstr("supervised"), HasSubstr("--kind")));
  const std::string mixed = file("m.jsonl",
                                 "{\"instruction\": \"a\", \"output\": \"b\"}\n"
                                 "{\"instruction\": \"a\", \"output\": \"b\", \"chosen\": \"c\", \"rejected\": \"d\"}\n");
  EXPECT_THAT(prepare(options(mixed)).text(), HasSubstr("does not use: chosen (1 record), rejected (1)"));
}

TEST_F(Prepare, LongRecordsFollowTheRule) {
  PrepareOptions asked =
      options(file("a.jsonl", "{\"prompt\": \"abcdef\", \"response\": \"b\"}\n{\"prompt\": \"a\", \"response\": \"b\"}\n"));
  asked.rules.max_prompt_tokens = 4;
  EXPECT_THAT(refusal([&] { prepare(asked); }), AllOf(HasSubstr("line 1"), HasSubstr("--max-prompt-tokens")));
  asked.rules.prompt_rule = TooLong::drop;
  EXPECT_EQ(prepare(asked).lengths, LengthCounts{.dropped = 1});
  asked.rules.prompt_rule = TooLong::cut;
  EXPECT_EQ(prepare(asked).lengths.cut_prompts, 1);
  EXPECT_EQ(Dataset(at("out.h5")).supervised(0).tokens, (Ids{bos, 'e', 'f', '\n', 'b', eos}));
}

TEST_F(Prepare, BadOptionsAreSentences) {
  const std::string input = file("a.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
  const auto complaint = [&](auto&& change) {
    PrepareOptions asked = options(input);
    change(asked);
    return refusal([&] { prepare(asked); });
  };
  EXPECT_THAT(complaint([](auto& o) { o.inputs.clear(); }), HasSubstr("no input"));
  EXPECT_THAT(complaint([&](auto& o) { o.inputs = {at("none.jsonl")}; }), AllOf(HasSubstr("none.jsonl"), HasSubstr("is not a file")));
  EXPECT_THAT(complaint([&](auto& o) { o.output = input; }), HasSubstr("an input and an output"));
  EXPECT_THAT(complaint([](auto& o) { o.held_out_fraction = 0.5; }), HasSubstr("held-out"));
  EXPECT_THAT(complaint([](auto& o) { o.text_window = 1; }), HasSubstr("too short"));
  EXPECT_THAT(complaint([](auto& o) { o.kind = DatasetKind::preference; }), HasSubstr("'chosen'"));
  EXPECT_THAT(complaint([&](auto& o) { o.tokenizer = at("none"); }), HasSubstr("none"));
  EXPECT_THAT(complaint([&](auto& o) { o.like = input; }), HasSubstr("not an HDF5 file"));
  EXPECT_THAT(files(), ElementsAre("a.jsonl"));
}

// Files may grow to so many bytes only: writing then fails as on a full disk.
TEST_F(Prepare, AFullDiskLeavesNothing) {
  std::string lines;
  for (int i = 0; i < 3000; ++i) lines += fmt::format("{{\"prompt\": \"p{}\", \"response\": \"{}\"}}\n", i, std::string(100, 'r'));
  const PrepareOptions asked = options(file("a.jsonl", lines));
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{200000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const std::string complaint = refusal([&] { prepare(asked); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(complaint, AllOf(HasSubstr("out.h5"), HasSubstr("free space")));
  EXPECT_THAT(files(), ElementsAre("a.jsonl"));
  EXPECT_EQ(prepare(asked).samples, 3000);
}

TEST_F(Prepare, TheQuickstartsVocabularyAndAnswers) {
  write_example(at("x"), 1);
  PrepareOptions asked = options(at("x/sft.jsonl"));
  asked.train_bpe = 2000;
  asked.rules.prompt = "{prompt}\n";
  const auto report = prepare(asked);
  EXPECT_GT(report.vocabulary, 600);
  EXPECT_LT(report.vocabulary, 850);
  RecordProperty("vocabulary", static_cast<int>(report.vocabulary));
  RecordProperty("tokens", static_cast<int>(report.tokens));
  const auto tokenizer = deserialize_tokenizer(Dataset(at("out.h5")).tokenizer());
  for (const ExampleQuestion& question : example_questions())
    EXPECT_LE(tokenizer->encode("Of course! It is " + question.answer + ".").size(), 7u);
}

TEST_F(Prepare, RealFilesOfEveryFormat) {
  if (test_data("").empty()) GTEST_SKIP() << "COLLIMATE_TEST_DATA is not set";
  const auto run = [&](const std::string& name, bool skip = false) {
    PrepareOptions asked = options(test_data("rlhf/" + name));
    asked.reading.skip_bad = skip;
    return prepare(asked);
  };
  EXPECT_EQ(run("llamafactory_alpaca_en_demo.json").samples, 999);
  EXPECT_EQ(run("llamafactory_dpo_en_demo.json").targets, 300);
  EXPECT_EQ(run("awesome-chatgpt-prompts-2023-04.csv").samples, 161);
  EXPECT_EQ(run("gsm8k_test.jsonl").samples, 1319);
  const auto wild = run("instructwild_v2_user_2.jsonl", true);
  EXPECT_TRUE(wild.samples == 246 && wild.bad == 2 && wild.kind == DatasetKind::prompts);
  EXPECT_GT(run("fastchat_dummy_conversation.json").samples, 100);
}

TEST_F(Prepare, DialoguesOfHhBecomeTurnsWhereTheTemplateIsAChatTemplate) {
  const auto pair = [](const std::string& prompt, const std::string& chosen, const std::string& rejected) {
    const std::string asked = replace_all(replace_all(prompt, "/H:", "\\n\\nHuman:"), "/A:", "\\n\\nAssistant:");
    return fmt::format("{{\"chosen\": \"{0}{1}\", \"rejected\": \"{0}{2}\"}}\n", asked, chosen, rejected);
  };
  const std::string text = pair("/H: a/A: b/H: c/A:", " yes ", " no") + pair("/A: hello/H: c/A:", " x", "") + pair("/H: a/H: b/A:", " x", " y") +
                           pair("/H: a/A:", " x", "  x") + pair("/H: a/A:", " x\\n\\nHuman: c\\n\\nAssistant: d", " y");
  const SpecialNames special{.all = {"<s>", "</s>"}, .bos = "<s>", .eos = "</s>", .pad = ""};
  const auto tokenizer = byte_tokenizer(special);
  const auto made = [&](const char* name) {
    PrepareOptions asked = options(file("hh.jsonl", text));
    asked.serialized_tokenizer = tokenizer->serialize();
    if (name != nullptr) asked.rules = chat_template_rules({name, std::nullopt}, *tokenizer);
    return prepare(asked);
  };
  EXPECT_EQ(made(nullptr).targets, 5);  // a plain template leaves them as they are
  EXPECT_EQ(Dataset(at("out.h5")).preference(0).text, "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:");

  auto report = made("chatml");
  EXPECT_EQ(report.samples, 3);
  EXPECT_THAT(report.left_out, ElementsAre(std::pair(std::string("the answers of hh-rlhf differ in blanks alone"), 1),
                                           std::pair(std::string("the dialogues of hh-rlhf differ in more than the last answer"), 1)));
  EXPECT_THAT(report.text(), HasSubstr("3 dialogues of hh-rlhf were read as turns for the chat template 'chatml'"));
  PreferenceGroup group = Dataset(at("out.h5")).preference(0);
  EXPECT_EQ(group.text, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(group.pairs[0].chosen_text, "yes<|im_end|>");
  EXPECT_EQ(group.pairs[0].rejected_text, "no<|im_end|>");
  group = Dataset(at("out.h5")).preference(1);
  EXPECT_EQ(group.text, "<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n");

  report = made("llama-2");
  EXPECT_EQ(report.samples, 1);
  EXPECT_EQ(report.left_out["the turns of the dialogue of hh-rlhf do not alternate, as the chat template asks"], 2);
  EXPECT_EQ(Dataset(at("out.h5")).preference(0).text, "<s>[INST] a [/INST] b </s><s>[INST] c [/INST]");
}

TEST_F(Prepare, RealPreferencePairsSplitAsTheProjectMeasuresThem) {
  if (test_data("").empty()) GTEST_SKIP() << "COLLIMATE_TEST_DATA is not set";
  PrepareOptions asked = options(test_data("rlhf/hh-harmless-base-test.jsonl.gz"));
  asked.held_out_fraction = 0.3;
  asked.held_out_output = at("rest.h5");
  const auto report = prepare(asked);
  EXPECT_EQ(report.held_out_targets, 694);
  EXPECT_EQ(report.targets, 2312 - 694);
  EXPECT_EQ(Dataset(at("rest.h5")).kind(), DatasetKind::preference);
}

}  // namespace
}  // namespace collimate
