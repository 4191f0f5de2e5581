#include <nlohmann/json.hpp>

#include "app/model_folder.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/utf8.hpp"
#include "collimate/data/dataset.hpp"
#include "collimate/rlhf/saved_models.hpp"

// Chat templates from folder to folder, and dialogues with a model.
namespace collimate::test {
namespace {

using nlohmann::json;

const std::string chatml =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif "
    "%}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";
const std::string unknown = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}";
constexpr std::int32_t bytes = 256, start = 256, end = 257;

class Chat : public testing::Test {
 protected:
  /// A model with a token for each byte, and <|im_start|> and <|im_end|>; its end of text is another one.
  void SetUp() override {
    ModelConfig config = small_llama();
    config.vocabulary = 260;
    config.context = 160;
    put_model(folder / "hf", config);
    printed({"prepare", "--example", folder / "ex", "--train-bpe", "260"});
    json tokenizer = json::parse(bytes_of(folder / "ex/tokenizer.json"));
    tokenizer["added_tokens"] = json::array();
    json vocabulary = json::object();
    for (const auto& [word, id] : tokenizer["model"]["vocab"].items())
      if (utf8_length(word) == word.size()) vocabulary[word] = vocabulary.size();
    tokenizer["model"]["vocab"] = vocabulary;
    tokenizer["model"]["merges"] = json::array();
    for (const std::string name : {"<|im_start|>", "<|im_end|>", "</s>"})
      tokenizer["added_tokens"].push_back({{"id", bytes + tokenizer["added_tokens"].size()}, {"content", name}, {"single_word", false}, {"lstrip", false},
                                           {"rstrip", false}, {"normalized", false}, {"special", true}});
    put(folder / "hf/tokenizer.json", tokenizer.dump());
  }
  std::string import(const std::string& chat_template, std::vector<std::string> more = {}) {
    json config = {{"eos_token", "</s>"}, {"tokenizer_class", "PreTrainedTokenizerFast"}, {"add_bos_token", false}};
    if (!chat_template.empty()) config["chat_template"] = chat_template;
    put(folder / "hf/tokenizer_config.json", config.dump());
    more.insert(more.begin(), {"import", "--model", folder / "hf", "--output", folder / "c"});
    return printed(more);
  }
  std::string exported() {
    std::filesystem::remove_all(folder / "out");
    return printed({"export", "--checkpoint", folder / "c", "--output", folder / "out"});
  }
  json written() { return json::parse(bytes_of(folder / "out/tokenizer_config.json")); }
  json generated(std::vector<std::string> more) {
    more.insert(more.begin(), {"generate", "--checkpoint", folder / "c", "--json", "--temperature", "0", "--max-new", "3"});
    return json::parse(printed(more));
  }
  /// The text of prompt tokens, special tokens written out.
  std::string prompt_of(std::vector<std::string> more) {
    const auto tokenizer = rlhf::SavedModels(folder / "c").text_rules().make_tokenizer();
    return tokenizer->decode(generated(std::move(more))["prompt_tokens"].get<std::vector<std::int32_t>>(), true);
  }
  /// The answer at the end of a dialogue, as generate gives it for its tokens.
  std::string answer(const std::vector<Turn>& turns) {
    const rlhf::TextRules text = rlhf::SavedModels(folder / "c").text_rules();
    const auto tokenizer = text.make_tokenizer();
    Example example;
    example.turns = turns;
    LengthCounts counts;
    std::vector<std::int32_t> tokens;
    TemplateEncoder(text.rules, *tokenizer).prompt(text.rules.prompt_text(example), "", tokens, counts);
    std::vector<std::string> ids;
    for (const std::int32_t id : tokens) ids.push_back(std::to_string(id));
    const json said = json::parse(
        printed({"generate", "--checkpoint", folder / "c", "--json", "--temperature", "0", "--max-new", "8", "--prompt-ids", join(ids, ",")}));
    return tokenizer->decode_after(tokens, said["tokens"].get<std::vector<std::int32_t>>());
  }
  Outcome chat(const std::string& input, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"chat", "--checkpoint", folder / "c", "--max-new", "8"});
    return collimate(more, input);
  }
  Scratch folder;
};

TEST_F(Chat, AKnownTemplateIsTakenAndExported) {
  const std::string said = import(chatml);
  EXPECT_NE(said.find("chat template: chatml, with the system message \"Be kind.\""), std::string::npos) << said;
  EXPECT_NE(said.find("<|im_end|> ends a response too"), std::string::npos) << said;
  EXPECT_EQ(prompt_of({"--prompt", "Hi"}), "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(prompt_of({"--prompt", "Hi", "--system", "S"}), "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(prompt_of({"--prompt", "Hi", "--raw"}), "Hi");
  EXPECT_EQ(generated({"--prompt", "<|im_end|>"})["prompt_tokens"].size(), std::string("system\nBe kind.\nuser\n<|im_end|>\nassistant\n").size() + 5);
  expect_refusal({"generate", "--checkpoint", folder / "c", "--prompt", "a", "--system", "b", "--raw"}, {"--system", "--raw"});

  // prepare --like: prompts, answers and dialogues are turns.
  put(folder / "a.jsonl", "{\"prompt\": \"Hi\", \"response\": \"Oh\"}\n");
  printed({"prepare", folder / "a.jsonl", "--like", folder / "c", "--output", folder / "a.h5"});
  put(folder / "b.jsonl", R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh"}]})");
  printed({"prepare", folder / "b.jsonl", "--like", folder / "c", "--output", folder / "b.h5"});
  const SupervisedSample one = Dataset(folder / "a.h5").supervised(0), other = Dataset(folder / "b.h5").supervised(0);
  EXPECT_EQ(one.tokens, other.tokens);
  EXPECT_EQ(one.response, "Oh<|im_end|>");
  EXPECT_EQ(one.tokens.back(), end);  // and no </s>

  EXPECT_NE(exported().find("its chat template, chatml, is written with it"), std::string::npos);
  EXPECT_EQ(written()["chat_template"], chatml);
  EXPECT_EQ(json::parse(bytes_of(folder / "out/config.json"))["eos_token_id"], json({258, end}));
  printed({"import", "--model", folder / "out", "--output", folder / "again"});
  EXPECT_EQ(rlhf::SavedModels(folder / "again").text_rules().rules, rlhf::SavedModels(folder / "c").text_rules().rules);
}

TEST_F(Chat, PlainTextBeginsAndEndsAsTheTokenizersFilesSay) {
  constexpr std::int32_t bos = 259, eos = 258;
  json tokenizer = json::parse(bytes_of(folder / "hf/tokenizer.json"));
  tokenizer["added_tokens"].push_back(tokenizer["added_tokens"].back());
  tokenizer["added_tokens"].back().update({{"id", bos}, {"content", "<s>"}});
  put(folder / "hf/tokenizer_config.json",
      json{{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"tokenizer_class", "PreTrainedTokenizerFast"}}.dump());
  const json puts_bos = {{"type", "TemplateProcessing"},
                         {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
                         {"pair", json::array()},
                         {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {bos}}, {"tokens", {"<s>"}}}}}}};
  for (const bool text_has : {true, false})          // as the post_processor says
    for (const bool dialogue_has : {true, false}) {  // as the chat template says
      tokenizer["post_processor"] = text_has ? puts_bos : json();
      put(folder / "hf/tokenizer.json", tokenizer.dump());
      printed({"import", "--model", folder / "hf", "--output", folder / "c", "--chat-template", dialogue_has ? "chatml-bos" : "chatml"});
      const auto ids = rlhf::SavedModels(folder / "c").text_rules().make_tokenizer()->encode("Hi");
      std::vector<std::int32_t> expected = ids;
      if (text_has) expected.insert(expected.begin(), bos);
      EXPECT_EQ(generated({"--prompt", "Hi", "--raw"})["prompt_tokens"].get<std::vector<std::int32_t>>(), expected);
      EXPECT_EQ(generated({"--prompt", "Hi"})["prompt_tokens"][0], dialogue_has ? bos : start);
      expected.push_back(eos);
      put(folder / "a.jsonl", "{\"text\": \"Hi\"}\n");
      for (const std::string window : {"0", "50"}) {
        printed({"prepare", folder / "a.jsonl", "--like", folder / "c", "--text-window", window, "--output", folder / "a.h5"});
        EXPECT_EQ(Dataset(folder / "a.h5").supervised(0).tokens, expected) << window;
      }
      put(folder / "b.jsonl", R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh"}]})");
      const std::string said = printed({"prepare", folder / "b.jsonl", "--like", folder / "c", "--output", folder / "b.h5"});
      const SupervisedSample answer = Dataset(folder / "b.h5").supervised(0);
      EXPECT_EQ(answer.tokens.front(), dialogue_has ? bos : start);
      EXPECT_EQ(answer.tokens.back(), end);
      const std::string in_text = text_has ? "; in plain text BOS added, EOS added" : "; in plain text BOS not added, EOS added";
      EXPECT_NE(said.find(in_text), std::string::npos) << said;
      exported();
      EXPECT_EQ(json::parse(bytes_of(folder / "out/tokenizer.json"))["post_processor"].is_null(), !text_has);
    }
  printed({"import", "--model", folder / "hf", "--output", folder / "c", "--chat-template", "chatml", "--add-bos", "true", "--add-eos",
           "false"});
  printed({"prepare", folder / "a.jsonl", "--like", folder / "c", "--output", folder / "a.h5"});
  EXPECT_EQ(Dataset(folder / "a.h5").supervised(0).tokens.front(), bos);
  EXPECT_NE(Dataset(folder / "a.h5").supervised(0).tokens.back(), eos);
}

TEST_F(Chat, AnUnknownTemplateIsKeptAndSaid) {
  const std::string said = import(unknown);
  EXPECT_NE(said.find("is not known: it is kept and exported again"), std::string::npos) << said;
  for (const char* option : {"--chat-template custom", "--human", "--assistant", "--system", "--turn-suffix", "--response-suffix", "--default-system"})
    EXPECT_NE(said.find(option), std::string::npos) << option;
  EXPECT_EQ(prompt_of({"--prompt", "Hi"}), "Hi");
  exported();
  EXPECT_EQ(written()["chat_template"], unknown);
  const Outcome outcome = chat("Hi\n");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("--chat-template"), std::string::npos) << outcome.err;
  expect_refusal({"generate", "--checkpoint", folder / "c", "--prompt", "a", "--system", "b"}, {"--system", "--chat-template"});

  import(unknown, {"--chat-template", "custom", "--human", "user: ", "--assistant", "assistant: ", "--turn-suffix", "\\n", "--default-system", "S\\n"});
  EXPECT_EQ(prompt_of({"--prompt", "Hi"}), "\n\nSystem: S\n\nuser: Hi\nassistant: ");
  const std::string told = exported();
  EXPECT_NE(told.find("chosen by hand, and the chat template in the folder is the imported one"), std::string::npos) << told;
  EXPECT_EQ(written()["chat_template"], unknown);
  EXPECT_EQ(chat("Hi\n").code, 0);
}

TEST_F(Chat, TheCommandLineChooses) {
  EXPECT_NE(import(chatml, {"--prompt-template", "<{prompt}>"}).find("not used: the command line gives other words"), std::string::npos);
  EXPECT_EQ(prompt_of({"--prompt", "Hi"}), "<Hi>");
  EXPECT_NE(import(chatml, {"--chat-template", "none"}).find("not used"), std::string::npos);
  EXPECT_EQ(prompt_of({"--prompt", "Hi"}), "Hi");
  import("", {"--chat-template", "zephyr"});
  EXPECT_EQ(prompt_of({"--prompt", "Hi"}), "<|user|>\nHi</s>\n<|assistant|>\n");
  EXPECT_NE(exported().find("chosen by hand, and the folder has no chat template"), std::string::npos);
  import(chatml, {"--default-system", "S", "--max-prompt-tokens", "60"});
  EXPECT_EQ(prompt_of({"--prompt", "Hi"}), "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(rlhf::SavedModels(folder / "c").text_rules().rules.max_prompt_tokens, 60);
  const auto refused = [&](std::vector<std::string> more, const std::vector<std::string>& parts) {
    more.insert(more.begin(), {"import", "--model", folder / "hf", "--output", folder / "c"});
    expect_refusal(more, parts);
  };
  refused({"--chat-template", "zephir"}, {"'zephir'", "one of chatml"});
  refused({"--chat-template", "zephyr", "--human", "a"}, {"leave out --human"});
  refused({"--chat-template", "custom", "--human", "a"}, {"--assistant"});
  refused({"--chat-template", "none", "--default-system", "a"}, {"--default-system"});
  refused({"--chat-template", "zephyr", "--tokenizer", "none"}, {"needs a tokenizer"});
  EXPECT_NE(printed({"import", "--help"}).find("or one of chatml, "), std::string::npos);
}

TEST_F(Chat, HoldsADialogue) {
  import(chatml);
  const std::string one = answer({{"human", "a"}}), two = answer({{"human", "a"}, {"assistant", one}, {"human", "/b"}});
  EXPECT_EQ(chat("a\r\n\n  \n//b\n", {"--temperature", "0"}).out, as_utf8(one) + "\n" + as_utf8(two) + "\n");
  EXPECT_EQ(chat("a\n/reset\na", {"--temperature", "0"}).out, as_utf8(one) + "\n" + as_utf8(one) + "\n");
  const std::string other = answer({{"system", "S"}, {"human", "a"}});
  EXPECT_NE(other, one);
  EXPECT_EQ(chat("a\n", {"--temperature", "0", "--system", "S"}).out, as_utf8(other) + "\n");
  EXPECT_EQ(chat("/system S\na\n/quit\na\n", {"--temperature", "0"}).out, as_utf8(other) + "\n");
  EXPECT_EQ(chat("a\n/system S\na\n/system\na\n", {"--temperature", "0"}).out, as_utf8(one) + "\n" + as_utf8(other) + "\n" + as_utf8(one) + "\n");
  const Outcome asked = chat("/what\n", {"--temperature", "0"});
  EXPECT_EQ(asked.out, "");
  EXPECT_NE(asked.err.find("unknown command '/what'"), std::string::npos) << asked.err;
  EXPECT_EQ(chat("a\na\n", {"--seed", "2"}).out, chat("a\na\n", {"--seed", "2"}).out);
  EXPECT_NE(chat("a\n", {"--seed", "2"}).out, chat("a\n", {"--seed", "3"}).out);
}

TEST_F(Chat, AFullContextLosesItsOldestQuestions) {
  import(chatml);
  const std::string x(40, 'x'), one = answer({{"human", x + "1"}});
  const Outcome outcome = chat(x + "1\n" + x + "2\n" + x + "3\n", {"--temperature", "0"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("[the dialogue is longer than 160 tokens: its oldest question and answer are left out]"), std::string::npos) << outcome.err;
  const std::string two = answer({{"human", x + "1"}, {"assistant", one}, {"human", x + "2"}});
  const std::string three = answer({{"human", x + "2"}, {"assistant", two}, {"human", x + "3"}});
  EXPECT_EQ(outcome.out, as_utf8(one) + "\n" + as_utf8(two) + "\n" + as_utf8(three) + "\n");
  const Outcome over = chat(std::string(200, 'x') + "\na\n", {"--temperature", "0"});
  EXPECT_EQ(over.code, 0);
  EXPECT_NE(over.err.find("it is left out"), std::string::npos) << over.err;
  EXPECT_EQ(over.out, chat("a\n", {"--temperature", "0"}).out);  // the question that was too long left no trace
  expect_refusal({"chat", "--checkpoint", folder / "c", "--context", "161"}, {"--context=161", "160"});
}

TEST_F(Chat, BrokenCharactersAreReplaced) {
  import(chatml);
  bool broken = false;
  for (int seed = 1; seed < 20; ++seed) {
    const std::string said = chat("a\n", {"--seed", std::to_string(seed)}).out;
    EXPECT_EQ(as_utf8(said), said);
    broken = broken || said.find("\xef\xbf\xbd") != std::string::npos;
    const std::string text = printed({"generate", "--checkpoint", folder / "c", "--prompt", "a\xe4", "--seed", std::to_string(seed), "--max-new", "9"});
    EXPECT_EQ(as_utf8(text), text);
    EXPECT_NE(text.find("prompt: a\xef\xbf\xbd\n"), std::string::npos);
    const json line = json::parse(printed({"generate", "--checkpoint", folder / "c", "--prompt", "a", "--seed", std::to_string(seed), "--max-new", "9",
                                           "--json", "--logprobs", "--samples", "1"}));
    EXPECT_EQ(line["logprobs"].size(), line["tokens"].size());
    EXPECT_EQ(line["finish_reason"], line["tokens"].size() == 9 && line["tokens"].back() != end && line["tokens"].back() != 258 ? "length" : "stop");
  }
  EXPECT_TRUE(broken);
}

}  // namespace
}  // namespace collimate::test
