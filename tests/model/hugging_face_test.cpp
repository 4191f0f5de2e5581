#include "collimate/model/hugging_face.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <sstream>

#include "collimate/base/error.hpp"
#include "support/says.hpp"

namespace collimate {
namespace {

using test::refusal;

using Json = nlohmann::json;

const Json gpt2_json = {{"model_type", "gpt2"}, {"vocab_size", 50257}, {"n_positions", 1024},   {"n_layer", 12},
                        {"n_embd", 768},        {"n_head", 12},        {"n_inner", Json()},     {"activation_function", "gelu_new"}};
const Json llama_json = {{"model_type", "llama"},      {"vocab_size", 32000},        {"max_position_embeddings", 2048},
                         {"num_hidden_layers", 22},    {"hidden_size", 2048},        {"num_attention_heads", 32},
                         {"num_key_value_heads", 4},   {"intermediate_size", 5632},  {"rms_norm_eps", 1e-5},
                         {"rope_theta", 10000.0},      {"rope_scaling", Json()},     {"hidden_act", "silu"}};

ModelConfig read(const Json& json) { return config_from_hugging_face(json.dump(), "here/config.json"); }

std::string refusal_of(Json json, const char* key, Json value) {
  json[key] = value;
  return refusal([&] { read(json); });
}

TEST(HuggingFaceConfig, ReadsBothFamilies) {
  const ModelConfig gpt2 = read(gpt2_json);
  EXPECT_EQ(gpt2.mlp, 3072);
  EXPECT_EQ(gpt2.head_size, 64);
  EXPECT_TRUE(gpt2.tied && gpt2.bias == Biases::all());
  EXPECT_EQ(gpt2.parameters(), 124439808);
  EXPECT_EQ(gpt2.norm_epsilon, 1e-5) << "transformers' own value, as the next ones";
  EXPECT_EQ(gpt2.dropout, 0.1);
  const ModelConfig llama = read(llama_json);
  EXPECT_EQ(llama.kv_heads, 4);
  EXPECT_FALSE(llama.tied);
  EXPECT_EQ(llama.parameters(), 1100048384);
  Json bare = llama_json;
  for (const char* key : {"rms_norm_eps", "rope_theta", "num_key_value_heads"}) bare.erase(key);
  EXPECT_EQ(read(bare).norm_epsilon, 1e-6);
  EXPECT_EQ(read(bare).rope_theta, 10000);
  EXPECT_EQ(read(bare).kv_heads, 32) << "as many as heads";
  Json other = llama_json;
  other["head_dim"] = 32, other["rope_theta"] = Json(), other["tie_word_embeddings"] = true;
  other["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  EXPECT_EQ(read(other).head_size, 32);
  EXPECT_EQ(read(other).rope_theta, 5e5);
  EXPECT_TRUE(read(other).tied);
}

TEST(HuggingFaceConfig, RefusesWhatItWouldComputeWrongly) {
  const auto names = [](const std::string& text, const std::string& words) {
    EXPECT_NE(text.find(words), std::string::npos) << text;
    EXPECT_NE(text.find("here/config.json"), std::string::npos) << text;
  };
  names(refusal_of(llama_json, "rope_scaling", {{"rope_type", "llama3"}, {"factor", 32.0}}), "needs a number \"low_freq_factor\"");
  names(refusal_of(llama_json, "rope_scaling", {{"type", "linear"}}), "needs a number \"factor\"");
  names(refusal_of(llama_json, "rope_scaling", {{"type", "linear"}, {"factor", 0.5}}), "rope scaling is 0.5");
  for (const char* type : {"dynamic", "yarn", "longrope", "mrope"})
    names(refusal_of(llama_json, "rope_scaling", {{"rope_type", type}, {"factor", 2.0}}), fmt::format("of the type \"{}\" are not supported", type));
  names(refusal_of(llama_json, "rope_scaling", {{"type", "linear"}, {"factor", 2.0}, {"mscale", 3}}), "its key \"mscale\" is not supported");
  names(refusal_of(llama_json, "rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}), "a part of each head");
  names(refusal_of(llama_json, "hidden_act", "gelu"), "\"hidden_act\" is \"gelu\"");
  names(refusal_of(llama_json, "sliding_window", 1024), "\"sliding_window\" is 1024 and the context is 2048");
  names(refusal_of(llama_json, "quantization_config", {{"bits", 4}}), "\"quantization_config\"");
  names(refusal_of(llama_json, "num_key_value_heads", 5), "kv_heads (5)");
  names(refusal_of(llama_json, "hidden_size", "wide"), "\"hidden_size\" is \"wide\"");
  names(refusal_of(llama_json, "hidden_size", Json()), "no key \"hidden_size\"");
  names(refusal_of(llama_json, "model_type", "opt"), "\"model_type\" is opt, which is not supported; the nearest supported family is gpt2");
  names(refusal_of(llama_json, "model_type", "qwen3"), "is qwen2, but it normalises queries and keys");
  names(refusal_of(llama_json, "model_type", "hal"), "must be one of gpt2, llama, mistral, qwen2");
  names(refusal_of(gpt2_json, "activation_function", "gelu"), "\"activation_function\" is \"gelu\"");
  names(refusal_of(gpt2_json, "scale_attn_by_inverse_layer_idx", true), "\"scale_attn_by_inverse_layer_idx\" is true");
  names(refusal_of(gpt2_json, "n_head", 7), "the width 768 is not a multiple of the 7 heads");
  names(refusal_of(gpt2_json, "n_head", 0), "not a multiple of the 0 heads");
  names(refusal([] { config_from_hugging_face("{\"a\": ", "here/config.json"); }), "not valid JSON");
  names(refusal([] { config_from_hugging_face("[1]", "here/config.json"); }), "not a JSON object");
}

Json with(Json json, const Json& more) {
  json.update(more);
  return json;
}

const Json llama3_rope = {{"rope_type", "llama3"},     {"factor", 32.0},           {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};

std::vector<Json> all_kinds() {
  const Json mistral = with(llama_json, {{"model_type", "mistral"}}), qwen2 = with(llama_json, {{"model_type", "qwen2"}});
  return {gpt2_json,
          llama_json,
          with(llama_json, {{"attention_bias", true}}),
          with(llama_json, {{"mlp_bias", true}, {"head_dim", 48}, {"tie_word_embeddings", true}}),
          with(llama_json, {{"rope_scaling", llama3_rope}, {"torch_dtype", "bfloat16"}}),
          with(llama_json, {{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}),
          with(mistral, {{"sliding_window", Json()}}),
          with(mistral, {{"sliding_window", 4096}}),
          qwen2,
          with(qwen2, {{"use_sliding_window", true}, {"sliding_window", 2048}, {"max_window_layers", 3}, {"dtype", "float16"}})};
}

TEST(HuggingFaceConfig, ReadsTheRulesOfEachFamily) {
  const Json mistral = with(llama_json, {{"model_type", "mistral"}}), qwen2 = with(llama_json, {{"model_type", "qwen2"}});
  EXPECT_EQ(read(mistral).sliding_window, 4096) << "transformers' own value";
  EXPECT_EQ(read(with(mistral, {{"sliding_window", Json()}})).sliding_window, 0);
  EXPECT_SAYS(refusal_of(mistral, "max_position_embeddings", 4097), "set \"max_position_embeddings\" to 4096 to use the model up to there");
  EXPECT_SAYS(refusal_of(mistral, "attention_bias", true), "\"attention_bias\" is true");
  Json bare = mistral;
  bare.erase("num_key_value_heads");
  EXPECT_EQ(read(bare).kv_heads, 8) << "transformers' own value";
  EXPECT_EQ(read(with(mistral, {{"num_key_value_heads", Json()}})).kv_heads, 32);

  bare["model_type"] = "qwen2", bare["num_attention_heads"] = 64;
  EXPECT_EQ(read(bare).kv_heads, 32) << "transformers' own value";
  EXPECT_EQ(read(qwen2).bias, (Biases{.query_key_value = true, .output = false, .mlp = false}));
  const Json window = {{"sliding_window", 128}, {"max_window_layers", 21}};
  EXPECT_EQ(read(with(qwen2, window)).sliding_window, 0) << "use_sliding_window is false";
  EXPECT_SAYS(refusal_of(with(qwen2, window), "use_sliding_window", true), "\"sliding_window\" is 128");
  EXPECT_EQ(read(with(with(qwen2, window), {{"use_sliding_window", true}, {"max_window_layers", 22}})).sliding_window, 0) << "no layer has it";
  const Json types = {{"layer_types", Json(std::vector<std::string>(22, "full_attention"))}};
  EXPECT_EQ(read(with(with(with(qwen2, window), types), {{"use_sliding_window", true}})).sliding_window, 0);
  EXPECT_SAYS(refusal_of(qwen2, "layer_types", {"chunked_attention"}), "names chunked_attention");

  EXPECT_EQ(read(with(llama_json, {{"attention_bias", true}})).bias, (Biases{.query_key_value = true, .output = true, .mlp = false}));
  const RopeScaling scaling = read(with(llama_json, {{"rope_scaling", llama3_rope}})).rope_scaling;
  EXPECT_EQ(scaling, (RopeScaling{RopeScaling::Type::llama3, 32, 1, 4, 8192}));
  const ModelConfig five = read(with(llama_json, {{"rope_theta", Json()}, {"rope_parameters", with(llama3_rope, {{"rope_theta", 5e5}})}}));
  EXPECT_EQ(five.rope_scaling, scaling);
  EXPECT_EQ(five.rope_theta, 5e5);
  // Of two values the theta among the parameters goes before, and the context beside them.
  const Json inner = with(llama3_rope, {{"rope_theta", 5e5}});
  const ModelConfig two = read(with(llama_json, {{"rope_theta", 1e4}, {"rope_parameters", inner},
                                                  {"original_max_position_embeddings", 512}}));
  EXPECT_EQ(two.rope_theta, 5e5);
  EXPECT_EQ(two.rope_scaling.original_context, 512);
}

// A key that no family knows is looked at by its value: what turns something off that we lack is nothing, the rest is refused.
TEST(HuggingFaceConfig, RefusesUnknownKeysThatMayChangeNumbers) {
  const Json harmless = {{"pretraining_tp", 2}, {"auto_map", {{"a", "b"}}}, {"_name_or_path", "x"}, {"architectures", {"LlamaForCausalLM"}},
                         {"initializer_range", 0.5}, {"hidden_dropout", 0.1}, {"eos_token_id", {1, 2}}, {"max_length", 20}, {"id2label", {{"0", "a"}}},
                         {"use_qk_norm_extra", Json()}, {"attn_logit_softcapping", Json()}, {"use_mrope", false}, {"residual_multiplier", 1.0},
                         {"no_rope_layers", Json::array()}, {"num_experts", 0}, {"transformers.js_config", {{"dtype", "q4"}}},
                         {"_attn_implementation", "flash_attention_2"}, {"transformers_version", "5.0"}, {"rope_interleaved", false}, {"use_qk_norm", false}};
  EXPECT_EQ(read(with(llama_json, harmless)), read(llama_json));
  for (const auto& [key, value] : std::map<std::string, Json>{{"embedding_multiplier", 12.0},
                                                              {"no_rope_layers", {1, 1, 0}},
                                                              {"final_logit_softcapping", 30.0},
                                                              {"logits_scaling", 8},
                                                              {"use_rope", false},
                                                              {"causal", false},
                                                              {"rope_interleaved", true},
                                                              {"rotary_pct", 0.25},
                                                              {"clip_qkv", 8.0},
                                                              {"num_local_experts", 8},
                                                              {"per_layer_config", {{"0", {{"mlp", 3}}}}},
                                                              {"residual_multiplier", 0.22}})
    EXPECT_SAYS(refusal_of(llama_json, key.c_str(), value), fmt::format("here/config.json: the key \"{}\"", key));
}

TEST(HuggingFaceConfig, WritesWhatItReads) {
  for (const Json& json : all_kinds()) {
    const ModelConfig config = read(json);
    const std::string text = config_to_hugging_face(config, 1, std::nullopt);
    EXPECT_EQ(config_from_hugging_face(text, "x"), config) << text;
    EXPECT_EQ(Json::parse(text)["model_type"], json["model_type"]);
    EXPECT_EQ(ModelConfig::from_json(config.to_json()), config);
    EXPECT_EQ(ids_from_hugging_face(text, "x").bos, 1);
    EXPECT_EQ(ids_from_hugging_face(text, "x").eos, std::nullopt);
  }
  EXPECT_EQ(ids_from_hugging_face(R"({"eos_token_id": [128001, 128008]})", "x").eos, 128001);
  EXPECT_THROW(ids_from_hugging_face(R"({"eos_token_id": "</s>"})", "x"), Error);
  ModelConfig mixed = read(gpt2_json);
  mixed.positions = Positions::rotary;
  EXPECT_NE(refusal([&] { config_to_hugging_face(mixed, 0, 0); }).find("this model is not a gpt2"), std::string::npos);
  EXPECT_NE(refusal([&] { hugging_face_tensors(mixed); }).find("this model is not a gpt2"), std::string::npos);
}

TEST(HuggingFaceTensors, HoldEveryParameterOnce) {
  for (const Json& json : all_kinds()) {
    const ModelConfig config = read(json);
    std::int64_t stored = 0, ours = 0;
    std::set<std::string> names;
    for (const HuggingFaceTensor& tensor : hugging_face_tensors(config)) {
      stored += tensor.shape.count();
      for (const std::string& part : tensor.parts) {
        EXPECT_TRUE(names.insert(part).second) << part;
        ours += tensor.part_shape().count();
      }
    }
    EXPECT_EQ(stored, config.parameters());
    EXPECT_EQ(ours, config.parameters());
    EXPECT_TRUE(names.contains("block.11.query.weight"));
    EXPECT_EQ(names.contains("block.11.key.bias"), config.bias.query_key_value);
    EXPECT_EQ(names.contains("block.11.output.bias"), config.bias.output);
  }
}

std::vector<std::pair<std::string, Shape>> read_list(const std::string& path) {
  std::vector<std::pair<std::string, Shape>> list;
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    const auto tab = line.find('\t'), cross = line.find('x', tab);
    const std::int64_t rows = std::stoll(line.substr(tab + 1));
    list.emplace_back(line.substr(0, tab), cross == line.npos ? Shape{rows} : Shape{rows, std::stoll(line.substr(cross + 1))});
  }
  return list;
}

TEST(HuggingFaceTensors, AgreeWithTheListsOfRealModels) {
  const char* data = std::getenv("COLLIMATE_TEST_DATA");
  if (!data) GTEST_SKIP() << "COLLIMATE_TEST_DATA is not set";
  Json seven = llama_json, three = llama_json;
  seven.update({{"num_hidden_layers", 32}, {"hidden_size", 4096}, {"num_key_value_heads", 32}, {"intermediate_size", 11008}});
  three.update({{"num_hidden_layers", 28}, {"hidden_size", 3072}, {"num_attention_heads", 24}, {"num_key_value_heads", 8},
                {"intermediate_size", 8192}, {"vocab_size", 128256}, {"tie_word_embeddings", true}});
  const Json qwen = with(llama_json, {{"model_type", "qwen2"}, {"num_hidden_layers", 24}, {"hidden_size", 896}, {"num_attention_heads", 14},
                                      {"num_key_value_heads", 2}, {"intermediate_size", 4864}, {"vocab_size", 151936}, {"tie_word_embeddings", true}});
  for (const auto& [name, json] :
       {std::pair{"gpt2", gpt2_json}, {"tinyllama-1.1b", llama_json}, {"llama-2-7b", seven}, {"llama3.2-3b", three}, {"qwen2.5-0.5b", qwen}}) {
    const auto found = read_list(std::string(data) + "/arch/" + name + ".tensors.tsv");
    ASSERT_FALSE(found.empty()) << name;
    const auto wanted = hugging_face_tensors(read(json));
    EXPECT_EQ(wanted.size(), found.size()) << name;
    const auto matches = match_hugging_face(wanted, found, name).places;
    for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(wanted[i].name, found[matches[i]].first);
  }
  std::ifstream file(std::string(data) + "/arch/llama3.2-3b.config.json");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(config_from_hugging_face(text, "c").rope_scaling, (RopeScaling{RopeScaling::Type::llama3, 32, 1, 4, 8192}));
}

class Matching : public testing::Test {
 protected:
  Matching() {
    Json json = gpt2_json;
    json.update({{"vocab_size", 5}, {"n_positions", 7}, {"n_layer", 2}, {"n_embd", 4}, {"n_head", 2}});
    wanted = hugging_face_tensors(read(json));
    for (const auto& tensor : wanted) found.emplace_back(tensor.name.substr(std::string("transformer.").size()), tensor.shape);
  }
  std::string answer() { return refusal([&] { match_hugging_face(wanted, found, "m.safetensors"); }); }
  std::vector<HuggingFaceTensor> wanted;
  std::vector<std::pair<std::string, Shape>> found;
};

TEST_F(Matching, TakesNamesWithoutPrefixAndPassesOverBuffers) {
  found.insert(found.begin(), {"h.0.attn.bias", {1, 1, 7, 7}});
  found.emplace_back("h.1.attn.masked_bias", Shape{});
  found.emplace_back("lm_head.weight", Shape{5, 4});
  found.emplace_back("h.0.attn.rotary_emb.cos_cached", Shape{7, 2});
  const HuggingFaceMatch match = match_hugging_face(wanted, found, "m.safetensors");
  const auto& matches = match.places;
  EXPECT_EQ(match.tied_head, found.size() - 2);
  ASSERT_EQ(match.notes.size(), 1u);
  EXPECT_SAYS(match.notes[0], "ignored: bias, cos_cached, masked_bias");
  ASSERT_EQ(matches.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ("transformer." + found[matches[i]].first, wanted[i].name);
}

// What frameworks put before every name, alone and together, and any name that all have in front.
TEST_F(Matching, LeavesOutThePrefixesOfFrameworks) {
  const auto good = found;
  const auto expect = [&](const std::function<std::string(const std::string&)>& rename, const std::string& note) {
    found = good;
    for (auto& [name, shape] : found) name = rename("transformer." + name);
    found.emplace_back(rename("lm_head.weight"), Shape{5, 4});
    const HuggingFaceMatch match = match_hugging_face(wanted, found, "m.safetensors");
    for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(found[match.places[i]].first, rename(wanted[i].name));
    EXPECT_TRUE(match.tied_head);
    ASSERT_EQ(match.notes.size(), note.empty() ? 0u : 1u);
    if (note.empty()) return;
    EXPECT_SAYS(match.notes[0], note);
  };
  const auto before = [](const char* prefix) { return [=](const std::string& name) { return prefix + name; }; };
  expect(before(""), "");
  expect(before("_orig_mod."), "have _orig_mod. (torch.compile) in them, which was left out");
  expect(before("module."), "module. (data parallelism)");
  expect(before("module._orig_mod."), "_orig_mod. (torch.compile), module. (data parallelism)");
  expect(before("base_model.model."), "begin with base_model.model.transformer., which was left out");
  expect(before("pretrained_model."), "pretrained_model.");
  expect(before("actor.net."), "actor.net.");
  expect([](std::string name) {  // a wrapper in the middle: layers compiled one by one
    if (const auto at = name.find("h.1."); at != std::string::npos) name.insert(at + 4, "_orig_mod.");
    return name;
  }, "_orig_mod.");
  found = good;
  found[3].first = "other." + found[3].first;
  EXPECT_SAYS(answer(), "lacks the tensor");
  found = good;
  found.emplace_back("h.0.attn.c_attn.lora_A.weight", Shape{2, 4});
  EXPECT_SAYS(answer(), "adapters that were not merged");
}

TEST_F(Matching, TakesEitherNameOfATiedEmbedding) {
  const auto embedding = std::find_if(found.begin(), found.end(), [](auto& f) { return f.first == "wte.weight"; });
  embedding->first = "lm_head.weight";
  const auto match = match_hugging_face(wanted, found, "m.safetensors");
  EXPECT_FALSE(match.tied_head);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    EXPECT_EQ(found[match.places[i]].first == "lm_head.weight", wanted[i].name == "transformer.wte.weight");
  embedding->first = "head.weight";
  EXPECT_SAYS(answer(), "lacks the tensor transformer.wte.weight");
}

TEST(HuggingFaceTensors, NameTheValueHeadsOfOthers) {
  const ModelConfig config = read(with(llama_json, {{"num_hidden_layers", 1}}));
  const FoundTensors body{{"model.norm.weight", {2048}}, {"score.weight", {1, 2048}}};
  EXPECT_EQ(value_head_in(body)->name, "score");
  EXPECT_FALSE(value_head_in({{"lm_head.weight", {3, 2}}}));
  for (const std::string name : {"score", "v_head.summary", "value_head"})
    for (const bool bias : {false, true}) {
      FoundTensors found;
      for (const auto& tensor : hugging_face_tensors(config, Head::value, {name, bias})) found.emplace_back(tensor.name, tensor.shape);
      const auto value = value_head_in(found);
      ASSERT_TRUE(value && value->name == name && value->bias == bias) << name;
      const auto wanted = hugging_face_tensors(config, Head::value, *value);
      EXPECT_EQ(wanted.size(), found.size());
      EXPECT_EQ(match_hugging_face(wanted, found, "m").places.size(), found.size());
      for (auto& [tensor, shape] : found)
        if (tensor == name + ".weight") shape = {2, 2048};
      EXPECT_SAYS(refusal([&] { match_hugging_face(wanted, found, "m"); }), "has the shape [2, 2048]; one of a reward model gives one number");
    }
}

TEST_F(Matching, NamesTheTensorThatIsWrong) {
  EXPECT_EQ(answer(), "accepted");
  const auto good = found;
  const auto at = [&](const char* name) { return std::find_if(found.begin(), found.end(), [&](auto& f) { return f.first == name; }); };
  at("h.1.mlp.c_fc.weight")->second = {16, 4};
  EXPECT_EQ(answer(), "m.safetensors: the tensor h.1.mlp.c_fc.weight has the shape [16, 4], but config.json asks for [4, 16]");
  found = good;
  found.erase(at("h.0.attn.c_attn.bias"));
  EXPECT_NE(answer().find("m.safetensors lacks the tensor transformer.h.0.attn.c_attn.bias of shape [12]"), std::string::npos) << answer();
  found = good;
  found.emplace_back("h.2.ln_1.weight", Shape{4});
  EXPECT_EQ(answer(), "m.safetensors holds the tensor h.2.ln_1.weight of shape [4], which this model does not have");
  found = good;
  found.emplace_back("transformer.wte.weight", Shape{5, 4});
  EXPECT_NE(answer().find("name the same tensor"), std::string::npos) << answer();
}

TEST(HuggingFaceTensors, SplitAndTransposeTheFusedProjection) {
  const HuggingFaceTensor fused{"c_attn.weight", {2, 9}, true, {"query", "key", "value"}};
  std::vector<float> stored(18);
  std::iota(stored.begin(), stored.end(), 0.0f);  // stored[in][out] = 9 in + out
  EXPECT_EQ(fused.part_shape(), (Shape{3, 2}));
  std::vector<float> key(6), back(18, -1);
  unpack(fused, 1, stored, key);
  EXPECT_EQ(key, (std::vector<float>{3, 12, 4, 13, 5, 14}));
  for (int part = 0; part < 3; ++part) {
    unpack(fused, part, stored, key);
    pack(fused, part, key, back);
  }
  EXPECT_EQ(back, stored);
  const HuggingFaceTensor bias{"c_attn.bias", {9}, false, {"query", "key", "value"}};
  std::vector<float> value(3);
  unpack(bias, 2, std::span(stored).first(9), value);
  EXPECT_EQ(value, (std::vector<float>{6, 7, 8}));
}

}  // namespace
}  // namespace collimate
