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
#include "support/refusal.hpp"

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
  EXPECT_TRUE(gpt2.tied && gpt2.bias);
  EXPECT_EQ(gpt2.parameters(), 124439808);
  const ModelConfig llama = read(llama_json);
  EXPECT_EQ(llama.kv_heads, 4);
  EXPECT_FALSE(llama.tied);
  EXPECT_EQ(llama.parameters(), 1100048384);
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
  names(refusal_of(llama_json, "rope_scaling", {{"rope_type", "llama3"}, {"factor", 32.0}}), "\"rope_scaling\" is {\"factor\":32.0");
  names(refusal_of(llama_json, "rope_scaling", {{"type", "linear"}, {"factor", 2.0}}), "\"rope_scaling\"");
  names(refusal_of(llama_json, "attention_bias", true), "\"attention_bias\" is true");
  names(refusal_of(llama_json, "mlp_bias", true), "\"mlp_bias\" is true");
  names(refusal_of(llama_json, "hidden_act", "gelu"), "\"hidden_act\" is \"gelu\"");
  names(refusal_of(llama_json, "sliding_window", 4096), "\"sliding_window\" is 4096");
  names(refusal_of(llama_json, "quantization_config", {{"bits", 4}}), "\"quantization_config\"");
  names(refusal_of(llama_json, "num_key_value_heads", 5), "kv_heads (5)");
  names(refusal_of(llama_json, "hidden_size", "wide"), "\"hidden_size\" is \"wide\"");
  names(refusal_of(llama_json, "hidden_size", Json()), "no key \"hidden_size\"");
  names(refusal_of(llama_json, "model_type", "opt"), "\"model_type\" is opt");
  names(refusal_of(gpt2_json, "activation_function", "gelu"), "\"activation_function\" is \"gelu\"");
  names(refusal_of(gpt2_json, "scale_attn_by_inverse_layer_idx", true), "\"scale_attn_by_inverse_layer_idx\" is true");
  names(refusal_of(gpt2_json, "n_head", 7), "the width 768 is not a multiple of the 7 heads");
  names(refusal_of(gpt2_json, "n_head", 0), "not a multiple of the 0 heads");
  names(refusal([] { config_from_hugging_face("{\"a\": ", "here/config.json"); }), "not valid JSON");
  names(refusal([] { config_from_hugging_face("[1]", "here/config.json"); }), "not a JSON object");
}

TEST(HuggingFaceConfig, WritesWhatItReads) {
  for (const Json& json : {gpt2_json, llama_json}) {
    const ModelConfig config = read(json);
    const std::string text = config_to_hugging_face(config, 1, std::nullopt);
    EXPECT_EQ(config_from_hugging_face(text, "x"), config);
    EXPECT_EQ(ids_from_hugging_face(text, "x").bos, 1);
    EXPECT_EQ(ids_from_hugging_face(text, "x").eos, std::nullopt);
  }
  EXPECT_EQ(ids_from_hugging_face(R"({"eos_token_id": [128001, 128008]})", "x").eos, 128001);
  EXPECT_THROW(ids_from_hugging_face(R"({"eos_token_id": "</s>"})", "x"), Error);
  ModelConfig mixed = read(gpt2_json);
  mixed.positions = Positions::rotary;
  EXPECT_NE(refusal([&] { config_to_hugging_face(mixed, 0, 0); }).find("neither a GPT-2"), std::string::npos);
  EXPECT_NE(refusal([&] { hugging_face_tensors(mixed); }).find("neither a GPT-2"), std::string::npos);
}

TEST(HuggingFaceTensors, HoldEveryParameterOnce) {
  for (const Json& json : {gpt2_json, llama_json}) {
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
  for (const auto& [name, json] :
       {std::pair{"gpt2", gpt2_json}, {"tinyllama-1.1b", llama_json}, {"llama-2-7b", seven}, {"llama3.2-3b", three}}) {
    const auto found = read_list(std::string(data) + "/arch/" + name + ".tensors.tsv");
    ASSERT_FALSE(found.empty()) << name;
    const auto wanted = hugging_face_tensors(read(json));
    EXPECT_EQ(wanted.size(), found.size()) << name;
    const auto matches = match_hugging_face(wanted, found, name);
    for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(wanted[i].name, found[matches[i]].first);
  }
  std::ifstream file(std::string(data) + "/arch/llama3.2-3b.config.json");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_NE(refusal([&] { config_from_hugging_face(text, "c"); }).find("rope_scaling"), std::string::npos);
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
  const auto matches = match_hugging_face(wanted, found, "m.safetensors");
  ASSERT_EQ(matches.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ("transformer." + found[matches[i]].first, wanted[i].name);
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
