#include <nlohmann/json.hpp>

#include "app/model_folder.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/tokenizer.hpp"
#include "collimate/data/dataset.hpp"
#include "collimate/rlhf/saved_models.hpp"

namespace collimate::test {
namespace {

using nlohmann::json;

std::vector<std::int32_t> tokens_in(const std::string& printed) {
  const std::size_t begin = printed.find("tokens: ") + 8;
  std::vector<std::int32_t> ids;
  for (const std::string& word : split(printed.substr(begin, printed.find('\n', begin) - begin), ',')) ids.push_back(std::stoi(word));
  return ids;
}

class TextFiles : public testing::Test {
 protected:
  void SetUp() override {
    ModelConfig config = small_llama();
    config.vocabulary = 300;
    put_model(folder / "hf", config);
  }
  std::string import(std::vector<std::string> more) {
    more.insert(more.begin(), {"import", "--model", folder / "hf", "--output", folder / "c"});
    return printed(more);
  }
  std::string generate(const std::string& stop) {
    return printed({"generate", "--checkpoint", folder / "c", "--prompt-ids", "5,20,33", "--temperature", "0", "--max-new", "6", "--stop", stop});
  }
  /// The configuration as it is, with one key more.
  void configure(const std::string& file, const std::string& key, const json& value) {
    json now = std::filesystem::exists(folder / file) ? json::parse(bytes_of(folder / file)) : json::object();
    now[key] = value;
    put(folder / file, now.dump());
  }
  json exported(const std::string& file) {
    std::filesystem::remove_all(folder / "e");
    printed({"export", "--checkpoint", folder / "c", "--output", folder / "e"});
    return json::parse(bytes_of(folder / ("e/" + file)));
  }
  Scratch folder;
};

TEST_F(TextFiles, EveryEndThatTheFolderNamesStopsGenerationAndIsExported) {
  import({"--tokenizer", "none"});
  const std::vector<std::int32_t> all = tokens_in(generate("none"));
  ASSERT_EQ(all.size(), 6u);
  EXPECT_EQ(tokens_in(generate("eos")), all);  // no file names an end
  const std::int32_t second = all[1], never = std::find(all.begin(), all.end(), 299) == all.end() ? 299 : 298;
  const auto stops = [&](const std::vector<std::int32_t>& ends, std::size_t kept) {
    const std::string said = generate("eos");
    EXPECT_EQ(tokens_in(said), std::vector<std::int32_t>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept)));
    EXPECT_EQ(said.find("ended by end of text") != std::string::npos, kept < all.size()) << said;
    EXPECT_EQ(tokens_in(generate("none")), all);
    const json wanted = ends.size() == 1 ? json(ends[0]) : json(ends);
    EXPECT_EQ(exported("config.json")["eos_token_id"], wanted);
    EXPECT_EQ(exported("generation_config.json")["eos_token_id"], wanted);
  };
  const std::size_t kept = static_cast<std::size_t>(std::find(all.begin(), all.end(), second) - all.begin()) + 1;

  configure("hf/config.json", "eos_token_id", second);  // without a tokenizer
  configure("hf/config.json", "bos_token_id", 7);
  import({"--tokenizer", "none"});
  stops({second}, kept);
  EXPECT_EQ(exported("config.json")["bos_token_id"], 7);

  configure("hf/config.json", "eos_token_id", never);  // in another file
  configure("hf/generation_config.json", "eos_token_id", json::array({never, second, 900}));
  configure("hf/generation_config.json", "temperature", 0.6);
  std::string said = import({"--tokenizer", "none"});
  EXPECT_NE(said.find("names 900 as an end of text, which the model with its 300 rows cannot give"), std::string::npos) << said;
  EXPECT_NE(said.find(fmt::format("each of these tokens ends a response: {}, {}\n", never, second)), std::string::npos) << said;
  EXPECT_NE(said.find("generation_config.json: not used: temperature (such settings"), std::string::npos) << said;
  stops({never, second}, kept);
  EXPECT_EQ(exported("generation_config.json")["temperature"], 0.6);

  configure("hf/generation_config.json", "eos_token_id", nullptr);  // beside a tokenizer, whose EOS comes first
  configure("hf/config.json", "eos_token_id", json::array({second, never}));
  printed({"prepare", "--example", folder / "ex", "--train-bpe", "300"});
  said = import({"--tokenizer", folder / "ex/tokenizer.json"});
  const auto eos = *rlhf::SavedModels(folder / "c").text_rules().make_tokenizer()->eos();
  EXPECT_NE(said.find(fmt::format("; those that are learned end with {} (<|endoftext|>)", eos)), std::string::npos) << said;
  stops({eos, second, never}, kept);
}

TEST_F(TextFiles, EndsStayWithTheModelThroughStages) {
  configure("hf/config.json", "eos_token_id", json::array({17, 250}));
  configure("hf/generation_config.json", "top_p", 0.9);
  printed({"prepare", "--example", folder / "ex", "--train-bpe", "300"});
  import({"--tokenizer", folder / "ex/tokenizer.json", "--max-prompt-tokens", "4", "--prompt-rule", "cut", "--max-response-tokens", "4",
          "--response-rule", "cut"});
  printed({"prepare", folder / "ex/sft.jsonl", "--like", folder / "c", "--output", folder / "sft.h5"});
  put(folder / "deck.ini", fmt::format("[run]\nfolder = {}\nstages = sft\n[sft]\ninit = {}\ndata = {}\nbatch = 2\nsteps = 1\nwarmup = 0\n",
                                       folder / "run", folder / "c", folder / "sft.h5"));
  ASSERT_EQ(collimate({"run", folder / "deck.ini"}).code, 0);
  const rlhf::TextRules before = rlhf::SavedModels(folder / "c").text_rules();
  const rlhf::TextRules after = rlhf::SavedModels(folder / "run/checkpoints/sft").text_rules();
  EXPECT_EQ(after.ends, before.ends);
  EXPECT_EQ(after.ends.size(), 3u);
  EXPECT_EQ(after.generation, before.generation);
  EXPECT_EQ(after.stops(after.make_tokenizer().get()), before.ends);
}

TEST_F(TextFiles, ATokenizerAloneStopsWhatAnOlderCheckpointGenerates) {
  rlhf::TextRules text;
  text.tokenizer = byte_tokenizer()->serialize();
  EXPECT_EQ(text.stops(text.make_tokenizer().get()), std::vector<std::int32_t>{256});
  EXPECT_TRUE(text.stops(nullptr).empty());
}

TEST_F(TextFiles, ANameOfTheHubIsNoFolder) {
  expect_refusal({"import", "--model", "gpt2", "--output", folder / "d"}, {"there is no folder 'gpt2'", "huggingface-cli download gpt2"});
}

TEST_F(TextFiles, SpecialTokensInRecordsAreCountedAndAreTokensWhereAskedFor) {
  printed({"prepare", "--example", folder / "ex", "--train-bpe", "300"});
  put(folder / "a.jsonl", "{\"text\": \"<|bos|>one<|endoftext|>\"}\n{\"text\": \"two\"}\n");
  const auto prepare = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"prepare", folder / "a.jsonl", "--tokenizer", folder / "ex/tokenizer.json", "--add-bos", "true", "--output", folder / "a.h5"});
    return printed(more);
  };
  std::string said = prepare({});
  EXPECT_NE(said.find("1 texts hold the text of a special token, such as <|bos|>: it stays letters (--special-in-text"), std::string::npos) << said;
  const std::size_t letters = Dataset(folder / "a.h5").supervised(0).tokens.size();
  said = prepare({"--special-in-text"});
  EXPECT_NE(said.find("1 texts hold the text of a special token, such as <|bos|>: it is that token"), std::string::npos) << said;
  const Dataset tokens(folder / "a.h5");
  const auto tokenizer = deserialize_tokenizer(tokens.tokenizer());
  std::vector<std::int32_t> wanted = tokenizer->encode("one");
  wanted.insert(wanted.begin(), *tokenizer->bos());
  wanted.push_back(*tokenizer->eos());
  EXPECT_EQ(tokens.supervised(0).tokens, wanted);
  EXPECT_LT(wanted.size(), letters);
}

}  // namespace
}  // namespace collimate::test
