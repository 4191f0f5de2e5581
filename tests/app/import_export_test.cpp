#include <nlohmann/json.hpp>

#include "app/model_folder.hpp"
#include "app/stored_model.hpp"
#include "collimate/data/dataset.hpp"
#include "collimate/rlhf/save_models.hpp"

namespace collimate::test {
namespace {

using nlohmann::json;

/// A checkpoint with one model, as a stage of a run leaves it.
void put_checkpoint(const std::string& folder, const std::string& name, Head head, rlhf::CheckpointNotes notes = {}) {
  StoredModel model(small_gpt2(), head, 1);
  model.store().initialise(5);
  rlhf::ModelCard card;
  card.config = small_gpt2();
  card.head = head;
  notes.stage = name;
  rlhf::save_models(folder, {{.name = name, .card = card, .store = &model.store()}}, notes, *make_single_communicator());
}

TEST(ImportExport, GivesTheBytesBack) {
  for (const ModelConfig& config : {small_llama(), small_gpt2()}) {
    const Scratch folder;
    put_model(folder / "hf", config);
    printed({"import", "--model", folder / "hf", "--output", folder / "c"});
    const std::string said = printed({"export", "--checkpoint", folder / "c", "--output", folder / "again/"});
    EXPECT_NE(said.find("read again and found equal"), std::string::npos) << said;
    EXPECT_EQ(bytes_of(folder / "again/model.safetensors"), bytes_of(folder / "hf/model.safetensors"));
    EXPECT_EQ(bytes_of(folder / "again/config.json"), bytes_of(folder / "hf/config.json"));
    EXPECT_FALSE(std::filesystem::exists(folder / "again.partial"));
  }
}

TEST(ImportExport, StoresEachTensorAsOneRange) {
  const Scratch folder;
  for (const ModelConfig& config : {small_llama(), small_gpt2()}) {
    put_model(folder / "hf", config);
    printed({"import", "--model", folder / "hf", "--output", folder / "c"});
    const json manifest = json::parse(bytes_of(folder / "c/manifest.json"));
    EXPECT_EQ(manifest["parts"][0]["ranges"].size(), manifest["tensors"].size());
  }
}

TEST(ImportExport, ShardsAndOneFileAreTheSameModel) {
  const Scratch folder;
  put_model(folder / "whole", small_gpt2());
  put_model(folder / "shards", small_gpt2(), 1000);
  ASSERT_TRUE(std::filesystem::exists(folder / "shards/model.safetensors.index.json"));
  for (const char* name : {"whole", "shards"}) {
    printed({"import", "--model", folder / name, "--output", folder / "c"});  // the second one replaces a checkpoint
    printed({"export", "--checkpoint", folder / "c", "--output", folder / (std::string(name) + "-out")});
  }
  EXPECT_EQ(bytes_of(folder / "whole-out/model.safetensors"), bytes_of(folder / "shards-out/model.safetensors"));
}

TEST(ImportExport, StoresTheTemplateForOthers) {
  const Scratch folder;
  put_model(folder / "hf", small_llama());
  put(folder / "a.jsonl", "{\"prompt\": \"ab\", \"response\": \"c\"}\n");
  printed({"prepare", folder / "a.jsonl", "--output", folder / "bytes.h5"});
  printed({"import", "--model", folder / "hf", "--output", folder / "none", "--tokenizer", "none"});
  expect_refusal({"prepare", folder / "a.jsonl", "--output", folder / "b.h5", "--like", folder / "none"}, {"none", "--tokenizer"});
  EXPECT_FALSE(std::filesystem::exists(folder / "b.h5"));
  const std::string shown = printed({"inspect", folder / "none"});
  EXPECT_NE(shown.find("policy/value/block.1.query.weight"), std::string::npos) << shown;
}

// A template that was chosen at the import is everyone's; where none was, the first dataset brings it.
TEST(ImportExport, StagesCompareTheTemplateThatWasChosen) {
  const Scratch folder;
  ModelConfig config = small_llama();
  config.vocabulary = 300;
  put_model(folder / "hf", config);
  put(folder / "a.jsonl", "{\"prompt\": \"ab\", \"response\": \"c\"}\n");
  printed({"prepare", "--example", folder / "ex", "--train-bpe", "300"});
  const std::string tokenizer = folder / "ex/tokenizer.json", data = folder / "a.h5";
  printed({"prepare", folder / "a.jsonl", "--output", data, "--tokenizer", tokenizer, "--prompt-template", "Q: {prompt}"});
  const auto check = [&](const std::vector<std::string>& options) {
    std::vector<std::string> import = {"import", "--model", folder / "hf", "--output", folder / "c", "--tokenizer", tokenizer};
    import.insert(import.end(), options.begin(), options.end());
    printed(import);
    put(folder / "deck.ini", fmt::format("[run]\nstages = sft\n[sft]\ninit = {}\ndata = {}\n", folder / "c", data));
    return collimate({"run", folder / "deck.ini", "--check"});
  };
  EXPECT_EQ(check({}).code, 0);
  EXPECT_EQ(check({"--prompt-template", "Q: {prompt}"}).code, 0);
  for (const std::vector<std::string>& other : {std::vector<std::string>{"--prompt-template", "{prompt}"}, {"--max-prompt-tokens", "5"}}) {
    const Outcome refused = check(other);
    EXPECT_EQ(refused.code, 2);
    EXPECT_NE(refused.err.find("another prompt template than sft.init = "), std::string::npos) << refused.err;
  }
  // Of two stages the first one's data bring it.
  check({});
  const std::string pairs = folder / "pairs.h5", deck = bytes_of(folder / "deck.ini");
  put(folder / "p.jsonl", "{\"prompt\": \"ab\", \"chosen\": \"c\", \"rejected\": \"d\"}\n");
  for (const std::string prompt : {"Q: {prompt}", "{prompt}"}) {
    printed({"prepare", folder / "p.jsonl", "--output", pairs, "--tokenizer", tokenizer, "--prompt-template", prompt});
    put(folder / "deck.ini", deck + fmt::format("[reward]\ndata = {}\n", pairs));
    const Outcome outcome = collimate({"run", folder / "deck.ini", "--check", "--run.stages=sft,reward"});
    EXPECT_EQ(outcome.code, prompt == "{prompt}" ? 2 : 0) << outcome.err;
    EXPECT_EQ(outcome.err.find("another prompt template than reward.init = sft") != std::string::npos, outcome.code == 2) << outcome.err;
  }
}

TEST(ImportExport, InspectSummarisesTheTokenizerAndShowsTheDeck) {
  const Scratch folder;
  printed({"prepare", "--example", folder / "ex", "--train-bpe", "300"});
  rlhf::CheckpointNotes notes;
  notes.deck = "[run]\nseed = 1\n";
  notes.build = R"({"program":"here"})";
  rlhf::TextRules& text = notes.text;
  text.tokenizer = Dataset(folder / "ex/sft.h5").tokenizer();
  put_checkpoint(folder / "c", "policy", Head::policy, notes);
  const std::string shown = printed({"inspect", folder / "c"});
  EXPECT_NE(shown.find(fmt::format("\"bytes\": {},", text.tokenizer.size())), std::string::npos) << shown;
  EXPECT_NE(shown.find(fmt::format("\"fingerprint\": \"{:016x}\",\n      \"kind\": \"bpe\",\n      \"tokens\": 300\n",
                                   text.make_tokenizer()->fingerprint())),
            std::string::npos)
      << shown;
  EXPECT_NE(shown.find(fmt::format("\"parameters\": {}", small_gpt2().parameters())), std::string::npos) << shown;
  EXPECT_NE(shown.find("\ndeck\n  [run]\n  seed = 1\nrank 0\n  {\n    \"program\": \"here\"\n  }\ntensors\n"), std::string::npos) << shown;
  EXPECT_EQ(shown.find("collimate_tokenizer"), std::string::npos);
  EXPECT_EQ(shown.find("\"build\""), std::string::npos);
  text.tokenizer = "nonsense";
  put_checkpoint(folder / "c", "policy", Head::policy, notes);
  EXPECT_NE(printed({"inspect", folder / "c"}).find("\"unreadable\": \"the stored tokenizer does not begin with its header line"),
            std::string::npos);
}

// transformers' GPT-2 has attn_pdrop = 0.1 where its config.json names none; LLaMA has 0.
TEST(ImportExport, SaysThatAttentionDropoutIsNotApplied) {
  const Scratch folder;
  for (const ModelConfig& config : {small_gpt2(), small_llama()}) {
    const bool gpt2 = config.family == "gpt2";
    const std::string key = gpt2 ? "attn_pdrop" : "attention_dropout", file = folder / "hf/config.json";
    put_model(folder / "hf", config);
    const json good = json::parse(bytes_of(file));
    for (const double dropout : {0.0, 0.2, -1.0}) {  // -1: not named
      json now = good;
      now[key] = dropout;
      if (dropout < 0) now.erase(key);
      put(file, now.dump());
      const std::string said = printed({"import", "--model", folder / "hf", "--output", folder / "c"});
      const double asked = dropout >= 0 ? dropout : gpt2 ? 0.1 : 0;
      const std::string note = fmt::format("{} asks for a dropout of {} on attention probabilities, which is not applied", file, asked);
      EXPECT_EQ(said.find(note) != std::string::npos, asked != 0) << said;
      EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), asked != 0 ? 2 : 1) << said;
    }
  }
}

TEST(ImportExport, ReadsTheTokensThatAFolderAddsToItsModelFile) {
  NEEDS_DATA();
  const Scratch folder;
  ModelConfig config = small_llama();
  config.vocabulary = 32003;
  put_model(folder / "hf", config);
  std::filesystem::copy(data("tokenizers/llama2_tokenizer.model"), folder / "hf/tokenizer.model");
  const auto import = [&] {
    return printed({"import", "--model", folder / "hf", "--output", folder / "c", "--response-suffix", "<|im_end|>"});
  };
  EXPECT_NE(import().find("the template's <|im_end|> stay letters"), std::string::npos);
  put(folder / "hf/added_tokens.json", R"({"<|im_end|>": 32001, "<|im_start|>": 32000, "<s>": 1})");
  const std::string said = import();
  EXPECT_EQ(said.find("stay letters"), std::string::npos) << said;
  EXPECT_NE(said.find("with 32002 tokens"), std::string::npos) << said;
  put(folder / "hf/added_tokens.json", R"({"<x>": "y"})");
  expect_refusal({"import", "--model", folder / "hf", "--output", folder / "d"}, {"added_tokens.json", "\"<x>\" is \"y\", not a token id"});
  put(folder / "hf/added_tokens.json", "[");
  expect_refusal({"import", "--model", folder / "hf", "--output", folder / "d"}, {"added_tokens.json is not a JSON object"});
}

TEST(ImportExport, RefusesBadModels) {
  const Scratch folder;
  const auto import = [&](const std::vector<std::string>& parts) {
    expect_refusal({"import", "--model", folder / "hf", "--output", folder / "c"}, parts);
    EXPECT_FALSE(std::filesystem::exists(folder / "c"));
    EXPECT_FALSE(std::filesystem::exists(folder / "c.partial"));
  };
  import({"hf", "is not a folder"});
  std::filesystem::create_directories(folder / "hf");
  import({"hf", "config.json"});
  put_model(folder / "hf", small_gpt2());
  const std::string good_config = bytes_of(folder / "hf/config.json"), good = bytes_of(folder / "hf/model.safetensors");

  put(folder / "hf/config.json", good_config.substr(0, 40));
  import({"config.json"});
  json config = json::parse(good_config);
  config["model_type"] = "bloom";
  put(folder / "hf/config.json", config.dump());
  import({"config.json", "bloom"});
  config["model_type"] = "gpt2", config["n_layer"] = 3;
  put(folder / "hf/config.json", config.dump());
  import({"model.safetensors", "h.2."});  // a missing tensor
  config["n_layer"] = 2, config["vocab_size"] = 30;
  put(folder / "hf/config.json", config.dump());
  import({"model.safetensors", "30", "29"});  // a wrong shape
  config["vocab_size"] = 1 << 30;
  put(folder / "hf/config.json", config.dump());
  import({"model.safetensors", "1073741824", "29"});  // said before any memory is asked for
  put(folder / "hf/config.json", good_config);

  std::string broken = good;
  broken.replace(broken.size() - 4, 4, std::string("\x00\x00\xc0\x7f", 4));  // NaN
  put(folder / "hf/model.safetensors", broken);
  import({"model.safetensors", "nan", "damaged"});
  put(folder / "hf/model.safetensors", good.substr(0, good.size() - 5));
  import({"model.safetensors"});
  put(folder / "hf/model.safetensors", std::string(8, '\xff') + good.substr(8));
  import({"model.safetensors"});
  std::filesystem::remove(folder / "hf/model.safetensors");
  import({"safetensors"});
  put(folder / "hf/model.safetensors", good);

  put(folder / "hf/config.json", "{\"huge\": 1e999, " + good_config.substr(1));
  import({"config.json", "beyond the range"});
  put(folder / "hf/config.json", good_config);

  put(folder / "hf/tokenizer.json", "{");
  import({"tokenizer.json"});
  std::filesystem::remove(folder / "hf/tokenizer.json");
  put(folder / "c/notes.txt", "mine");
  expect_refusal({"import", "--model", folder / "hf", "--output", folder / "c"}, {"/c'", "already exists"});
  EXPECT_EQ(bytes_of(folder / "c/notes.txt"), "mine");
  expect_refusal({"import", "--output", folder / "d"}, {"--model"});
  expect_refusal({"import", "--model", folder / "hf", "--output", folder / "d", "--tokenizer", folder / "x"}, {"/x"});
  expect_refusal({"import", "--model", folder / "hf", "--output", folder / "d", "--add-bos"}, {"--add-bos"});
}

TEST(ImportExport, RefusesPlacesThatCannotBe) {
  namespace fs = std::filesystem;
  const Scratch folder;
  put_model(folder / "hf", small_gpt2());
  put(folder / "a.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
  printed({"import", "--model", folder / "hf", "--output", folder / "c"});
  fs::create_directories(folder / "empty");
  for (const char* target : {"nowhere", "empty", "c"}) fs::create_symlink(folder / target, folder / ("to-" + std::string(target)));
  fs::create_symlink(folder / "circle", folder / "circle");
  for (const std::string name : {"to-nowhere", "to-empty", "to-empty/", "to-c", "circle"}) {
    expect_refusal({"import", "--model", folder / "hf", "--output", folder / name}, {name, "symbolic link"});
    expect_refusal({"export", "--checkpoint", folder / "c", "--output", folder / name}, {name, "symbolic link"});
  }
  EXPECT_TRUE(fs::is_symlink(folder / "to-c") && fs::exists(folder / "c/manifest.json"));
  const std::string endless = folder / std::string(300, 'x');
  expect_refusal({"import", "--model", folder / "hf", "--output", endless}, {endless, "too long"});
  expect_refusal({"import", "--model", endless, "--output", folder / "d"}, {endless, "too long"});
  expect_refusal({"export", "--checkpoint", folder / "c", "--output", endless}, {endless, "too long"});
  expect_refusal({"export", "--checkpoint", endless, "--output", folder / "d"}, {endless, "too long"});
  expect_refusal({"prepare", folder / "a.jsonl", "--output", endless}, {endless, "too long"});
  expect_refusal({"prepare", "--example", endless}, {endless, "too long"});
  expect_refusal({"inspect", endless}, {endless, "too long"});
  for (const auto& entry : fs::directory_iterator(folder.path())) EXPECT_EQ(entry.path().extension() == ".partial", false) << entry.path();
}

TEST(ImportExport, ComparesTheTokenizerWithTheVocabulary) {
  const Scratch folder;
  printed({"prepare", "--example", folder / "ex", "--train-bpe", "300"});
  const std::vector<std::string> import = {
      "import", "--model", folder / "hf", "--output", folder / "c", "--tokenizer", folder / "ex/tokenizer.json"};
  ModelConfig config = small_llama();
  for (const std::int64_t rows : {300, 320}) {
    config.vocabulary = rows;
    put_model(folder / "hf", config);
    const std::string said = printed(import);
    EXPECT_EQ(
        said.find("the model has 320 rows for 300 tokens, which is usual as padding that a trained model does not draw; if the 20 more") !=
            std::string::npos,
        rows == 320)
        << said;
    EXPECT_EQ(said.find(" rows for ") != std::string::npos, rows == 320) << said;
  }
  config.vocabulary = 299;
  put_model(folder / "hf", config);
  expect_refusal(import, {"300 tokens", "299 rows", "config.json", "cannot be fed"});
}

TEST(ImportExport, PutsNoBosInFrontWhereTheTokenizerSaysThatItHasNone) {
  const Scratch folder;
  ModelConfig config = small_llama();
  config.vocabulary = 300;
  put_model(folder / "hf", config);
  put(folder / "hf/config.json", config_to_hugging_face(config, 7, 8));
  printed({"prepare", "--example", folder / "ex", "--train-bpe", "300"});
  json tokenizer = json::parse(bytes_of(folder / "ex/tokenizer.json"));
  const auto import = [&](const std::string& place, const char* config_of_tokenizer) {
    put(folder / (place + "/tokenizer.json"), tokenizer.dump());
    put(folder / (place + "/tokenizer_config.json"), config_of_tokenizer);
    printed({"import", "--model", folder / "hf", "--output", folder / "c", "--tokenizer", place == "hf" ? "auto" : folder / place});
    return printed({"inspect", folder / "c"});
  };
  for (const std::string place : {"hf", "elsewhere"}) {
    tokenizer["post_processor"] = json::parse(R"({"type": "RobertaProcessing", "cls": ["x", 7], "sep": ["y", 8]})");
    std::string shown = import(place, "{}");
    EXPECT_NE(shown.find("\"add_bos\": true"), std::string::npos) << shown;
    tokenizer["post_processor"] = nullptr;
    for (const char* silent : {"{}", R"({"add_bos_token": true})"}) {  // the post_processor decides, and puts nothing in front
      shown = import(place, silent);
      EXPECT_NE(shown.find("\"add_bos\": false"), std::string::npos) << shown;
      EXPECT_NE(shown.find("\"bos\": 7"), std::string::npos) << shown;
    }
    shown = import(place, R"({"bos_token": null})");
    EXPECT_NE(shown.find("\"add_bos\": false"), std::string::npos) << shown;
    EXPECT_NE(shown.find("\"bos\": null"), std::string::npos) << shown;
    EXPECT_NE(shown.find("\"add_eos\": true"), std::string::npos) << shown;
  }
}

TEST(ImportExport, RefusesAHeadThatIsNotTheEmbeddingItIsTiedTo) {
  const Scratch folder;
  const std::string config_path = folder / "hf/config.json";
  for (ModelConfig config : {small_llama(), small_gpt2()}) {
    config.tied = false;
    put_model(folder / "hf", config);
    const SafetensorsReader whole(folder / "hf");
    std::vector<SafetensorsSpec> specs;
    std::vector<std::vector<float>> values;
    std::size_t embedding = 0, head = 0;
    for (const SafetensorsEntry& entry : whole.tensors()) {
      if (entry.name.ends_with("embed_tokens.weight") || entry.name.ends_with("wte.weight")) embedding = specs.size();
      if (entry.name == "lm_head.weight") head = specs.size();
      specs.push_back({entry.name, entry.shape});
      whole.read(entry.name, 0, entry.shape.count(), values.emplace_back(static_cast<std::size_t>(entry.shape.count())).data());
    }
    const auto write = [&] {
      write_safetensors(folder / "hf/model.safetensors", specs,
                        [&](std::size_t i, std::span<float> out) { std::copy(values[i].begin(), values[i].end(), out.begin()); });
    };
    json tied = json::parse(bytes_of(config_path));
    tied["tie_word_embeddings"] = true;
    const std::vector<std::string> import = {"import", "--model", folder / "hf", "--output", folder / "c"};
    printed(import);
    put(config_path, tied.dump());
    expect_refusal(import, {"lm_head.weight that differs from " + specs[embedding].name, config_path, "\"tie_word_embeddings\": false"});
    values[head] = values[embedding];
    write();
    printed(import);
    values[head].back() += 1;
    write();
    expect_refusal(import, {"lm_head.weight that differs from "});
    values[head] = values[embedding];
    specs[head].shape = {std::ssize(values[head])};
    write();
    expect_refusal(import, {"lm_head.weight that differs from "});
  }
}

TEST(ImportExport, RefusesBadCheckpointsAndPlaces) {
  const Scratch folder;
  put_model(folder / "hf", small_gpt2());
  printed({"import", "--model", folder / "hf", "--output", folder / "c"});
  expect_refusal({"export", "--checkpoint", folder / "x", "--output", folder / "out"}, {"/x"});
  expect_refusal({"export", "--checkpoint", folder / "c", "--output", folder / "out", "--model", "reward"}, {"reward", "policy"});
  expect_refusal({"export", "--checkpoint", folder / "c", "--output", folder / "hf"}, {"/hf", "already exists"});
  std::string part;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "c"))
    if (entry.path().extension() == ".h5") part = entry.path().string();
  std::string bytes = bytes_of(part);
  const std::string weights = bytes_of(folder / "hf/model.safetensors");  // the last tensor is the embedding, stored alike by both
  const std::size_t place = bytes.find(weights.substr(weights.size() - 64));
  ASSERT_NE(place, std::string::npos);
  bytes[place + 10] ^= 1;
  put(part, bytes);
  expect_refusal({"export", "--checkpoint", folder / "c", "--output", folder / "out"}, {".h5", "policy/value/embedding.weight"});
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  std::filesystem::remove(part);
  expect_refusal({"export", "--checkpoint", folder / "c", "--output", folder / "out"}, {"/c"});
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out.partial"));
}

TEST(ImportExport, NamesTheCheckpointsOfARunAndTheirHeads) {
  const Scratch folder;
  put_checkpoint(folder / "run/checkpoints/sft", "policy", Head::policy);
  put_checkpoint(folder / "run/checkpoints/reward", "reward", Head::value);
  for (const std::string place : {"run", "run/checkpoints"}) {
    expect_refusal({"generate", "--checkpoint", folder / place, "--prompt-ids", "1"}, {"checkpoints/reward", "checkpoints/sft"});
    expect_refusal({"export", "--checkpoint", folder / place, "--output", folder / "out"}, {"checkpoints/reward", "checkpoints/sft"});
  }
  const std::string reward = folder / "run/checkpoints/reward";
  expect_refusal({"generate", "--checkpoint", reward, "--model", "reward", "--prompt-ids", "1"}, {"reward", "value head"});
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  printed({"export", "--checkpoint", folder / "run/checkpoints/sft", "--output", folder / "out"});
}

/// Whatever is damaged in a manifest or a header, the program says so; it neither crashes nor leaves anything behind.
TEST(ImportExport, SurvivesDamagedFiles) {
  const Scratch folder;
  put_model(folder / "hf", small_gpt2());
  printed({"import", "--model", folder / "hf", "--output", folder / "c"});
  const std::string manifest = bytes_of(folder / "c/manifest.json"), weights = bytes_of(folder / "hf/model.safetensors");
  const RandomKey key(11, Purpose::data_order);
  for (std::uint32_t i = 0; i < 12; ++i) {
    std::string bytes = i % 2 == 0 ? manifest.substr(0, key.below(manifest.size(), i, 0)) : manifest;
    if (i % 2 == 1) bytes[key.below(bytes.size(), i, 0)] ^= static_cast<char>(1 + key.below(127, i, 1));
    put(folder / "c/manifest.json", bytes);
    const Outcome exported = collimate({"export", "--checkpoint", folder / "c", "--output", folder / "out"});
    EXPECT_TRUE(exported.code == 2 || exported.code == 0) << i << ": code " << exported.code << " " << exported.err;
    EXPECT_EQ(std::filesystem::exists(folder / "out"), exported.code == 0) << i;
    std::filesystem::remove_all(folder / "out");

    bytes = weights;
    bytes[key.below(3000, i, 2)] ^= static_cast<char>(1 + key.below(127, i, 3));
    put(folder / "hf/model.safetensors", bytes);
    const Outcome imported = collimate({"import", "--model", folder / "hf", "--output", folder / "d"});
    EXPECT_TRUE(imported.code == 2 || imported.code == 0) << i << ": code " << imported.code << " " << imported.err;
    EXPECT_EQ(std::filesystem::exists(folder / "d"), imported.code == 0) << i;
    std::filesystem::remove_all(folder / "d");
  }
}

TEST(RealModels, ExportAndImportAgainGiveTheSameBytes) {
  NEEDS_DATA();
  for (const std::string name : {"babyllama105", "stories260K", "gpt-nano-sort"}) {
    const Scratch folder;
    const std::string source = data("models/" + name);
    printed({"import", "--model", source, "--output", folder / "c"});
    printed({"export", "--checkpoint", folder / "c", "--output", folder / "one"});
    printed({"import", "--model", folder / "one", "--output", folder / "d"});
    printed({"export", "--checkpoint", folder / "d", "--output", folder / "two"});
    for (const auto& entry : std::filesystem::directory_iterator(folder / "one")) {
      const std::string file = entry.path().filename().string();
      EXPECT_EQ(bytes_of(folder / ("one/" + file)), bytes_of(folder / ("two/" + file))) << name << " " << file;
    }
    // Every tensor of the source's own names has its own bits, whatever the order and header of the file.
    const SafetensorsReader before(source), after(folder / "one");
    for (const SafetensorsEntry& entry : after.tensors()) {
      std::vector<float> a(static_cast<std::size_t>(entry.shape.count())), b(a.size());
      before.read(entry.name, 0, entry.shape.count(), a.data());
      after.read(entry.name, 0, entry.shape.count(), b.data());
      EXPECT_EQ(a, b) << name << " " << entry.name;
    }
    EXPECT_EQ(after.tensors().size(), hugging_face_tensors(config_from_hugging_face(bytes_of(source + "/config.json"), source)).size());
  }
}

}  // namespace
}  // namespace collimate::test
