#include "collimate/model/config.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"

namespace collimate {

namespace {

// With these limits no product of sizes in this program overflows 63 bits.
constexpr std::int64_t largest_width = 1 << 24, largest_layers = 1 << 12, largest_ids = (std::int64_t{1} << 31) - 1;

void within(const char* name, std::int64_t value, std::int64_t largest) {
  require(value >= 1 && value <= largest, "the model's {} is {}: it must be from 1 to {}", name, value, largest);
}

std::string name_of(Norm norm) { return norm == Norm::rms ? "rms" : "layer"; }
std::string name_of(Activation activation) { return activation == Activation::swiglu ? "swiglu" : "gelu"; }
std::string name_of(Positions positions) { return positions == Positions::rotary ? "rotary" : "learned"; }

template <class Choice>
Choice chosen(const char* key, const std::string& text, Choice first, Choice second) {
  if (text == name_of(first)) return first;
  require(text == name_of(second), "the model's {} is \"{}\": it must be {} or {}", key, text, name_of(first), name_of(second));
  return second;
}

}  // namespace

void ModelConfig::check() const {
  within("vocabulary", vocabulary, largest_ids);
  within("context", context, largest_ids);
  within("layers", layers, largest_layers);
  within("width", width, largest_width);
  within("heads", heads, largest_width);
  within("kv_heads", kv_heads, largest_width);
  within("head_size", head_size, largest_width);
  within("mlp", mlp, largest_width);
  within("heads times head_size", heads * head_size, largest_width);
  require(heads % kv_heads == 0, "the model's heads ({}) are not a multiple of its kv_heads ({}), so they cannot share them evenly",
          heads, kv_heads);
  require(positions != Positions::rotary || head_size % 2 == 0,
          "the model's head_size is {}: rotary positions turn pairs of numbers, so it must be even", head_size);
  require(!(bias && activation == Activation::swiglu), "the model has bias = true with swiglu: only gelu models have biases");
  require(std::isfinite(norm_epsilon) && norm_epsilon > 0, "the model's norm_epsilon is {}: it must be above 0", norm_epsilon);
  require(std::isfinite(rope_theta) && rope_theta > 0, "the model's rope_theta is {}: it must be above 0", rope_theta);
  require(dropout >= 0 && dropout < 1, "the model's dropout is {}: it must be at least 0 and below 1", dropout);
}

std::int64_t ModelConfig::parameters() const {
  const std::int64_t one_norm = norm == Norm::layer ? 2 * width : width;
  const std::int64_t query = heads * head_size, key = kv_heads * head_size;
  std::int64_t block = 2 * one_norm + width * (2 * query + 2 * key) + width * mlp * (activation == Activation::swiglu ? 3 : 2);
  if (bias) block += query + 2 * key + width + mlp + width;
  const std::int64_t tables = vocabulary * width * (tied ? 1 : 2) + (positions == Positions::learned ? context * width : 0);
  return tables + layers * block + one_norm;
}

std::string ModelConfig::to_json() const {
  const nlohmann::ordered_json json{{"vocabulary", vocabulary},
                                    {"context", context},
                                    {"layers", layers},
                                    {"width", width},
                                    {"heads", heads},
                                    {"kv_heads", kv_heads},
                                    {"head_size", head_size},
                                    {"mlp", mlp},
                                    {"norm", name_of(norm)},
                                    {"activation", name_of(activation)},
                                    {"positions", name_of(positions)},
                                    {"bias", bias},
                                    {"tied", tied},
                                    {"norm_epsilon", norm_epsilon},
                                    {"rope_theta", rope_theta},
                                    {"dropout", dropout}};
  return json.dump();
}

ModelConfig ModelConfig::from_json(const std::string& text) {
  ModelConfig config;
  try {
    const auto json = nlohmann::json::parse(text);
    for (const auto& [key, pointer] : {std::pair{"vocabulary", &config.vocabulary},
                                       {"context", &config.context},
                                       {"layers", &config.layers},
                                       {"width", &config.width},
                                       {"heads", &config.heads},
                                       {"kv_heads", &config.kv_heads},
                                       {"head_size", &config.head_size},
                                       {"mlp", &config.mlp}})
      *pointer = json.at(key).get<std::int64_t>();
    config.norm = chosen("norm", json.at("norm").get<std::string>(), Norm::rms, Norm::layer);
    config.activation = chosen("activation", json.at("activation").get<std::string>(), Activation::swiglu, Activation::gelu);
    config.positions = chosen("positions", json.at("positions").get<std::string>(), Positions::rotary, Positions::learned);
    config.bias = json.at("bias").get<bool>();
    config.tied = json.at("tied").get<bool>();
    config.norm_epsilon = json.at("norm_epsilon").get<double>();
    config.rope_theta = json.at("rope_theta").get<double>();
    config.dropout = json.at("dropout").get<double>();
  } catch (const nlohmann::json::exception&) {
    fail("the model description {} has an entry that is missing or not what it should be: its file is damaged, so use another", text);
  }
  config.check();
  return config;
}

}  // namespace collimate
