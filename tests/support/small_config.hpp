#pragma once
#include "collimate/model/config.hpp"

namespace collimate::test {

/// One model of each family, small enough for every test, with uneven numbers.
inline ModelConfig small_llama() {
  ModelConfig c;
  c.vocabulary = 37, c.context = 64, c.layers = 2, c.width = 24, c.heads = 4, c.kv_heads = 2, c.head_size = 6, c.mlp = 20;
  return c;
}
inline ModelConfig small_gpt2() {
  ModelConfig c;
  c.vocabulary = 29, c.context = 40, c.layers = 2, c.width = 24, c.heads = 3, c.kv_heads = 3, c.head_size = 8, c.mlp = 50;
  c.norm = Norm::layer, c.activation = Activation::gelu, c.positions = Positions::learned, c.bias = true, c.tied = false;
  return c;
}

}  // namespace collimate::test
