#pragma once
#include "collimate/model/config.hpp"

namespace collimate::test {

/// One model of each family, small enough for every test, with uneven numbers.
inline ModelConfig small_llama() {
  ModelConfig c;
  c.vocabulary = 37, c.context = 64, c.layers = 2, c.width = 24, c.heads = 4, c.kv_heads = 2, c.head_size = 6, c.mlp = 20;
  return c;
}
inline ModelConfig small_qwen2() {
  ModelConfig c;
  c.family = "qwen2", c.bias.query_key_value = true;
  c.vocabulary = 31, c.context = 48, c.layers = 2, c.width = 20, c.heads = 6, c.kv_heads = 3, c.head_size = 10, c.mlp = 28, c.tied = false;
  c.rope_scaling = {.type = RopeScaling::Type::llama3, .factor = 8, .low_frequency = 1, .high_frequency = 4, .original_context = 48};
  return c;
}
inline ModelConfig small_gpt2() {
  ModelConfig c;
  c.vocabulary = 29, c.context = 40, c.layers = 2, c.width = 24, c.heads = 3, c.kv_heads = 3, c.head_size = 8, c.mlp = 50;
  c.family = "gpt2", c.norm = Norm::layer, c.activation = Activation::gelu, c.positions = Positions::learned, c.bias = Biases::all(), c.tied = false;
  return c;
}

}  // namespace collimate::test
