#include <random>
#include <sstream>

#include "app/model_folder.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/dataset.hpp"

namespace collimate::test {
namespace {

/// The part of a printed sample between "text: " and the line that tells how it ended.
std::string text_in(const std::string& printed) {
  const std::size_t begin = printed.find("text: ") + 6, end = printed.rfind("\n[");
  return printed.substr(begin, end - begin);
}
std::string tokens_in(const std::string& printed) {
  const std::size_t begin = printed.find("tokens: ") + 8;
  return printed.substr(begin, printed.find('\n', begin) - begin);
}

class Generate : public testing::Test {
 protected:
  void SetUp() override {
    put_model(folder / "hf", small_gpt2());
    printed({"import", "--model", folder / "hf", "--output", folder / "c"});
  }
  std::string say(std::vector<std::string> more) {
    more.insert(more.begin(), {"generate", "--checkpoint", folder / "c"});
    return printed(more);
  }
  void refused(std::vector<std::string> more, const std::vector<std::string>& parts) {
    more.insert(more.begin(), {"generate", "--checkpoint", folder / "c"});
    expect_refusal(more, parts);
  }
  /// The checkpoint t: another model, with the tokenizer of the quickstart's data in ex.
  void import_with_tokenizer(std::vector<std::string> more) {
    ModelConfig config = small_llama();
    config.vocabulary = 300;
    put_model(folder / "hf2", config);
    printed({"prepare", "--example", folder / "ex", "--train-bpe", "300"});
    more.insert(more.begin(), {"import", "--model", folder / "hf2", "--output", folder / "t", "--tokenizer", folder / "ex/tokenizer.json"});
    printed(more);
  }
  Scratch folder;
};

TEST_F(Generate, SamplesDependOnSeedAndNumberOnly) {
  const std::vector<std::string> ask = {"--prompt-ids", "1,2,3", "--prompt-ids=4", "--samples", "5", "--max-new", "6", "--logprobs"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), ask.begin(), ask.end());
    return say(more);
  };
  const std::string all = with({});
  EXPECT_EQ(with({"--slots", "1"}), all);
  EXPECT_EQ(with({"--slots", "3"}), all);
  EXPECT_NE(with({"--seed", "2"}), all);
  EXPECT_NE(all.find("prompt 2, sample 5 of 5: 4\n"), std::string::npos) << all;
  EXPECT_EQ(with({"--top-k", "1"}), with({"--top-p=1e-9"}));
  const std::string greedy = with({"--temperature", "0"});
  EXPECT_NE(greedy, all);
  EXPECT_EQ(tokens_in(greedy), tokens_in(with({"--top-k", "1"})));
  // The most probable token's log-probability is the model's, as a draw of it at temperature 1 has it.
  const auto line = [](const std::string& printed) {
    const std::size_t begin = printed.find("text\n") + 5;
    return printed.substr(begin, printed.find('\n', begin) - begin);
  };
  std::string drawn;
  for (int seed = 1; seed < 100 && drawn != line(greedy); ++seed) drawn = line(with({"--seed", std::to_string(seed)}));
  EXPECT_EQ(drawn, line(greedy));
  EXPECT_EQ(line(greedy).find("0.000000"), std::string::npos);
}

TEST_F(Generate, UsesTheWholeContextAndNoMore) {
  const std::string most = say({"--prompt-ids", "1,2,3,4"});  // 40 rows: the prompt's 4 and 36 new ones; the 37th is not computed with
  EXPECT_NE(most.find("[37 tokens, ended by length]"), std::string::npos) << most;
  EXPECT_EQ(tokens_in(say({"--prompt-ids", "1,2,3,4", "--max-new=37"})), tokens_in(most));
  refused({"--prompt-ids", "1,2,3,4", "--max-new=38"}, {"prompt 1 has 4 tokens", "context is 40", "at most 37"});
  refused({"--prompt-ids", join(std::vector<std::string>(41, "1"), ",")}, {"prompt 1 has 41 tokens", "context is 40"});
}

TEST_F(Generate, RefusesBadInput) {
  refused({"--prompt", "hello"}, {"no tokenizer", "--prompt-ids"});
  refused({}, {"no tokenizer", "--prompt-ids"});
  refused({"--prompt-ids", "1,29"}, {"'29'", "0 to 28"});
  refused({"--prompt-ids", "1,-2"}, {"'-2'"});
  refused({"--prompt-ids", "1,x"}, {"'x'"});
  refused({"--prompt-ids", ""}, {"--prompt-ids"});
  refused({"--prompt-ids"}, {"--prompt-ids needs a value"});
  refused({"--prompt-ids", "1", "--prompt", "a"}, {"not both"});
  refused({"--prompt-ids", "1", "--temperature=-1"}, {"temperature", "0 or number 1e-06..1000000"});
  for (const std::string absurd : {"1e-300", "1e-30", "1e38", "nan", "inf"})
    refused({"--prompt-ids", "1", "--temperature=" + absurd}, {"temperature = " + absurd, "expected: 0 or number 1e-06..1000000"});
  refused({"--prompt-ids", "1", "--samples=1000000000"}, {"samples", "1..1000000"});
  refused({"--prompt-ids", "1", "--top-p=0"}, {"top-p"});
  refused({"--prompt-ids", "1", "--max-new=0"}, {"max-new"});
  refused({"--prompt-ids", "1", "--model", "reward"}, {"reward", "policy"});
  refused({"--prompt-ids", "1", "--temprature=1"}, {"temprature", "temperature"});
  expect_refusal({"generate", "--prompt-ids", "1"}, {"--checkpoint"});
  expect_refusal({"generate", "my c", "--prompt-ids", "1"}, {"'my c' has no option in front of it; give it as --checkpoint 'my c'"});
  expect_refusal({"export", folder / "c", folder / "out"}, {"give it as --checkpoint " + folder / "c"});
  expect_refusal({"import", folder / "hf", folder / "out"}, {"give it as --model " + folder / "hf"});
  refused({"--prompt", "why", "is", "it"}, {"is has no option in front of it", "in quotes"});
  expect_refusal({"generate", "--checkpoint", folder / "nothing", "--prompt-ids", "1"}, {"nothing"});
  expect_refusal({"generate", "--checkpoint", folder / "hf/config.json", "--prompt-ids", "1"}, {"hf/config.json", "is a file"});
}

TEST_F(Generate, TakesTextThroughTheTemplate) {
  import_with_tokenizer({"--prompt-template", "<{prompt}>\\n", "--max-prompt-tokens", "9"});
  EXPECT_NE(printed({"export", "--checkpoint", folder / "t", "--output", folder / "t-out"}).find("the template \"<{prompt}>\\n\";"), std::string::npos);
  const auto ask = [&](std::vector<std::string> more, const std::string& input = "") {
    more.insert(more.begin(), {"generate", "--checkpoint", folder / "t", "--max-new", "9", "--logprobs"});
    return printed(more, input);
  };
  const std::string one = ask({"--prompt", "a, b"});
  EXPECT_EQ(ask({}, "a, b\n"), one);
  EXPECT_EQ(ask({}, "\n  \na, b\r\n"), one);
  EXPECT_EQ(text_in(ask({"--raw", "--prompt", "<a, b>\n"})), text_in(one));
  EXPECT_NE(text_in(ask({"--raw", "--prompt", "a, b"})), text_in(one));
  expect_refusal({"generate", "--checkpoint", folder / "t", "--prompt", "0123456789"}, {"prompt 1", "9"});
  expect_refusal({"generate", "--checkpoint", folder / "t"}, {"--prompt"});  // nothing on standard input

  // Data for this model get its tokenizer and template; those are refused on the command line then.
  put(folder / "a.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
  const std::string made = printed({"prepare", folder / "a.jsonl", "--output", folder / "a.h5", "--like", folder / "t"});
  EXPECT_NE(made.find("\"<a>\\n\""), std::string::npos) << made;
  EXPECT_NE(made.find("300 tokens"), std::string::npos) << made;
  expect_refusal({"prepare", folder / "a.jsonl", "--output", folder / "b.h5", "--like", folder / "t", "--add-bos=false"}, {"--like"});
  expect_refusal({"prepare", folder / "a.jsonl", "--output", folder / "b.h5", "--like", folder / "t", "--tokenizer=bytes"}, {"--like"});
}

TEST_F(Generate, LogprobsShowTextNotPieces) {
  import_with_tokenizer({});
  const std::string said =
      printed({"generate", "--checkpoint", folder / "t", "--prompt", "a", "--max-new", "39", "--logprobs", "--stop", "none"});
  EXPECT_NE(said.find("log-probability  text\n"), std::string::npos) << said;
  for (const char digit : std::string("89abcdef")) EXPECT_EQ(said.find(std::string("\"\\x") + digit), std::string::npos) << said;
  EXPECT_NE(said.find("  \"\uFFFD\""), std::string::npos) << said;  // a byte, which as a piece has a letter of GPT-2's alphabet
}

TEST_F(Generate, TakesTheTemplatesSpecialTokensAsPrepareDoes) {
  import_with_tokenizer({"--prompt-template", "<|bos|>{prompt}<|endoftext|>\\n"});
  put(folder / "a.jsonl", "{\"prompt\": \"a<|endoftext|>\"}\n");
  printed({"prepare", folder / "a.jsonl", "--output", folder / "a.h5", "--like", folder / "t"});
  const std::vector<std::int32_t> tokens = Dataset(folder / "a.h5").prompt(0).tokens;
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), 0), 1);  // <|bos|>
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), 1), 1);  // <|endoftext|>: the template's, not the record's
  std::vector<std::string> ids;
  for (const std::int32_t id : tokens) ids.push_back(std::to_string(id));
  const auto ask = [&](const std::string& option, const std::string& value) {
    const std::string text = printed({"generate", "--checkpoint", folder / "t", "--max-new", "9", "--logprobs", option, value});
    return text.substr(text.find("text: "));
  };
  EXPECT_EQ(ask("--prompt", "a<|endoftext|>"), ask("--prompt-ids", join(ids, ",")));
  EXPECT_NE(ask("--prompt", "a"), ask("--prompt", "a<|endoftext|>"));
}

TEST_F(Generate, ABosThatOnlyTheModelNamesIsSpecialToo) {
  import_with_tokenizer({});
  put(folder / "plain/tokenizer.json", replace_all(bytes_of(folder / "ex/tokenizer.json"), "\"special\": true", "\"special\": false"));
  put(folder / "hf2/config.json", replace_all(bytes_of(folder / "hf2/config.json"), "\"bos_token_id\": null", "\"bos_token_id\": 0"));
  printed({"import", "--model", folder / "hf2", "--output", folder / "u", "--tokenizer", folder / "plain"});
  put(folder / "a.jsonl", "{\"prompt\": \"a<|bos|>\"}\n");
  printed({"prepare", folder / "a.jsonl", "--output", folder / "a.h5", "--like", folder / "u"});
  const std::vector<std::int32_t> tokens = Dataset(folder / "a.h5").prompt(0).tokens;
  EXPECT_EQ(tokens.front(), 0);
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), 0), 1);
}

TEST(RealModels, GreedyTextIsThatOfAnotherProgram) {
  NEEDS_DATA();
  for (const std::string name : {"babyllama105", "stories260K"}) {
    const Scratch folder;
    const std::string golden = bytes_of(data("models/" + name + "/sample_output.txt"));
    const std::size_t begin = golden.find('\n') + 1;
    const std::string wanted = golden.substr(begin, golden.find("\n\nsampled") - begin);
    printed({"import", "--model", data("models/" + name), "--output", folder / "c"});
    const std::vector<std::string> greedy = {"generate", "--checkpoint", folder / "c", "--temperature", "0"};
    const auto continued = [&](const std::string& prompt, const std::string& most) {
      std::vector<std::string> ask = greedy;
      ask.insert(ask.end(), {"--prompt", prompt, "--max-new", most});
      return text_in(printed(ask));
    };
    EXPECT_EQ(continued("", "200"), wanted);
    const std::string start = wanted.substr(0, wanted.find(" was"));
    const std::string rest = continued(start, "60");
    EXPECT_GT(rest.size(), 20u);
    EXPECT_EQ(wanted.substr(start.size(), rest.size()), rest);
  }
}

TEST(RealModels, LogprobsSpellTheText) {
  NEEDS_DATA();
  const Scratch folder;
  printed({"import", "--model", data("models/stories260K"), "--output", folder / "c"});
  const std::string said = printed({"generate", "--checkpoint", folder / "c", "--prompt", "Once upon", "--max-new", "20", "--logprobs"});
  std::string text;
  std::istringstream lines(said);
  for (std::string line; std::getline(lines, line);)
    if (line.ends_with('"')) text += line.substr(line.find('"') + 1, line.size() - line.find('"') - 2);
  EXPECT_EQ(text, said.substr(said.find("text: ") + 6, text.size())) << said;
  EXPECT_GT(text.size(), 40u);
}

TEST(RealModels, SortsNumbers) {
  NEEDS_DATA();
  const Scratch folder;
  printed({"import", "--model", data("models/gpt-nano-sort"), "--output", folder / "c"});
  std::mt19937 random(7);
  std::vector<std::string> ask = {"generate", "--checkpoint", folder / "c", "--temperature", "0", "--max-new", "6"};
  std::vector<std::string> wanted;
  for (int i = 0; i < 200; ++i) {
    std::vector<std::string> digits;
    for (int k = 0; k < 6; ++k) digits.push_back(std::to_string(random() % 3));
    ask.insert(ask.end(), {"--prompt-ids", join(digits, ",")});
    std::sort(digits.begin(), digits.end());
    wanted.push_back(join(digits, ","));
  }
  std::string said = printed(ask);
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(tokens_in(said), wanted[i]) << i;
    said = said.substr(said.find("]\n\n") + 3);
  }
}

}  // namespace
}  // namespace collimate::test
