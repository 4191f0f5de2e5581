#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "collimate/data/tokenizer.hpp"
#include "collimate/io/safetensors.hpp"
#include "collimate/model/hugging_face.hpp"
#include "support/small_model.hpp"

// Real models against the numbers of other programs: llama2.c's run.c (LLaMA) and minGPT (GPT-2).
namespace collimate::test {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A model folder of Hugging Face, read into an engine.
struct RealModel {
  fs::path folder;
  ModelConfig config;
  OneEngine one;
  RealModel(const fs::path& folder, int shards, EngineUse use)
      : folder(folder),
        config(config_from_hugging_face(text_of(folder / "config.json"), (folder / "config.json").string())),
        one(config, Head::policy, shards, use) {
    read((folder / "model.safetensors").string());
  }
  void read(const std::string& path) {
    const SafetensorsReader file(path);
    std::vector<std::pair<std::string, Shape>> found;
    for (const SafetensorsEntry& entry : file.tensors()) found.emplace_back(entry.name, entry.shape);
    const auto wanted = hugging_face_tensors(config);
    const auto places = match_hugging_face(wanted, found, path).places;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      std::vector<float> stored(wanted[i].shape.count()), ours(wanted[i].part_shape().count());
      file.read(found[places[i]].first, 0, wanted[i].shape.count(), stored.data());
      for (std::size_t part = 0; part < wanted[i].parts.size(); ++part) {
        unpack(wanted[i], static_cast<int>(part), stored, ours);
        one.engine.store().write(Kind::value, wanted[i].parts[part], 0, ours);
      }
    }
  }
  void write(const std::string& path) const {
    const auto tensors = hugging_face_tensors(config);
    std::vector<SafetensorsSpec> specs;
    for (const HuggingFaceTensor& tensor : tensors) specs.push_back({tensor.name, tensor.shape});
    write_safetensors(path, specs, [&](std::size_t index, std::span<float> values) {
      std::vector<float> ours(tensors[index].part_shape().count());
      for (std::size_t part = 0; part < tensors[index].parts.size(); ++part) {
        one.engine.store().read(Kind::value, tensors[index].parts[part], 0, ours);
        pack(tensors[index], static_cast<int>(part), ours, values);
      }
    });
  }
};

/// The folder of real models, from COLLIMATE_TEST_DATA.
class Golden : public testing::Test {
 protected:
  void SetUp() override {
    const char* data = std::getenv("COLLIMATE_TEST_DATA");
    if (!data) GTEST_SKIP() << "COLLIMATE_TEST_DATA names no folder of real models";
    models_ = fs::path(data) / "models";
  }
  fs::path models_;
};

TEST_F(Golden, LlamaLogitsAndLogprobabilitiesOfRunC) {
  for (const char* name : {"stories260K", "babyllama105"})
    for (const int shards : {1, 2, 4}) {
      RealModel model(models_ / name, shards, {.rows = 256});
      const Json golden = Json::parse(text_of(model.folder / "golden_logits.json"));
      const auto ids = golden["ids"].get<std::vector<int>>();
      const auto expected = golden["token_logprobs"].get<std::vector<double>>();
      const HandGrain grain({ids});
      std::vector<float> logprob(grain.tokens.size()), entropy(grain.tokens.size());
      model.one.engine.score(grain.view(), 1, logprob, entropy);
      double sum = 0;
      ASSERT_EQ(expected.size(), ids.size() - 1);
      for (std::size_t t = 0; t < expected.size(); ++t) {
        EXPECT_NEAR(logprob[t], expected[t], 1e-4) << name << " token " << t;
        sum -= logprob[t];
      }
      EXPECT_NEAR(sum / static_cast<double>(expected.size()), golden["mean_nll"].get<double>(), 1e-5) << name;
      const auto logits = model.one.engine.logits(grain.view());
      const auto rows = golden["logits_first_positions"].get<std::vector<std::vector<double>>>();
      for (std::size_t t = 0; t < rows.size(); ++t)
        for (std::size_t v = 0; v < rows[t].size(); ++v)
          EXPECT_NEAR(logits[t * model.config.vocabulary + v], rows[t][v], 1e-4) << name << " position " << t << " token " << v;
    }
}

std::vector<float> floats_of(const Json& tensor) {  // base64 of little-endian floats
  std::vector<unsigned char> bytes;
  std::uint32_t held = 0;
  int bits = 0;
  for (const char c : tensor["data"].get<std::string>()) {
    static const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::size_t digit = alphabet.find(c);
    if (digit == std::string::npos) break;
    held = held << 6 | static_cast<std::uint32_t>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push_back(static_cast<unsigned char>(held >> bits));
  }
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

TEST_F(Golden, Gpt2LogitsOfMinGpt) {
  for (const int shards : {1, 2, 4}) {
    RealModel model(models_ / "gpt-nano-sort", shards, {.rows = 64});
    const Json golden = Json::parse(text_of(model.folder / "gpt-nano-sort-t0-partials.json"));
    const auto tokens = floats_of(golden["idx"]), expected = floats_of(golden["lm_head"]);
    ASSERT_EQ(tokens.size(), 33u);
    ASSERT_EQ(expected.size(), 99u);
    std::vector<std::vector<int>> sequences(3);
    for (int i = 0; i < 33; ++i) sequences[i / 11].push_back(static_cast<int>(tokens[i]));
    const auto logits = model.one.engine.logits(HandGrain(sequences).view());
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(logits[i], expected[i], 1e-5) << "logit " << i;
  }
}

TEST_F(Golden, Gpt2Sorts200Of200) {
  RealModel model(models_ / "gpt-nano-sort", 1, {.rows = 128, .slots = 16, .capacity = 12});
  const RandomKey key(200, Purpose::data_order);
  std::vector<Prompt> prompts(200);
  for (std::uint64_t s = 0; s < 200; ++s) {
    prompts[s].sample = s;
    for (std::uint32_t i = 0; i < 6; ++i) prompts[s].tokens.push_back(static_cast<std::int32_t>(key.below(3, s, i)));
  }
  GenerateOptions how;
  how.sampling.temperature = 0;
  how.max_new = 6;
  const auto said = model.one.engine.generate(prompts, how);
  int sorted = 0;
  for (std::size_t s = 0; s < 200; ++s) {
    auto right = prompts[s].tokens;
    std::sort(right.begin(), right.end());
    sorted += said[s].tokens == right;
  }
  EXPECT_EQ(sorted, 200);
}

TEST_F(Golden, GreedyTextIsThatOfRunC) {
  for (const char* name : {"stories260K", "babyllama105"}) {
    RealModel model(models_ / name, 1, {.rows = 16, .slots = 2, .capacity = 201});
    const auto tokenizer = load_tokenizer(model.folder.string());
    const std::string file = text_of(model.folder / "sample_output.txt");
    const std::size_t begin = file.find('\n') + 1, end = file.find("\n\nsampled");
    ASSERT_NE(end, std::string::npos);
    std::string expected = file.substr(begin, end - begin);
    const Prompt prompt{{1}, 0};  // the beginning of text
    GenerateOptions how;
    how.sampling.temperature = 0;
    how.max_new = 200;
    const auto said = model.one.engine.generate({&prompt, 1}, how)[0].tokens;
    std::string text = tokenizer->decode(said);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.pop_back();
    while (!expected.empty() && (expected.back() == ' ' || expected.back() == '\n')) expected.pop_back();
    EXPECT_EQ(text, expected) << name;
  }
}

TEST_F(Golden, ExportAndImportAgainGiveTheSameBytes) {
  const fs::path scratch = fs::temp_directory_path() / ("collimate-golden-" + std::to_string(::getpid()));
  fs::create_directories(scratch);
  for (const char* name : {"stories260K", "babyllama105", "gpt-nano-sort"}) {
    RealModel model(models_ / name, 1, {.rows = 16}), again(models_ / name, 2, {.rows = 16});
    const std::string first = (scratch / "first").string(), second = (scratch / "second").string();
    model.write(first);
    again.one.engine.store().initialise(3);
    again.read(first);
    again.write(second);
    EXPECT_EQ(text_of(first), text_of(second)) << name << ": on another number of shards too";
    const SafetensorsReader ours(first), theirs((model.folder / "model.safetensors").string());
    std::size_t compared = 0;
    for (const SafetensorsEntry& entry : theirs.tensors()) {
      const auto match = std::find_if(ours.tensors().begin(), ours.tensors().end(), [&](const auto& e) { return e.name == entry.name; });
      if (match == ours.tensors().end()) continue;  // a mask or the second copy of a tied head
      ASSERT_EQ(match->shape, entry.shape) << entry.name;
      std::vector<float> a(entry.shape.count()), b(entry.shape.count());
      ours.read(entry.name, 0, entry.shape.count(), a.data());
      theirs.read(entry.name, 0, entry.shape.count(), b.data());
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << name << " " << entry.name;
      ++compared;
    }
    EXPECT_EQ(compared, ours.tensors().size()) << name;
    EXPECT_EQ(config_from_hugging_face(config_to_hugging_face(model.config, 1, 2), "exported"), model.config) << name;
  }
  fs::remove_all(scratch);
}

}  // namespace
}  // namespace collimate::test
