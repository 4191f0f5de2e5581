#include "collimate/data/template.hpp"

#include "data/testing.hpp"

namespace collimate {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

Example alpaca(std::string instruction, std::string input) {
  Example example;
  example.prompt = std::move(instruction);
  example.input = std::move(input);
  return example;
}

std::unique_ptr<Tokenizer> tokenizer() { return byte_tokenizer({.all = {"<bos>", "<eos>"}, .bos = "<bos>", .eos = "<eos>", .pad = ""}); }
constexpr std::int32_t bos = 256, eos = 257;

TEST(Template, FieldsBracesAndOptionalParts) {
  Template rules;
  EXPECT_EQ(rules.prompt_text(alpaca("Do", "this")).text, "Do\nthis\n");
  EXPECT_EQ(rules.prompt_text(alpaca("Do", "")).text, "Do\n");
  rules.prompt = "{{\"q\": \"{instruction}\"}}[[ ({input})]] =";
  EXPECT_EQ(rules.prompt_text(alpaca("a{b}", "x]]")).text, "{\"q\": \"a{b}\"} (x]]) =");
  EXPECT_EQ(rules.prompt_text(alpaca("a{b}", "")).text, "{\"q\": \"a{b}\"} =");
  rules.response_prefix = "<";
  rules.response_suffix = ">";
  EXPECT_EQ(rules.response_text(alpaca("a", ""), "r").text, "<r>");
}

TEST(Template, DialoguesEndWithTheAssistantsCue) {
  Example example;
  example.turns = {{"system", "Be kind."}, {"human", "Hi"}, {"assistant", "Hello"}, {"human", "Bye"}};
  const Template rules;
  EXPECT_EQ(rules.prompt_text(example).text, "\n\nSystem: Be kind.\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:");
  EXPECT_EQ(rules.response_text(example, "See you").text, " See you");
}

TEST(Template, DialoguesHaveWordsBehindEachTurnButTheAnswer) {
  Example example;
  example.turns = {{"human", "Hi"}, {"assistant", "Hello"}, {"system", "Be kind."}, {"human", "Bye"}};
  Template rules;
  rules.human = "U:";
  rules.assistant = "A:\n";
  rules.system = "S:";
  rules.turn_suffix = "/ ";
  rules.response_suffix = ".";
  const TemplateText text = rules.prompt_text(example);
  EXPECT_EQ(text.text, "U:Hi/ A:\nHello/ S:Be kind./ U:Bye/ A:");
  EXPECT_EQ(text.own, (std::vector<TextRange>{{0, 2}, {4, 9}, {14, 18}, {26, 30}, {33, 37}}));
  EXPECT_EQ(rules.response_text(example, "See you").text, "\nSee you.");
  EXPECT_EQ(rules.prompt_text(alpaca("a", "")).text, "a\n");
}

TEST(Template, CompletePromptsAndPlainTextAreNotTouched) {
  Example example = alpaca("\n\nHuman: x\n\nAssistant:", "");
  example.complete = true;
  EXPECT_EQ(Template().prompt_text(example).text, example.prompt);
  example.is_text = true;
  Template rules;
  rules.response_prefix = "<";
  EXPECT_EQ(rules.prompt_text(example).text, "");
  EXPECT_EQ(rules.response_text(example, "words").text, "words");
}

TEST(Template, BadTemplatesAreSentences) {
  const auto complaint = [](const std::string& prompt) {
    Template rules;
    rules.prompt = prompt;
    return refusal([&] { rules.check(); });
  };
  EXPECT_THAT(complaint("{inpt}"), AllOf(HasSubstr("'inpt'"), HasSubstr("input")));
  EXPECT_THAT(complaint("{prompt"), HasSubstr("does not close"));
  EXPECT_THAT(complaint("[[{prompt}"), HasSubstr("[["));
  EXPECT_THAT(complaint("[[a[[b]]]]"), HasSubstr("inside"));
  Template rules;
  rules.max_prompt_tokens = -1;
  EXPECT_THAT(refusal([&] { rules.check(); }), HasSubstr("negative"));
}

TEST(Template, JsonGivesItBackAndDifferencesAreNamed) {
  Template rules;
  rules.prompt = "Q: \"{prompt}\"\n\u00e9";
  rules.response_suffix = "\t";
  rules.add_bos = false;
  rules.max_response_tokens = 12;
  rules.response_rule = TooLong::cut;
  EXPECT_EQ(Template::from_json(rules.to_json()), rules);
  EXPECT_EQ(rules.difference(rules), "");
  Template other = rules;
  other.add_eos = false;
  EXPECT_EQ(rules.difference(other), "add_eos is true here and false there");
  EXPECT_NE(rules, other);
  EXPECT_THAT(rules.to_json(), testing::Not(HasSubstr("turn_suffix")));  // files without it keep their bytes
  other = rules;
  other.turn_suffix = "\n";
  EXPECT_EQ(Template::from_json(other.to_json()), other);
  EXPECT_EQ(rules.difference(other), "turn_suffix is \"\" here and \"\\n\" there");
  EXPECT_EQ(other.difference(rules), "turn_suffix is \"\\n\" here and \"\" there");
  EXPECT_THAT(refusal([] { Template::from_json("{}"); }), HasSubstr("prepare the dataset again"));
  EXPECT_THAT(refusal([&] { Template::from_json("{\"colour\": 1}"); }), HasSubstr("'colour'"));
}

TEST(TemplateEncoder, ExactlyOneBosAndTheEndIsPartOfTheResponse) {
  const auto bytes = tokenizer();
  const TemplateEncoder encoder(Template{}, *bytes);
  LengthCounts counts;
  Ids tokens;
  ASSERT_TRUE(encoder.prompt({"ab"}, "here", tokens, counts));
  EXPECT_THAT(tokens, ElementsAre(bos, 'a', 'b'));
  ASSERT_TRUE(encoder.response({"c"}, {}, "here", tokens, counts));
  EXPECT_THAT(tokens, ElementsAre('c', eos));
  ASSERT_TRUE(encoder.prompt({""}, "here", tokens, counts));
  EXPECT_THAT(tokens, ElementsAre(bos));
  ASSERT_TRUE(encoder.prompt({"<bos>x"}, "here", tokens, counts));  // special tokens in a text are plain text
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), bos), 1);
  EXPECT_EQ(counts, LengthCounts{});
}

TEST(TemplateEncoder, WhatIsTooLongIsRefusedDroppedOrCut) {
  const auto bytes = tokenizer();
  Template rules;
  rules.max_prompt_tokens = 3;
  rules.max_response_tokens = 3;
  LengthCounts counts;
  Ids tokens;
  const auto encode = [&](TooLong rule, std::string_view prompt, std::string_view response) {
    rules.prompt_rule = rules.response_rule = rule;
    const TemplateEncoder encoder(rules, *bytes);
    return prompt.empty() ? encoder.response({std::string(response)}, {}, "'f', line 9", tokens, counts)
                          : encoder.prompt({std::string(prompt)}, "'f', line 9", tokens, counts);
  };
  EXPECT_TRUE(encode(TooLong::refuse, "ab", ""));
  EXPECT_TRUE(encode(TooLong::refuse, "", "ab"));
  EXPECT_THAT(refusal([&] { encode(TooLong::refuse, "abc", ""); }),
              AllOf(HasSubstr("'f', line 9"), HasSubstr("prompt has 4 tokens"), HasSubstr("--max-prompt-tokens")));
  EXPECT_THAT(refusal([&] { encode(TooLong::refuse, "", "abc"); }),
              AllOf(HasSubstr("response has 4 tokens"), HasSubstr("--response-rule")));
  EXPECT_FALSE(encode(TooLong::drop, "abc", ""));
  EXPECT_FALSE(encode(TooLong::drop, "", "abc"));
  EXPECT_EQ(counts, (LengthCounts{.dropped = 2}));
  EXPECT_TRUE(encode(TooLong::cut, "abcdef", ""));
  EXPECT_THAT(tokens, ElementsAre(bos, 'e', 'f'));
  EXPECT_TRUE(encode(TooLong::cut, "", "abc"));
  EXPECT_THAT(tokens, ElementsAre('a', 'b', 'c'));
  EXPECT_EQ(counts, (LengthCounts{.dropped = 2, .cut_prompts = 1, .cut_responses = 1}));
  rules.add_bos = false;
  EXPECT_TRUE(encode(TooLong::cut, "abcdef", ""));
  EXPECT_THAT(tokens, ElementsAre('d', 'e', 'f'));
}

TEST(TemplateEncoder, MissingSpecialTokensAndEmptyResponsesAreRefused) {
  const auto plain = byte_tokenizer({.all = {}, .bos = "", .eos = "", .pad = ""});
  EXPECT_THAT(refusal([&] { TemplateEncoder(Template{}, *plain); }), HasSubstr("add_bos = false"));
  Template rules;
  rules.add_bos = false;
  EXPECT_THAT(refusal([&] { TemplateEncoder(rules, *plain); }), HasSubstr("add_eos = false"));
  rules.add_eos = false;
  const TemplateEncoder encoder(rules, *plain);
  LengthCounts counts;
  Ids tokens;
  EXPECT_THAT(refusal([&] { encoder.response({""}, {}, "'f', line 2", tokens, counts); }), AllOf(HasSubstr("line 2"), HasSubstr("empty")));
}

}  // namespace
}  // namespace collimate
