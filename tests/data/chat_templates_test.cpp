#include "collimate/data/chat_templates.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "collimate/base/text.hpp"
#include "data/jinja_text.hpp"
#include "data/testing.hpp"

// Chat templates against what transformers prints for them (chat_templates.json, made by tests/real/chat_templates.py).
namespace collimate {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const json& golden() {
  static const json file = json::parse(std::ifstream(std::string(COLLIMATE_TESTS) + "/data/chat_templates.json"));
  return file;
}

std::unique_ptr<Tokenizer> tokenizer() {
  return byte_tokenizer({.all = {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"},
                         .bos = "<s>", .eos = "</s>", .pad = ""});
}

Template rules_of(const json& text) {
  const auto known = recognise_chat_template(text["text"].get<std::string>());
  EXPECT_TRUE(known) << text["from"] << " has the hash " << fmt::format("0x{:016x}", chat_template_hash(text["text"].get<std::string>()));
  if (!known) return {};
  EXPECT_EQ(known->name, text["row"]) << text["from"];
  return chat_template_rules(*known, *tokenizer());
}

Example dialogue_of(const json& turns) {
  Example example;
  for (const json& turn : turns) example.turns.push_back({turn[0], turn[1]});
  return example;
}

/// The text with the BOS that the rules add.
std::string prompt_of(const Template& rules, const Example& example) {
  const std::string text = rules.prompt_text(example).text;
  return (rules.add_bos && !text.starts_with("<s>") ? "<s>" : "") + text;
}

/// Texts that leave turns out, or print them in a form that no answer could follow, where the rules refuse the dialogue.
const std::set<std::string> stricter = {"chatml-alternating", "phi-3-mini", "phi-3-medium"};

TEST(ChatTemplates, PrintWhatAnotherProgramPrints) {
  int prompts = 0, refusals = 0;
  for (const json& text : golden()["texts"]) {
    const Template rules = rules_of(text);
    const json& prints = golden()["prints"][text["prints"].get<std::size_t>()];
    for (std::size_t i = 0; i < prints.size(); ++i) {
      const Example example = dialogue_of(golden()["dialogues"][i]);
      std::string ours;
      try {
        ours = prompt_of(rules, example);
      } catch (const Error& error) {
        EXPECT_TRUE(prints[i].is_null() || stricter.contains(text["row"])) << text["from"] << i << error.what();
        ++refusals;
        continue;
      }
      ASSERT_FALSE(prints[i].is_null()) << text["from"] << " takes no dialogue " << i << ", and here it is " << ours;
      EXPECT_EQ(ours, prints[i][0].get<std::string>()) << text["from"] << i;
      ++prompts;
      // With the answer: what it prints goes on with our response; behind that only the turn's end may stand, and for some the cue.
      if (prints[i][2].is_null() && rules.chat.system_place == ChatForm::System::in_last_question && example.turns[0].role == "system") continue;
      const std::string whole = prints[i][2].is_null() ? prints[i][1].get<std::string>() : ours + prints[i][2].get<std::string>();
      const std::string taught = ours + rules.response_text(example, golden()["answer"].get<std::string>()).text;
      ASSERT_TRUE(whole.starts_with(taught)) << text["from"] << i << ": " << taught << " and there " << whole;
      const std::string rest = whole.substr(taught.size()), turn = rules.chat.assistant_suffix + rules.turn_suffix;
      const std::string end = turn.substr(rules.response_suffix.size());
      EXPECT_TRUE(turn.starts_with(rules.response_suffix)) << text["from"];
      EXPECT_TRUE(rest == end || rest == end + rules.assistant || rest == end + "</s>") << text["from"] << ": " << rest;
    }
  }
  EXPECT_EQ(prompts, 338);
  EXPECT_EQ(refusals, 58);
}

TEST(ChatTemplates, EveryRowHasATextButThoseNamedByTheirSystemTurn) {
  std::set<std::string> seen;
  for (const json& text : golden()["texts"]) seen.insert(text["row"]);
  const std::vector<std::string> names = chat_template_names();
  EXPECT_EQ(seen, std::set<std::string>(names.begin(), names.end()));
}

TEST(ChatTemplates, ADefaultSystemTurnIsTakenFromTheText) {
  const std::string text = "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nIt\\'s me.<|im_end|>\n' "
                           "}}{% endif %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if "
                           "add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  const auto known = recognise_chat_template(text);
  ASSERT_TRUE(known);
  EXPECT_EQ(known->name, "chatml");
  EXPECT_EQ(known->default_system, "It's me.");
  Example example;
  example.prompt = "Hi";
  EXPECT_EQ(chat_template_rules(*known, *tokenizer()).prompt_text(example).text,
            "<|im_start|>system\nIt's me.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_FALSE(recognise_chat_template(replace_all(text, "It\\'s me.", "")));       // another form: an empty turn
  EXPECT_FALSE(recognise_chat_template(replace_all(text, "It\\'s me.", "' + x + '")));
}

TEST(ChatTemplates, WhatPrintsSomethingElseIsNotRecognised) {
  std::set<std::string> forms;
  for (const json& text : golden()["texts"]) {
    const std::string source = text["text"];
    // Another word or blank in what is printed, another condition: each makes a text that is none of the table's.
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {"user", "User"}, {"content", "text"}, {" + ", " + ' ' + "}, {"| trim", ""}, {".strip()", ""}, {"eos_token", "bos_token"},
             {"loop.index0", "loop.index"}, {"<|im_end|>", "<|im_end|> "}, {"[INST] ", "[INST]  "}, {"{{ bos_token }}", ""}}) {
      const std::string changed = replace_all(source, from, to);
      if (changed == source) continue;
      const auto known = recognise_chat_template(changed);
      if (known) forms.insert(text["row"].get<std::string>() + " as " + known->name + ": " + from);
    }
    EXPECT_FALSE(recognise_chat_template(source.substr(0, source.size() / 2)));
    EXPECT_FALSE(recognise_chat_template(source + "x"));
  }
  // Those that are another row of the table.
  EXPECT_EQ(forms, (std::set<std::string>{"chatml-bos as chatml: {{ bos_token }}", "llama-2 as llama-2-untrimmed: .strip()",
                                          "llama-2 as llama-2-untrimmed: | trim", "phi-3-mini as phi-3-medium: {{ bos_token }}"}));
  EXPECT_FALSE(recognise_chat_template(""));
}

TEST(ChatTemplates, FormsDoNotDependOnHowTheyAreWritten) {
  const std::string one = canonical_jinja("{% for m in messages %}{{ 'a' + m['x'] + \"\\n\" }}{% endfor %}");
  EXPECT_EQ(one, canonical_jinja("{%-for k in messages-%}\n  {{-'a'}}{{k.x+'\n'}}{#- no -#}  {%- endfor %}\n"));
  EXPECT_EQ(one, canonical_jinja("{% for m in messages %}\na{{ m.x }}\n    {% endfor %}"));
  EXPECT_NE(one, canonical_jinja("{% for m in messages %} a{{ m.x }}\n    {% endfor %}"));
  EXPECT_NE(one, canonical_jinja("{% for m in messages %}{{ 'a ' + m['x'] + \"\\n\" }}{% endfor %}"));
  EXPECT_NE(canonical_jinja("{{ a if b else 'c' + d }}"), canonical_jinja("{{ a if b else 'c' }}{{ d }}"));
  EXPECT_EQ(canonical_jinja("{{ a.strip() + 'b' }}"), canonical_jinja("{{ a | trim }}b"));
  EXPECT_EQ(canonical_jinja("{{ 'open"), "");
  EXPECT_EQ(canonical_jinja("{% if x "), "");
}

TEST(ChatTemplates, AnEndOfAnswerIsASpecialToken) {
  const auto bytes = tokenizer();
  const Template chatml = chat_template_rules({"chatml", std::nullopt}, *bytes), vicuna = chat_template_rules({"vicuna", std::nullopt}, *bytes);
  EXPECT_EQ(end_of_answer(chatml, *bytes), bytes->id_of("<|im_end|>"));
  EXPECT_FALSE(chatml.add_eos);  // nothing stands behind <|im_end|>
  EXPECT_EQ(end_of_answer(vicuna, *bytes), bytes->eos());
  const auto plain = byte_tokenizer({.all = {"</s>"}, .bos = "", .eos = "</s>", .pad = ""});  // <|im_end|> is letters
  const Template letters = chat_template_rules({"chatml", std::nullopt}, *plain);
  EXPECT_FALSE(end_of_answer(letters, *plain));
  EXPECT_TRUE(letters.add_eos);
  EXPECT_FALSE(chat_template_rules({"llama-3", std::nullopt}, *plain).add_bos);
  const auto endless = byte_tokenizer({.all = {}, .bos = "", .eos = "", .pad = ""});
  EXPECT_THAT(refusal([&] { chat_template_rules({"zephyr", std::nullopt}, *endless); }), HasSubstr("zephyr"));
  EXPECT_THAT(refusal([&] { chat_template_rules({"zephir", std::nullopt}, *bytes); }), HasSubstr("one of chatml, "));
}

TEST(ChatTemplates, DialoguesThatTheFormCannotHoldAreRefused) {
  const Template gemma = chat_template_rules({"gemma", std::nullopt}, *tokenizer());
  EXPECT_THAT(refusal([&] { gemma.prompt_text(dialogue_of(json::parse(R"([["system","s"],["human","a"]])"))); }), HasSubstr("no system turn"));
  const Template llama = chat_template_rules({"llama-2", std::nullopt}, *tokenizer());
  EXPECT_THAT(refusal([&] { llama.prompt_text(dialogue_of(json::parse(R"([["human","a"],["human","b"]])"))); }), HasSubstr("turn 2"));
}

TEST(ChatTemplates, AreStoredWithTheRules) {
  for (const std::string& name : chat_template_names()) {
    const Template rules = chat_template_rules({name, std::nullopt}, *tokenizer());
    EXPECT_EQ(Template::from_json(rules.to_json()), rules) << name;
    EXPECT_EQ(rules.difference(rules), "");
  }
  Template rules = chat_template_rules({"chatml-bos", std::nullopt}, *tokenizer());
  rules.chat.text_eos = true;
  EXPECT_EQ(Template::from_json(rules.to_json()), rules);
  json older = json::parse(rules.to_json());  // one rule for dialogues and plain text
  older["chat"].erase("text_bos");
  older["chat"].erase("text_eos");
  const Template read = Template::from_json(older.dump());
  EXPECT_TRUE(read.starts_with_bos(true) && read.starts_with_bos(false));
  EXPECT_FALSE(read.ends_with_eos(true) || read.ends_with_eos(false));
  const Template a = chat_template_rules({"qwen2", std::nullopt}, *tokenizer()), b = chat_template_rules({"qwen2", "Hm."}, *tokenizer());
  EXPECT_THAT(a.difference(b), HasSubstr("Hm."));
  EXPECT_THAT(a.difference(Template()), HasSubstr("'qwen2' here and none there"));
  EXPECT_EQ(Template().to_json().find("chat"), std::string::npos);
}

}  // namespace
}  // namespace collimate
