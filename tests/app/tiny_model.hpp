#pragma once
#include <string>

#include "app/program.hpp"
#include "collimate/base/random.hpp"
#include "collimate/io/safetensors.hpp"
#include "collimate/model/hugging_face.hpp"

namespace collimate::test {

inline ModelConfig tiny_llama() {
  ModelConfig c;
  c.vocabulary = 258, c.context = 24, c.layers = 2, c.width = 12, c.heads = 2, c.kv_heads = 1, c.head_size = 6, c.mlp = 20;
  return c;
}
inline ModelConfig tiny_gpt2() {
  ModelConfig c;
  c.vocabulary = 17, c.context = 10, c.layers = 1, c.width = 8, c.heads = 2, c.kv_heads = 2, c.head_size = 4, c.mlp = 32;
  c.norm = Norm::layer, c.activation = Activation::gelu, c.positions = Positions::learned, c.bias = true, c.tied = false;
  return c;
}

/// A Hugging Face folder with random weights. `largest`: bytes per shard.
inline void put_tiny_model(const std::string& folder, const ModelConfig& config, std::int64_t largest = 1 << 30) {
  put(folder + "/config.json", config_to_hugging_face(config, {}, {}));
  std::vector<SafetensorsSpec> specs;
  for (const HuggingFaceTensor& tensor : hugging_face_tensors(config)) specs.push_back({tensor.name, tensor.shape});
  const RandomKey key(3, Purpose::data_order);
  write_safetensors_folder(
      folder, specs,
      [&](std::size_t index, std::span<float> values) {
        for (std::size_t i = 0; i < values.size(); ++i)
          values[i] = static_cast<float>(key.uniform(index, static_cast<std::uint32_t>(i), 0) - 0.5);
      },
      largest);
}

}  // namespace collimate::test
