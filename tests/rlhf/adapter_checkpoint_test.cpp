#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "collimate/rlhf/save_models.hpp"
#include "collimate/rlhf/saved_models.hpp"
#include "collimate/rlhf/weights.hpp"
#include "support/refusal.hpp"
#include "support/small_model.hpp"

// Adapters are saved alone, with a note of their base, and merged where a whole model is wanted.
namespace collimate::rlhf {
namespace {

using test::HandGrain;
using test::OneEngine;
using test::refusal;
namespace fs = std::filesystem;

struct Folder {
  fs::path path = fs::temp_directory_path() / ("collimate_adapters_" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string at(const std::string& name) const { return (path / name).string(); }
};

void save(const std::string& folder, const ModelToSave& model) {
  CheckpointNotes notes;
  notes.stage = "sft";
  notes.complete = true;
  save_models(folder, {model}, notes, *make_single_communicator());
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5) << i;
}

/// A base in one checkpoint and adapters for it, all matrices, in another.
struct Saved {
  Folder folder;
  ModelConfig config;
  OneEngine one;
  explicit Saved(const ModelConfig& c, int shards)
      : config(c), one(c, Head::policy, shards, {.rows = 64, .most_grains = 1, .lora = lora_for(c)}) {
    test::roughen(one);
    ModelCard card;
    card.config = config;
    card.shards = shards;
    save(folder.at("base"), {"policy", card, &one.engine.store()});
    card.adapters = {lora_for(c), "../base", "policy", 1, base_hash(one.engine.store())};
    save(folder.at("sft"), {"policy", card, one.engine.adapters(), true});
  }
  static LoraConfig lora_for(const ModelConfig& config) {
    LoraConfig lora{.rank = 3, .alpha = 2, .targets = adapter_targets()};
    if (config.activation == Activation::gelu) std::erase(lora.targets, "gate");
    return lora;
  }
};

TEST(AdapterCheckpoint, MergesToTheScoresOfAdaptersThatAreOn) {
  for (const int shards : {1, 4})
    for (const ModelConfig& config : {test::small_llama(), test::small_gpt2()}) {
      Saved saved(config, shards);
      const HandGrain grain(test::some_sequences(config.vocabulary, {7, 1, 12, 3, 5}));
      OneEngine merged(config, Head::policy, shards, {.rows = 64}), plain(config, Head::policy, shards, {.rows = 64});
      SavedModels(saved.folder.at("sft")).load("policy", merged.engine.store());
      SavedModels(saved.folder.at("base")).load("policy", plain.engine.store());
      const auto score = [&](Engine& engine) {
        std::vector<float> logprob(grain.tokens.size()), entropy(grain.tokens.size());
        engine.score(grain.view(), 1.0f, logprob, entropy);
        return logprob;
      };
      const auto with = score(saved.one.engine);
      expect_near(score(merged.engine), with);
      EXPECT_NE(score(plain.engine), with);
      SavedModels(saved.folder.at("sft")).verify();
      const SavedModels reader(saved.folder.at("sft"));
      EXPECT_FALSE(reader.reader().has("policy/value/block.0.query.weight")) << "adapters are saved alone";
      EXPECT_EQ(reader.card("policy").adapters.lora, Saved::lora_for(config));
    }
}

TEST(AdapterCheckpoint, ComesBackBitByBit) {
  Saved saved(test::small_llama(), 2);
  OneEngine other(saved.config, Head::policy, 2, {.rows = 64, .most_grains = 1, .lora = Saved::lora_for(saved.config)}, 7);
  const SavedModels reader(saved.folder.at("sft"));
  const auto wrong = refusal([&] { reader.load_adapters("policy", *other.engine.adapters(), other.engine.store(), true); });
  EXPECT_NE(wrong.find("belong to other weights"), std::string::npos) << wrong;
  SavedModels(saved.folder.at("base")).load("policy", other.engine.store());
  reader.load_adapters("policy", *other.engine.adapters(), other.engine.store(), true);
  EXPECT_EQ(other.engine.adapters()->hashes(Kind::value), saved.one.engine.adapters()->hashes(Kind::value));
}

TEST(AdapterCheckpoint, ItsBaseIsFoundByTheNoteOrByName) {
  Saved saved(test::small_llama(), 1);
  OneEngine plain(saved.config, Head::policy, 1, {.rows = 64});
  ParameterStore& store = plain.engine.store();
  const std::string folder = saved.folder.at("sft");
  fs::rename(saved.folder.at("base"), saved.folder.at("moved"));
  const auto missing = refusal([&] { SavedModels(folder).load("policy", store); });
  EXPECT_NE(missing.find("--base"), std::string::npos) << missing;
  SavedModels(folder, saved.folder.at("moved")).load("policy", store);
  ModelCard card;
  card.config = saved.config;
  save(saved.folder.at("other"), {"policy", card, &store});  // the merged weights are another base
  const auto other = refusal([&] { SavedModels(folder, saved.folder.at("other")).load("policy", store); });
  EXPECT_NE(other.find("belong to other weights"), std::string::npos) << other;
}

}  // namespace
}  // namespace collimate::rlhf
