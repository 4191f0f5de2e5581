// Which tokens of a dialogue are learned: the mask that `prepare --learn` writes.
#include <algorithm>

#include "collimate/base/hdf5_file.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/chat_templates.hpp"
#include "collimate/data/prepare.hpp"
#include "data/testing.hpp"

namespace collimate {
namespace {

using testing::HasSubstr;

class Learned : public InFolder {
 protected:
  /// The only sample of a file of messages, prepared with byte tokens.
  SupervisedSample sample(std::string_view messages, const Template& rules, Learn learn, const SpecialNames& special = byte_names()) const {
    const auto tokenizer = byte_tokenizer(special);
    PrepareOptions options;
    options.inputs = {file("in.jsonl", fmt::format("{{\"messages\": {}}}\n", messages))};
    options.output = at("out.h5");
    options.serialized_tokenizer = tokenizer->serialize();
    options.rules = rules;
    options.rules.look_for_special(*tokenizer);
    options.learn = learn;
    report_ = prepare(options);
    return Dataset(at("out.h5")).supervised(0);
  }
  static SpecialNames byte_names() { return {.all = {"<|bos|>", "<|endoftext|>"}, .bos = "<|bos|>", .eos = "<|endoftext|>", .pad = ""}; }

  /// The tokens as text, with what is learned in braces; BOS ^, end of text $, other special tokens by their names.
  static std::string marked(const SupervisedSample& sample, const SpecialNames& special = byte_names()) {
    const auto tokenizer = byte_tokenizer(special);
    std::string out;
    bool inside = false;
    for (std::size_t t = 0; t < sample.tokens.size(); ++t) {
      if ((sample.mask[t] != 0) != inside) out += inside ? "}" : "{";
      inside = sample.mask[t] != 0;
      const std::int32_t id = sample.tokens[t];
      out += id < 256                 ? std::string(1, static_cast<char>(id))
             : id == tokenizer->bos() ? "^"
             : id == tokenizer->eos() ? "$"
                                      : std::string(tokenizer->piece(id));
    }
    return out + (inside ? "}" : "");
  }
  mutable PrepareReport report_;
};

constexpr const char* two_answers =
    R"([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "A?"}, {"role": "assistant", "content": "good é"}, {"role": "user", "content": "B?"}, {"role": "assistant", "content": "bad"}])";

/// transformers 5.24 with a byte tokenizer: apply_chat_template(return_assistant_tokens_mask=True), ChatML with {% generation %} around
/// content and <|im_end|>, gives these tokens with 12 of 74 learned. Here the response begins with the line feed of `assistant`, and
/// nothing stands behind the last <|im_end|>.
TEST_F(Learned, ChatMlIsWhatTransformersLearns) {
  const SpecialNames special{.all = {"<|im_start|>", "<|im_end|>"}, .bos = "", .eos = "<|im_end|>", .pad = ""};
  Template rules;
  rules.human = "<|im_start|>user\n", rules.assistant = "<|im_start|>assistant\n", rules.system = "<|im_start|>system\n";
  rules.turn_suffix = "<|im_end|>\n", rules.response_suffix = "<|im_end|>";
  const std::string theirs =
      "<|im_start|>system\nBe kind.$\n<|im_start|>user\nA?$\n<|im_start|>assistant\n{good "
      "é$}\n<|im_start|>user\nB?$\n<|im_start|>assistant\n{bad$}\n";
  const std::string ours = replace_all(theirs, "assistant\n{", "assistant{\n");
  const SupervisedSample all = sample(two_answers, rules, Learn::all, special);
  EXPECT_EQ(marked(all, special), ours.substr(0, ours.size() - 1));
  EXPECT_EQ(std::count(all.mask.begin(), all.mask.end(), 1), 12 + 2);
  EXPECT_EQ(report_.targets, 14);
  const SupervisedSample last = sample(two_answers, rules, Learn::last, special);
  EXPECT_EQ(last.tokens, all.tokens);  // only the mask differs
  EXPECT_EQ(marked(last, special),
            replace_all(replace_all(ours.substr(0, ours.size() - 1), "assistant{\ngood", "assistant\ngood"), "é$}", "é$"));
  EXPECT_TRUE(last.prompt == all.prompt && last.response == all.response);
}

/// What apply_chat_template of transformers 5.24 prints for a dialogue with these templates, whose system text is part of a question. In braces
/// what it prints for each answer: the dialogue up to it, less the prompt that asks for it.
TEST_F(Learned, SystemTextsInQuestionsAreWhereTransformersHasThem) {
  const SpecialNames special{.all = {"<s>", "</s>", "<start_of_turn>", "<end_of_turn>"}, .bos = "<s>", .eos = "</s>", .pad = ""};
  const std::string with_system = two_answers, without = "[" + with_system.substr(with_system.find("}, ") + 3);
  struct Row {
    const char* name;
    const std::string& messages;
    std::string theirs;
  };
  const Row rows[] = {
      {"llama-2", with_system, "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nA? [/INST]{ good é </s>}<s>[INST] B? [/INST]{ bad </s>}"},
      {"llama-2", without, "<s>[INST] A? [/INST]{ good é </s>}<s>[INST] B? [/INST]{ bad </s>}"},
      {"mistral-v0.2", without, "<s>[INST] A? [/INST]{good é</s>}[INST] B? [/INST]{bad</s>}"},
      {"mistral-v1", with_system, "<s> [INST] Be kind.\n\nA? [/INST]{ good é</s>} [INST] B? [/INST]{ bad</s>}"},
      {"mistral-v3", without, "<s>[INST] A?[/INST]{ good é</s>}[INST] B?[/INST]{ bad</s>}"},
      {"mistral-tekken", without, "<s>[INST]A?[/INST]{good é</s>}[INST]B?[/INST]{bad</s>}"},
      {"gemma", without,
       "<s><start_of_turn>user\nA?<end_of_turn>\n<start_of_turn>model\n{good é<end_of_turn>\n}<start_of_turn>user\nB?<end_of_turn>\n"
       "<start_of_turn>model\n{bad<end_of_turn>\n}"},
      {"gemma-3", with_system,
       "<s><start_of_turn>user\nBe kind.\n\nA?<end_of_turn>\n<start_of_turn>model\n{good é<end_of_turn>\n}<start_of_turn>user\n"
       "B?<end_of_turn>\n<start_of_turn>model\n{bad<end_of_turn>\n}"}};
  const auto rules = [&](const char* name) { return chat_template_rules({name, std::nullopt}, *byte_tokenizer(special)); };
  for (const Row& row : rows) {
    // Here an answer ends with its token, so the line feed behind it is not learned, and the last one is not there.
    std::string ours = replace_all(row.theirs, "\n}", "}\n");
    if (ours.ends_with('\n')) ours.pop_back();
    ours = replace_all(replace_all(ours, "<s>", "^"), "</s>", "$");
    EXPECT_EQ(marked(sample(row.messages, rules(row.name), Learn::all, special), special), ours) << row.name;
  }
  // These put the system text into the last question, so that it moves from answer to answer.
  for (const char* name : {"mistral-v3", "mistral-tekken"})
    EXPECT_THAT(test::refusal([&] { sample(with_system, rules(name), Learn::all, special); }), HasSubstr("--learn all cannot be used")) << name;
  EXPECT_THAT(test::refusal([&] { sample(with_system, rules("gemma"), Learn::all, special); }), HasSubstr("no system turn"));
}

/// Where nothing but the end of text ends an answer, every one has it.
TEST_F(Learned, EveryAnswerHasItsEnd) {
  Template rules;
  EXPECT_EQ(marked(sample(two_answers, rules, Learn::all)),
            "^\n\nSystem: Be kind.\n\nHuman: A?\n\nAssistant:{ good é$}\n\nHuman: B?\n\nAssistant:{ bad$}");
  rules.add_eos = false;
  rules.response_suffix = "/";
  EXPECT_EQ(marked(sample(two_answers, rules, Learn::all)),
            "^\n\nSystem: Be kind.\n\nHuman: A?\n\nAssistant:{ good é/}\n\nHuman: B?\n\nAssistant:{ bad/}");
  rules.turn_suffix = "/\n";
  rules.add_eos = true;  // the turn's own end is enough in the middle
  EXPECT_EQ(marked(sample(two_answers, rules, Learn::all)),
            "^\n\nSystem: Be kind./\n\n\nHuman: A?/\n\n\nAssistant:{ good é/}\n\n\nHuman: B?/\n\n\nAssistant:{ bad/$}");
  rules.turn_suffix = "<|endoftext|>";
  rules.response_suffix = "";
  EXPECT_EQ(
      marked(sample(
          R"([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}])",
          rules, Learn::all)),
      "^\n\nHuman: a$\n\nAssistant:{ b$}\n\nHuman: c$\n\nAssistant:{ d$}");
}

TEST_F(Learned, MessagesOfWeightZeroAreContext) {
  const Template rules;
  const auto third = [&](std::string_view first, std::string_view second, std::string_view last) {
    return marked(sample(
        fmt::format(
            R"([{{"role": "user", "content": "a"}}, {{"role": "assistant", "content": "b"{}}}, {{"role": "user", "content": "c"}}, {{"role": "assistant", "content": "d"{}}}, {{"role": "user", "content": "e"}}, {{"role": "assistant", "content": "f"{}}}])",
            first, second, last),
        rules, Learn::all));
  };
  const std::string no = R"(, "weight": 0)";
  EXPECT_EQ(third("", no, ""), "^\n\nHuman: a\n\nAssistant:{ b$}\n\nHuman: c\n\nAssistant: d$\n\nHuman: e\n\nAssistant:{ f$}");
  EXPECT_EQ(third(no, no, ""), "^\n\nHuman: a\n\nAssistant: b$\n\nHuman: c\n\nAssistant: d$\n\nHuman: e\n\nAssistant:{ f$}");
  EXPECT_EQ(third("", "", no), "^\n\nHuman: a\n\nAssistant:{ b$}\n\nHuman: c\n\nAssistant:{ d$}");
  EXPECT_EQ(third("", no, no), "^\n\nHuman: a\n\nAssistant:{ b$}");
}

/// Random dialogues against the mask of one byte after the other: an answer's bytes, the blank before it and its end are learned.
TEST_F(Learned, EqualsTheMaskByBruteForce) {
  std::uint64_t state = 1;
  const auto draw = [&](std::uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33u) % below;
  };
  for (int round = 0; round < 40; ++round) {
    std::string messages, expected = "^";
    const std::uint64_t pairs = 1 + draw(5);
    std::uint64_t last = 0;
    std::vector<bool> learned;
    for (std::uint64_t p = 0; p < pairs; ++p) learned.push_back(draw(3) > 0);
    learned[draw(pairs)] = true;
    for (std::uint64_t p = 0; p < pairs; ++p) last = learned[p] ? p : last;
    for (std::uint64_t p = 0; p < pairs; ++p) {
      const std::string question(1 + draw(6), static_cast<char>('a' + draw(26))), answer(1 + draw(6), static_cast<char>('A' + draw(26)));
      messages += fmt::format(R"({}{{"role": "user", "content": "{}"}}, {{"role": "assistant", "content": "{}", "weight": {}}})",
                              p ? ", " : "[", question, answer, learned[p] ? 1 : 0);
      if (p > last) continue;
      expected += "\n\nHuman: " + question + "\n\nAssistant:";
      expected += learned[p] ? "{ " + answer + "$}" : " " + answer + "$";
    }
    EXPECT_EQ(marked(sample(messages + "]", Template(), Learn::all)), expected) << messages;
  }
}

TEST_F(Learned, LimitsHoldForAllThatStandsBeforeTheLastAnswer) {
  Template rules;
  rules.human = "h", rules.assistant = "a", rules.system = "s";
  const char* messages =
      R"([{"role": "user", "content": "1"}, {"role": "assistant", "content": "222"}, {"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}])";
  EXPECT_EQ(marked(sample(messages, rules, Learn::all)), "^h1a{222$}h3a{4$}");
  rules.max_prompt_tokens = 11;
  EXPECT_EQ(marked(sample(messages, rules, Learn::all)), "^h1a{222$}h3a{4$}");
  rules.max_prompt_tokens = 10;
  EXPECT_THAT(refusal([&] { sample(messages, rules, Learn::all); }), HasSubstr("the prompt has 11 tokens"));
  rules.prompt_rule = TooLong::cut;
  EXPECT_EQ(marked(sample(messages, rules, Learn::all)), "^1a{222$}h3a{4$}");
  EXPECT_EQ(report_.lengths.cut_prompts, 1);
  rules.max_prompt_tokens = 8;
  EXPECT_EQ(marked(sample(messages, rules, Learn::all)), "^{222$}h3a{4$}");
  rules.max_prompt_tokens = 7;  // an answer without its beginning is not learned
  EXPECT_EQ(marked(sample(messages, rules, Learn::all)), "^22$h3a{4$}");
}

/// What older programs would learn wrongly they refuse: a mask with holes has another version.
TEST_F(Learned, DatasetsWithSeveralAnswersHaveTheirOwnVersion) {
  const auto version = [&] { return Hdf5File::open(at("out.h5")).integer_attribute("/", "version"); };
  sample(two_answers, Template(), Learn::last);
  EXPECT_EQ(version(), 1);
  sample(two_answers, Template(), Learn::all);
  EXPECT_EQ(version(), 2);
  EXPECT_NO_THROW(Dataset(at("out.h5")));
}

/// Two neighbours with one prompt and different input are two groups.
TEST_F(Learned, PairsOfOnePromptWithOtherInputsAreApart) {
  PrepareOptions options;
  options.output = at("out.h5");
  options.inputs = {file("in.jsonl", R"({"prompt": "p", "input": "x", "chosen": "a", "rejected": "b"})"
                                     "\n"
                                     R"({"prompt": "p", "input": "y", "chosen": "c", "rejected": "d"})"
                                     "\n")};
  for (const PairGroups groups : {PairGroups::prompt, PairGroups::consecutive}) {
    options.pair_groups = groups;
    EXPECT_EQ(prepare(options).samples, 2);
    const Dataset dataset(at("out.h5"));
    EXPECT_EQ(dataset.preference(0).text, "p\nx\n");
    EXPECT_EQ(dataset.preference(1).text, "p\ny\n");
    EXPECT_EQ(dataset.preference(1).pairs.at(0).chosen_text, "c");
  }
}

/// What is left out is counted; where most records are bad, nothing is made, whatever may be skipped.
TEST_F(Learned, WhatIsLeftOutIsSaid) {
  PrepareOptions options;
  options.output = at("out.h5");
  const std::string good = R"({"messages": [{"role": "user", "content": "q", "name": "Eve"}, {"role": "assistant", "content": "a"}]})"
                           "\n";
  const std::string zero = R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]})"
                           "\n";
  const std::string tool = R"({"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "a"}]})"
                           "\n";
  options.inputs = {file("a.jsonl", good + zero)};
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.samples, 1);
  EXPECT_THAT(report.text(), testing::AllOf(HasSubstr("1 record left out: the last answer of the dialogue is not to be learned"),
                                            HasSubstr("messages[].name (1 record)")));
  options.inputs = {file("b.jsonl", zero + zero)};
  EXPECT_THAT(refusal([&] { prepare(options); }), HasSubstr("2 were left out (the last answer"));
  options.inputs = {file("c.jsonl", good + tool + tool)};
  EXPECT_THAT(refusal([&] { prepare(options); }), HasSubstr("line 2"));
  options.reading.skip_bad = true;
  EXPECT_THAT(refusal([&] { prepare(options); }), testing::AllOf(HasSubstr("2 of the 3 records"), HasSubstr("results of tools")));
  options.inputs = {file("d.jsonl", good + good + tool)};
  EXPECT_EQ(prepare(options).bad, 1);
}

}  // namespace
}  // namespace collimate
