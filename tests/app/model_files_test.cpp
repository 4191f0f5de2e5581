#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "collimate/rlhf/save_models.hpp"
#include "collimate/rlhf/saved_models.hpp"
#include "collimate/rlhf/weights.hpp"
#include "app/adapter_model.hpp"
#include "app/export_weights.hpp"
#include "app/model_folder.hpp"
#include "app/stored_model.hpp"
#include "support/says.hpp"

// Model files as other programs write and read them.
namespace collimate::test {
namespace {

using nlohmann::json;
using Tensors = std::map<std::string, std::vector<float>>;

std::vector<ModelConfig> families() {
  ModelConfig mistral = small_llama(), biases = small_llama(), linear = small_llama();
  mistral.family = "mistral", mistral.sliding_window = 64;
  biases.bias = Biases::all(), biases.tied = false;
  linear.rope_scaling = {.type = RopeScaling::Type::linear, .factor = 2};
  return {small_llama(), small_gpt2(), small_qwen2(), mistral, biases, linear};
}

/// Reads a folder's weights, hands them to `change`, which may rename, add and remove, and writes them again in one file.
void rewrite(const std::string& path, const std::string& dtype,
             const std::function<void(std::map<std::string, Shape>&, Tensors&)>& change) {
  std::map<std::string, Shape> shapes;
  Tensors tensors;
  {
    const SafetensorsReader reader(path);
    for (const SafetensorsEntry& entry : reader.tensors()) {
      shapes[entry.name] = entry.shape;
      tensors[entry.name].resize(entry.shape.count());
      reader.read(entry.name, 0, entry.shape.count(), tensors[entry.name].data());
    }
  }
  change(shapes, tensors);
  std::vector<SafetensorsSpec> specs;
  for (const auto& [name, shape] : shapes) specs.push_back({name, shape, dtype});
  write_safetensors(path, specs, [&](std::size_t i, std::span<float> out) { std::ranges::copy(tensors.at(specs[i].name), out.begin()); });
}

Tensors tensors_of(const std::string& path) {
  Tensors tensors;
  const SafetensorsReader reader(path);
  for (const SafetensorsEntry& entry : reader.tensors()) {
    tensors[entry.name].resize(entry.shape.count());
    reader.read(entry.name, 0, entry.shape.count(), tensors[entry.name].data());
  }
  return tensors;
}

TEST(ModelFiles, EveryFamilyComesBackAsItCame) {
  for (const ModelConfig& config : families()) {
    const Scratch folder;
    put_model(folder / "hf", config);
    EXPECT_SAYS(printed({"import", "--model", folder / "hf", "--output", folder / "c"}), "model 'policy' (" + config.family + ", f32)");
    printed({"export", "--checkpoint", folder / "c", "--output", folder / "again"});
    EXPECT_EQ(bytes_of(folder / "again/model.safetensors"), bytes_of(folder / "hf/model.safetensors"));
    EXPECT_EQ(bytes_of(folder / "again/config.json"), bytes_of(folder / "hf/config.json"));
    EXPECT_EQ(json::parse(bytes_of(folder / "again/config.json"))["model_type"], config.family);
  }
}

TEST(ModelFiles, AreExportedInTheTypeInWhichTheyCame) {
  const std::map<std::string, std::string> torch{{"BF16", "bfloat16"}, {"F16", "float16"}, {"F32", "float32"}};
  for (const auto& [dtype, name] : torch) {
    const Scratch folder;
    put_model(folder / "hf", small_llama());
    rewrite(folder / "hf/model.safetensors", dtype, [](auto&, auto&) {});
    const std::string here = dtype == "BF16" ? "bf16" : dtype == "F16" ? "f16" : "f32";
    EXPECT_SAYS(printed({"import", "--model", folder / "hf", "--output", folder / "c"}), "(llama, " + here + ")");
    const std::string said = printed({"export", "--checkpoint", folder / "c", "--output", folder / "same"});
    EXPECT_SAYS(said, " parameters in " + here);
    EXPECT_EQ(said.find("rounded to the nearest of " + here + ", the type that it came in; --dtype f32") != std::string::npos,
              here != "f32")
        << said;
    EXPECT_EQ(bytes_of(folder / "same/model.safetensors"), bytes_of(folder / "hf/model.safetensors"));
    EXPECT_EQ(json::parse(bytes_of(folder / "same/config.json"))["torch_dtype"], name);
    for (const std::string other : {"f32", "bf16", "f16"}) {
      printed({"export", "--checkpoint", folder / "c", "--output", folder / other, "--dtype", other});
      const SafetensorsReader reader(folder / other);
      for (const SafetensorsEntry& entry : reader.tensors())
        EXPECT_EQ(entry.dtype, other == "bf16" ? "BF16" : other == "f16" ? "F16" : "F32");
    }
    if (dtype == "F32") {
      const Tensors whole = tensors_of(folder / "f32"), half = tensors_of(folder / "bf16");
      for (const auto& [tensor, values] : whole)
        for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(half.at(tensor)[i], values[i], std::abs(values[i]) / 256);
    }
  }
  const Scratch folder;  // of several types the one that loses nothing
  put_model(folder / "hf", small_gpt2());
  const SafetensorsReader reader(folder / "hf");
  std::vector<SafetensorsSpec> specs;
  for (const SafetensorsEntry& entry : reader.tensors())
    specs.push_back({entry.name, entry.shape, entry.shape.rank() == 1 ? "F32" : "BF16"});
  write_safetensors(folder / "mixed.safetensors", specs, [](auto, auto) {});
  std::filesystem::rename(folder / "mixed.safetensors", folder / "hf/model.safetensors");
  EXPECT_SAYS(printed({"import", "--model", folder / "hf", "--output", folder / "c"}), "(gpt2, f32)");
}

TEST(ModelFiles, AreCutIntoFilesOfAGivenSize) {
  const Scratch folder;
  put_model(folder / "hf", small_llama());
  printed({"import", "--model", folder / "hf", "--output", folder / "c"});
  printed({"export", "--checkpoint", folder / "c", "--output", folder / "cut", "--shard-size", "4KB"});
  EXPECT_FALSE(std::filesystem::exists(folder / "cut/model.safetensors"));
  const json index = json::parse(bytes_of(folder / "cut/model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 4 * small_llama().parameters());
  for (const auto& entry : std::filesystem::directory_iterator(folder / "cut"))
    EXPECT_TRUE(entry.path().extension() != ".safetensors" || entry.file_size() < 4000u + 1500u) << entry.path();
  printed({"import", "--model", folder / "cut", "--output", folder / "d"});
  printed({"export", "--checkpoint", folder / "d", "--output", folder / "whole"});
  EXPECT_EQ(bytes_of(folder / "whole/model.safetensors"), bytes_of(folder / "hf/model.safetensors"));
  for (const auto& [size, bytes] : {std::pair{"3B", 3.0}, {"3KB", 3e3}, {"3MB", 3e6}, {"3 GB", 3e9}, {"3TB", 3e12}, {"1.5KiB", 1536.0},
                                    {"3MiB", 3145728.0}, {"3GiB", 3221225472.0}})
    EXPECT_EQ(static_cast<double>(bytes_from(size, "--shard-size")), bytes) << size;
  for (const char* size : {"5", "GB", "5 apples", "0MB"})
    expect_refusal({"export", "--checkpoint", folder / "c", "--output", folder / "x", "--shard-size", size},
                   {"--shard-size is '", "5GB, 500MB or 2GiB"});
}

TEST(ModelFiles, MayHoldOneNameOfTiedTensorsBuffersAndPrefixes) {
  for (ModelConfig config : families()) {
    config.tied = true;
    const Scratch folder;
    put_model(folder / "hf", config);
    const std::string file = folder / "hf/model.safetensors", good = bytes_of(file);
    const bool gpt2 = config.family == "gpt2";
    const std::string embedding = gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight",
                      block = gpt2 ? "transformer.h.1." : "model.layers.1.";
    const auto expect = [&](const std::string& words, const std::function<void(std::map<std::string, Shape>&, Tensors&)>& change) {
      put(file, good);
      rewrite(file, "F32", change);
      const std::string said = printed({"import", "--model", folder / "hf", "--output", folder / "c"});
      EXPECT_SAYS(said, words);
      std::filesystem::remove_all(folder / "again");
      printed({"export", "--checkpoint", folder / "c", "--output", folder / "again"});
      EXPECT_EQ(bytes_of(folder / "again/model.safetensors"), good) << words;
    };
    expect("model 'policy'", [&](auto& shapes, auto& tensors) {  // as safetensors.torch.save_model writes it
      shapes["lm_head.weight"] = shapes[embedding], shapes.erase(embedding);
      tensors["lm_head.weight"] = tensors[embedding];
    });
    expect("hold no parameters are ignored: cos_cached, inv_freq, masked_bias, position_ids, sin_cached",
           [&](auto& shapes, auto& tensors) {
             for (const char* name : {"attn.rotary_emb.cos_cached", "attn.rotary_emb.sin_cached", "attn.rotary_emb.inv_freq",
                                      "attn.masked_bias", "position_ids"})
               shapes[block + name] = {3}, tensors[block + name] = {1, 2, 3};
           });
    expect("_orig_mod. (torch.compile)", [&](auto& shapes, auto& tensors) {
      for (const auto& [name, values] : Tensors(tensors)) {
        shapes["_orig_mod." + name] = shapes[name], shapes.erase(name);
        tensors["_orig_mod." + name] = values;
      }
    });
    put(file, good);
  }
}

// A padding token was added to the tokenizer, and the model was not resized: as long as nobody feeds it, nothing is wrong.
TEST(ModelFiles, NeedNoRowForATokenThatOnlyPads) {
  const Scratch folder;
  ModelConfig config = small_llama();
  printed({"prepare", "--example", folder / "ex", "--train-bpe", "300"});
  json tokenizer = json::parse(bytes_of(folder / "ex/tokenizer.json"));
  config.vocabulary = 300;
  put_model(folder / "hf", config);
  json pad = tokenizer["added_tokens"][0];
  pad["id"] = 300, pad["content"] = "[PAD]", pad["special"] = true;
  tokenizer["added_tokens"].push_back(pad);
  const std::vector<std::string> import{"import", "--model", folder / "hf", "--output", folder / "c"};
  put(folder / "hf/tokenizer.json", tokenizer.dump());
  EXPECT_SAYS(printed(import), "the model has no row for [PAD], which only pads: it is never fed here");
  put(folder / "a.jsonl", "{\"prompt\": \"the cat [PAD]\", \"response\": \"sat\"}\n");
  printed({"prepare", folder / "a.jsonl", "--like", folder / "c", "--output", folder / "a.h5"});
  put(folder / "deck.ini",
      fmt::format("[run]\nstages = sft\n[sft]\ninit = {}\ndata = {}\nsteps = 1\nbatch = 1\n", folder / "c", folder / "a.h5"));
  const Outcome checked = collimate({"run", folder / "deck.ini", "--check", "--run.folder=" + (folder / "r")});
  EXPECT_EQ(checked.code, 0) << checked.err;
  std::vector<std::string> named = import;
  named.insert(named.end(), {"--response-suffix", "[PAD]"});
  expect_refusal(named, {"its token [PAD] (300), which the template names, cannot be fed"});
  put(folder / "hf/tokenizer_config.json", R"({"eos_token": "[PAD]"})");
  expect_refusal(import, {"its token [PAD] (300), which begins or ends texts, cannot be fed"});
  put(folder / "hf/tokenizer_config.json", "{}");
  tokenizer["added_tokens"].back()["special"] = false;
  put(folder / "hf/tokenizer.json", tokenizer.dump());
  expect_refusal(import, {"its token [PAD] (300), which texts may hold, cannot be fed"});
}

/// A checkpoint with a reward model as a reward stage leaves it.
void put_reward(const std::string& folder, const ModelConfig& config) {
  StoredModel model(config, Head::value, 1);
  model.store().initialise(5);
  model.store().write(Kind::value, "value_head.bias", 0, std::vector<float>{0.25f});
  rlhf::ModelCard card;
  card.config = config, card.head = Head::value, card.normalisation = {2.5, -0.75};
  rlhf::CheckpointNotes notes;
  notes.stage = "reward", notes.complete = true;
  rlhf::save_models(folder, {{.name = "reward", .card = card, .store = &model.store()}}, notes, *make_single_communicator());
}

TEST(ModelFiles, RewardModelsAreSequenceClassifiers) {
  const std::map<std::string, std::string> classes{{"llama", "LlamaForSequenceClassification"},
                                                   {"gpt2", "GPT2ForSequenceClassification"},
                                                   {"mistral", "MistralForSequenceClassification"},
                                                   {"qwen2", "Qwen2ForSequenceClassification"}};
  for (const ModelConfig& config : families()) {
    const Scratch folder;
    put_reward(folder / "reward", config);
    const std::string said = printed({"export", "--checkpoint", folder / "reward", "--output", folder / "hf"});
    EXPECT_SAYS(said, "model 'reward'");
    EXPECT_SAYS(said, "the constant -0.125 is left out");  // 2.5 * 0.25 - 0.75
    const json written = json::parse(bytes_of(folder / "hf/config.json"));
    EXPECT_EQ(written["architectures"], json({classes.at(config.family)}));
    EXPECT_EQ(written["id2label"], json({{"0", "LABEL_0"}}));
    std::vector<float> head(config.width), score(config.width);
    const CheckpointReader before(folder / "reward");
    before.read("reward/value/value_head.weight", 0, config.width, head.data());
    EXPECT_EQ(tensors_of(folder / "hf").count("lm_head.weight"), 0u);
    score = tensors_of(folder / "hf").at("score.weight");
    for (std::int64_t i = 0; i < config.width; ++i) EXPECT_EQ(score[i], static_cast<float>(2.5 * head[i]));

    EXPECT_SAYS(printed({"import", "--model", folder / "hf", "--output", folder / "c"}), "model 'reward' (");
    const rlhf::SavedModels saved(folder / "c");
    EXPECT_TRUE(saved.card("reward").head == Head::value);
    EXPECT_EQ(saved.card("reward").config, config);
    float bias = 1;
    saved.reader().read("reward/value/value_head.bias", 0, 1, &bias);
    EXPECT_EQ(bias, 0);
    printed({"export", "--checkpoint", folder / "c", "--output", folder / "again"});
    EXPECT_EQ(bytes_of(folder / "again/model.safetensors"), bytes_of(folder / "hf/model.safetensors"));

    // TRL's value head, with a bias: alone it is a reward model; beside a language model's head it is ignored.
    rewrite(folder / "hf/model.safetensors", "F32", [&](auto& shapes, auto& tensors) {
      shapes["v_head.summary.weight"] = {1, config.width}, shapes["v_head.summary.bias"] = {1};
      tensors["v_head.summary.weight"] = score, tensors["v_head.summary.bias"] = {0.5f};
      shapes.erase("score.weight");
    });
    EXPECT_SAYS(printed({"import", "--model", folder / "hf", "--output", folder / "c"}), "model 'reward' (");
    const CheckpointReader after(folder / "c");
    after.read("reward/value/value_head.bias", 0, 1, &bias);
    EXPECT_EQ(bias, 0.5f);
    rewrite(folder / "hf/model.safetensors", "F32", [&](auto& shapes, auto& tensors) {
      shapes["lm_head.weight"] = {config.vocabulary, config.width};
      tensors["lm_head.weight"] = tensors[config.family == "gpt2" ? "transformer.wte.weight" : "model.embed_tokens.weight"];
    });
    const std::string both = printed({"import", "--model", folder / "hf", "--output", folder / "c"});
    EXPECT_SAYS(both, "model 'policy' (");
    EXPECT_SAYS(both, "v_head.summary.bias");
  }
}

/// A checkpoint with adapters beside the one of their base, "c".
void put_adapters(const std::string& folder, const std::string& base, Head head, const LoraConfig& lora) {
  const rlhf::SavedModels saved(base);
  const ModelConfig config = saved.card("policy").config;
  AdapterModel model(config, head, 1, lora);
  saved.load("policy", model.base());
  const RandomKey key(17, Purpose::data_order);
  for (const Parameter& p : model.adapters().layout().parameters()) {
    std::vector<float> values(p.shape.count());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(0.3 * key.normal(i, p.shape[0]));
    model.adapters().write(Kind::value, p.name, 0, values);
  }
  rlhf::ModelCard card;
  card.config = config, card.head = head, card.normalisation = {2, 0.5};
  card.adapters = {lora, "../c", "policy", 0, rlhf::base_hash(model.base())};
  rlhf::CheckpointNotes notes;
  notes.stage = head == Head::policy ? "sft" : "reward";
  const std::string name = head == Head::policy ? "policy" : "reward";
  rlhf::save_models(folder, {{.name = name, .card = card, .store = &model.adapters()}}, notes, *make_single_communicator());
}

void expect_near(const Tensors& a, const Tensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, values] : a)
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], b.at(name)[i], 1e-6) << name << " " << i;
}

TEST(ModelFiles, AdaptersGoToPeftAndComeBack) {
  for (const ModelConfig& config : families())
    for (const Head head : {Head::policy, Head::value})
      for (const std::vector<std::string>& targets : {std::vector<std::string>{"query", "value"}, {"key", "output", "up", "down"}}) {
        SCOPED_TRACE(config.family + " " + targets[0]);
        const LoraConfig lora{.rank = 2, .alpha = 3, .targets = targets};
        const Scratch folder;
        put_model(folder / "hf", config);
        printed({"import", "--model", folder / "hf", "--output", folder / "c"});
        put_adapters(folder / "a", folder / "c", head, lora);
        EXPECT_SAYS(printed({"export", "--checkpoint", folder / "a", "--output", folder / "peft", "--adapters"}), "adapters of model '");
        const json written = json::parse(bytes_of(folder / "peft/adapter_config.json"));
        EXPECT_EQ(written["task_type"], head == Head::policy ? "CAUSAL_LM" : "SEQ_CLS");
        const Tensors adapters = tensors_of(folder / "peft/adapter_model.safetensors");
        const bool gpt2 = config.family == "gpt2";
        const std::string first = std::string("base_model.model.") + (gpt2 ? "transformer.h.1.attn.c_attn" : "model.layers.1.self_attn.") +
                                  (gpt2                    ? ""
                                   : targets[0] == "query" ? "q_proj"
                                                           : "k_proj");
        ASSERT_EQ(adapters.count(first + ".lora_A.weight") + adapters.count(first + ".lora_B.weight"), 2u);
        EXPECT_EQ(adapters.count("base_model.model.score.weight"), head == Head::value);

        printed({"import", "--model", folder / "peft", "--output", folder / "b", "--base", folder / "c"});
        EXPECT_EQ(rlhf::SavedModels(folder / "b").card(head == Head::policy ? "policy" : "reward").adapters.base, "../c");
        for (const char* from : {"a", "b"})
          printed({"export", "--checkpoint", folder / from, "--output", folder / (std::string("merged-") + from)});
        expect_near(tensors_of(folder / "merged-a"), tensors_of(folder / "merged-b"));
      }
}

// Another rank and another scale for some modules, blocks without adapters, and PEFT's names with the adapter's name in them.
TEST(ModelFiles, AdaptersOfSeveralRanksAndScales) {
  const Scratch folder;
  put_model(folder / "hf", small_llama());
  printed({"import", "--model", folder / "hf", "--output", folder / "c"});
  const auto value = [](std::size_t i) { return static_cast<float>(std::sin(static_cast<double>(i) + 1)); };
  std::filesystem::create_directories(folder / "peft");
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.lora_", up = "base_model.model.model.layers.1.mlp.up_proj.lora_";
  write_safetensors(
      folder / "peft/adapter_model.safetensors",
      {{q + "A.default.weight", {2, 24}}, {q + "B.default.weight", {24, 2}}, {up + "A.weight", {3, 24}}, {up + "B.weight", {20, 3}}},
      [&](std::size_t t, std::span<float> out) {
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = value(100 * t + i);
      });
  const json config{{"peft_type", "LORA"},
                    {"r", 2},
                    {"lora_alpha", 8},
                    {"use_rslora", true},
                    {"rank_pattern", {{"up_proj", 3}}},
                    {"alpha_pattern", {{"_proj", 99}, {"mlp.up_proj", 5}}}};  // no module is called _proj
  put(folder / "peft/adapter_config.json", config.dump());
  const std::vector<std::string> import{"import", "--model", folder / "peft", "--output", folder / "b", "--base", folder / "c"};
  EXPECT_SAYS(printed(import), "adapters of rank 3 for the query, up of");
  printed({"export", "--checkpoint", folder / "b", "--output", folder / "merged"});
  const Tensors before = tensors_of(folder / "hf"), after = tensors_of(folder / "merged");
  for (const auto& [name, values] : before) {
    const bool is_q = name.ends_with("0.self_attn.q_proj.weight"), is_up = name.ends_with("1.mlp.up_proj.weight");
    const std::size_t rank = is_up ? 3 : 2, first = is_up ? 200 : 0;
    const double scale = (is_up ? 5 : 8) / std::sqrt(static_cast<double>(rank));
    for (std::size_t i = 0; i < values.size(); ++i) {
      double expected = values[i];
      for (std::size_t k = 0; (is_q || is_up) && k < rank; ++k)
        expected += scale * value(first + 100 + i / 24 * rank + k) * value(first + k * 24 + i % 24);
      ASSERT_NEAR(after.at(name)[i], expected, 1e-5) << name << " " << i;
    }
  }
  const auto refused = [&](const char* key, const json& entry, const std::string& words) {
    json bad = config;
    bad[key] = entry;
    put(folder / "peft/adapter_config.json", bad.dump());
    expect_refusal(import, {"adapter_config.json", key, words});
  };
  refused("use_dora", true, "is true");
  refused("bias", "all", "\"all\"");
  refused("peft_type", "IA3", "only LORA");
  refused("init_lora_weights", "pissa", "changes the base");
  refused("alpha_pattern", {{"layers.*", 3}}, "not the end of a module's name");
  put(folder / "peft/adapter_config.json", config.dump());
  expect_refusal({"import", "--model", folder / "peft", "--output", folder / "b"}, {"peft' holds adapters of PEFT", "--base"});
  expect_refusal({"import", "--model", folder / "hf", "--output", folder / "b", "--base", folder / "c"}, {"--base"});
  expect_refusal({"export", "--checkpoint", folder / "c", "--output", folder / "x", "--adapters"}, {"has no adapters"});
}

}  // namespace
}  // namespace collimate::test
