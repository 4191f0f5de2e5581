#include "collimate/model/config.hpp"

#include <gtest/gtest.h>

#include "collimate/base/error.hpp"

namespace collimate {
namespace {

ModelConfig gpt2() {
  ModelConfig c;
  c.vocabulary = 50257, c.context = 1024, c.layers = 12, c.width = 768, c.heads = c.kv_heads = 12, c.head_size = 64, c.mlp = 3072;
  c.family = "gpt2", c.norm = Norm::layer, c.activation = Activation::gelu, c.positions = Positions::learned, c.bias = Biases::all(), c.dropout = 0.1;
  return c;
}

ModelConfig llama(std::int64_t layers, std::int64_t width, std::int64_t heads, std::int64_t kv_heads, std::int64_t mlp) {
  ModelConfig c;
  c.vocabulary = 32000, c.context = 2048, c.layers = layers, c.width = width, c.heads = heads, c.kv_heads = kv_heads;
  c.head_size = width / heads, c.mlp = mlp, c.tied = false;
  return c;
}

std::string refusal(const ModelConfig& config) {
  try {
    config.check();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ModelConfig, CountsTheParametersOfKnownModels) {
  EXPECT_EQ(gpt2().parameters(), 124439808);
  EXPECT_EQ(llama(32, 4096, 32, 32, 11008).parameters(), 6738415616);  // LLaMA 2 7B
  EXPECT_EQ(llama(22, 2048, 32, 4, 5632).parameters(), 1100048384);    // TinyLlama 1.1B
  ModelConfig three = llama(28, 3072, 24, 8, 8192);                    // LLaMA 3.2 3B
  three.vocabulary = 128256, three.tied = true;
  EXPECT_EQ(three.parameters(), 3212749824);
}

TEST(ModelConfig, JsonGivesTheSameConfigBack) {
  ModelConfig config = llama(3, 48, 6, 2, 100);
  config.norm_epsilon = 1e-6 * 1.1, config.rope_theta = 500000, config.dropout = 1.0 / 3;
  EXPECT_EQ(ModelConfig::from_json(config.to_json()), config);
  EXPECT_EQ(ModelConfig::from_json(gpt2().to_json()), gpt2());
  config.family = "qwen2", config.bias.query_key_value = true, config.sliding_window = 2048, config.stored = "bf16";
  for (const auto type : {RopeScaling::Type::linear, RopeScaling::Type::llama3}) {
    config.rope_scaling = {.type = type, .factor = 7};
    if (type == RopeScaling::Type::llama3) config.rope_scaling.low_frequency = 2, config.rope_scaling.original_context = 99;
    EXPECT_EQ(ModelConfig::from_json(config.to_json()), config);
  }
  // A checkpoint of an earlier version names no family, and its biases are everywhere or nowhere.
  const std::string old = R"({"vocabulary":5,"context":8,"layers":1,"width":4,"heads":2,"kv_heads":2,"head_size":2,"mlp":6,"norm":"layer",)"
                          R"("activation":"gelu","positions":"learned","bias":true,"tied":true,"norm_epsilon":1e-5,"rope_theta":10000.0,"dropout":0.1})";
  EXPECT_EQ(ModelConfig::from_json(old).family, "gpt2");
  EXPECT_EQ(ModelConfig::from_json(old).bias, Biases::all());
  EXPECT_EQ(config.to_json().find('\n'), std::string::npos);
}

TEST(ModelConfig, SaysWhichNumberIsWrong) {
  EXPECT_EQ(refusal(gpt2()), "accepted");
  const auto expect = [](auto change, const std::string& words) {
    ModelConfig config = llama(2, 64, 8, 4, 172);
    change(config);
    EXPECT_NE(refusal(config).find(words), std::string::npos) << refusal(config);
  };
  expect([](ModelConfig& c) { c.vocabulary = 0; }, "vocabulary is 0");
  expect([](ModelConfig& c) { c.vocabulary = std::int64_t{1} << 31; }, "vocabulary is 2147483648");
  expect([](ModelConfig& c) { c.context = -1; }, "context is -1");
  expect([](ModelConfig& c) { c.layers = 0; }, "layers is 0");
  expect([](ModelConfig& c) { c.width = std::int64_t{1} << 40; }, "width is");
  expect([](ModelConfig& c) { c.mlp = 0; }, "mlp is 0");
  expect([](ModelConfig& c) { c.heads = 1 << 20, c.head_size = 1 << 20; }, "heads times head_size");
  expect([](ModelConfig& c) { c.kv_heads = 3; }, "heads (8) are not a multiple of its kv_heads (3)");
  expect([](ModelConfig& c) { c.head_size = 7; }, "head_size is 7");
  expect([](ModelConfig& c) { c.norm_epsilon = 0; }, "norm_epsilon is 0");
  expect([](ModelConfig& c) { c.rope_theta = std::numeric_limits<double>::infinity(); }, "rope_theta is inf");
  expect([](ModelConfig& c) { c.dropout = 1; }, "dropout is 1");
  expect([](ModelConfig& c) { c.sliding_window = 2047; }, "sliding window of 2047 tokens, and its context is 2048");
  expect([](ModelConfig& c) { c.rope_scaling = {.type = RopeScaling::Type::linear, .factor = 0.5}; }, "rope scaling is 0.5");
  expect([](ModelConfig& c) { c.rope_scaling = {.type = RopeScaling::Type::llama3, .factor = 2, .low_frequency = 4}; }, "are 4 and 4");
}

TEST(ModelConfig, RefusesJsonThatIsNotAModel) {
  EXPECT_THROW(ModelConfig::from_json("{"), Error);
  EXPECT_THROW(ModelConfig::from_json("[]"), Error);
  EXPECT_THROW(ModelConfig::from_json("{\"vocabulary\": 3}"), Error);
  std::string text = gpt2().to_json();
  text.replace(text.find("\"layer\""), 7, "\"batch\"");
  try {
    ModelConfig::from_json(text);
    FAIL() << "an unknown norm was accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the model's norm is \"batch\": it must be rms or layer");
  }
}

}  // namespace
}  // namespace collimate
