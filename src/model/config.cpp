#include "collimate/model/config.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "collimate/base/error.hpp"

namespace collimate {

namespace {

using Json = nlohmann::ordered_json;

// With these limits no product of sizes in this program overflows 63 bits.
constexpr std::int64_t largest_width = 1 << 24, largest_layers = 1 << 12, largest_ids = (std::int64_t{1} << 31) - 1;

void within(const char* name, std::int64_t value, std::int64_t largest) {
  require(value >= 1 && value <= largest, "the model's {} is {}: it must be from 1 to {}", name, value, largest);
}

std::string name_of(Norm norm) { return norm == Norm::rms ? "rms" : "layer"; }
std::string name_of(Activation activation) { return activation == Activation::swiglu ? "swiglu" : "gelu"; }
std::string name_of(Positions positions) { return positions == Positions::rotary ? "rotary" : "learned"; }
std::string name_of(RopeScaling::Type type) { return type == RopeScaling::Type::linear ? "linear" : "llama3"; }

template <class Choice>
Choice chosen(const char* key, const std::string& text, Choice first, Choice second) {
  if (text == name_of(first)) return first;
  require(text == name_of(second), "the model's {} is \"{}\": it must be {} or {}", key, text, name_of(first), name_of(second));
  return second;
}

// true, false, or the names of the matrices that have biases: models of earlier versions have one of the first two.
constexpr std::pair<const char*, bool Biases::*> bias_names[] = {
    {"query_key_value", &Biases::query_key_value}, {"output", &Biases::output}, {"mlp", &Biases::mlp}};

Json to_json(const Biases& bias) {
  if (bias == Biases::all()) return true;
  Json names = Json::array();
  for (const auto& [name, member] : bias_names)
    if (bias.*member) names.push_back(name);
  return names.empty() ? Json(false) : names;
}

Biases biases_from(const Json& json) {
  if (json.is_boolean()) return json.get<bool>() ? Biases::all() : Biases{};
  Biases bias;
  for (const auto& name : json.get<std::vector<std::string>>()) {
    bool known = false;
    for (const auto& [each, member] : bias_names)
      if (name == each) bias.*member = known = true;
    require(known, "the model's bias names \"{}\": it may name query_key_value, output and mlp", name);
  }
  return bias;
}

Json to_json(const RopeScaling& scaling) {
  Json json{{"type", name_of(scaling.type)}, {"factor", scaling.factor}};
  if (scaling.type == RopeScaling::Type::llama3)
    json.update(Json{{"low_frequency", scaling.low_frequency},
                     {"high_frequency", scaling.high_frequency},
                     {"original_context", scaling.original_context}});
  return json;
}

RopeScaling scaling_from(const Json& json) {
  using Type = RopeScaling::Type;
  RopeScaling scaling;
  scaling.type = chosen("rope scaling", json.at("type").get<std::string>(), Type::linear, Type::llama3);
  scaling.factor = json.at("factor").get<double>();
  if (scaling.type == Type::linear) return scaling;
  scaling.low_frequency = json.at("low_frequency").get<double>();
  scaling.high_frequency = json.at("high_frequency").get<double>();
  scaling.original_context = json.at("original_context").get<std::int64_t>();
  return scaling;
}

void check_scaling(const RopeScaling& scaling) {
  if (scaling.type == RopeScaling::Type::none) return;
  require(std::isfinite(scaling.factor) && scaling.factor >= 1, "the factor of the model's rope scaling is {}: it must be at least 1",
          scaling.factor);
  if (scaling.type == RopeScaling::Type::linear) return;
  within("rope scaling's original context", scaling.original_context, largest_ids);
  require(
      std::isfinite(scaling.high_frequency) && scaling.low_frequency > 0 && scaling.high_frequency > scaling.low_frequency,
      "the low and high frequency factors of the model's rope scaling are {} and {}: both must be above 0, and the second above the first",
      scaling.low_frequency, scaling.high_frequency);
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
  require(heads % kv_heads == 0, "the model's heads ({}) are not a multiple of its kv_heads ({}), so they cannot share them evenly", heads,
          kv_heads);
  require(positions != Positions::rotary || head_size % 2 == 0,
          "the model's head_size is {}: rotary positions turn pairs of numbers, so it must be even", head_size);
  require(std::isfinite(norm_epsilon) && norm_epsilon > 0, "the model's norm_epsilon is {}: it must be above 0", norm_epsilon);
  require(std::isfinite(rope_theta) && rope_theta > 0, "the model's rope_theta is {}: it must be above 0", rope_theta);
  check_scaling(rope_scaling);
  require(
      sliding_window == 0 || sliding_window >= context,
      "the model attends to a sliding window of {} tokens, and its context is {}: only windows that hold the whole context are supported",
      sliding_window, context);
  require(stored == "f32" || stored == "bf16" || stored == "f16", "the model's numbers were stored as \"{}\": it must be f32, bf16 or f16",
          stored);
  require(dropout >= 0 && dropout < 1, "the model's dropout is {}: it must be at least 0 and below 1", dropout);
}

std::int64_t ModelConfig::parameters() const {
  const std::int64_t one_norm = norm == Norm::layer ? 2 * width : width, ups = activation == Activation::swiglu ? 2 : 1;
  const std::int64_t query = heads * head_size, key = kv_heads * head_size;
  std::int64_t block = 2 * one_norm + width * (2 * query + 2 * key) + width * mlp * (ups + 1);
  if (bias.query_key_value) block += query + 2 * key;
  if (bias.output) block += width;
  if (bias.mlp) block += ups * mlp + width;
  const std::int64_t tables = vocabulary * width * (tied ? 1 : 2) + (positions == Positions::learned ? context * width : 0);
  return tables + layers * block + one_norm;
}

std::string ModelConfig::to_json() const {
  Json json{{"family", family},
            {"vocabulary", vocabulary},
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
            {"bias", collimate::to_json(bias)},
            {"tied", tied},
            {"norm_epsilon", norm_epsilon},
            {"rope_theta", rope_theta},
            {"dropout", dropout}};
  if (rope_scaling.type != RopeScaling::Type::none) json["rope_scaling"] = collimate::to_json(rope_scaling);
  if (sliding_window != 0) json["sliding_window"] = sliding_window;
  if (stored != "f32") json["stored"] = stored;
  return json.dump();
}

ModelConfig ModelConfig::from_json(const std::string& text) {
  ModelConfig config;
  try {
    const auto json = Json::parse(text);
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
    config.family = json.value("family", config.norm == Norm::layer ? "gpt2" : "llama");  // earlier versions had these two, without a name
    config.bias = biases_from(json.at("bias"));
    config.tied = json.at("tied").get<bool>();
    config.norm_epsilon = json.at("norm_epsilon").get<double>();
    config.rope_theta = json.at("rope_theta").get<double>();
    if (json.contains("rope_scaling")) config.rope_scaling = scaling_from(json["rope_scaling"]);
    config.sliding_window = json.value("sliding_window", std::int64_t{0});
    config.stored = json.value("stored", "f32");
    config.dropout = json.at("dropout").get<double>();
  } catch (const nlohmann::json::exception&) {
    fail("the model description {} has an entry that is missing or not what it should be: its file is damaged, so use another", text);
  }
  config.check();
  return config;
}

std::vector<double> rope_frequencies(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  const double low = scaling.low_frequency, high = scaling.high_frequency;
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < config.head_size / 2; ++i) {
    const double plain = std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_size));
    double share = 0;  // of the frequency that is kept
    if (scaling.type == RopeScaling::Type::llama3) {
      const double turns = static_cast<double>(scaling.original_context) * plain / (2 * std::numbers::pi);  // within the first context
      share = std::clamp((turns - low) / (high - low), 0.0, 1.0);
    }
    frequencies.push_back(scaling.type == RopeScaling::Type::none ? plain : share * plain + (1 - share) * plain / scaling.factor);
  }
  return frequencies;
}

}  // namespace collimate
