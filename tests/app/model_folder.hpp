#pragma once
#include <string>

#include "app/program.hpp"
#include "collimate/base/random.hpp"
#include "collimate/io/safetensors.hpp"
#include "collimate/model/hugging_face.hpp"
#include "support/small_config.hpp"

namespace collimate::test {

/// A Hugging Face folder with random weights. `largest`: bytes per shard.
inline void put_model(const std::string& folder, const ModelConfig& config, std::int64_t largest = 1 << 30) {
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
