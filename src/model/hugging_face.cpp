#include "collimate/model/hugging_face.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"
#include "model/family.hpp"

namespace collimate {

namespace {

using Json = nlohmann::json;

constexpr std::pair<const char*, const char*> type_names[] = {{"f32", "float32"}, {"bf16", "bfloat16"}, {"f16", "float16"}};

/// f32, bf16 or f16 for what torch calls it; other types are looked at where the tensors are read.
std::string type_of(const ConfigFile& file) {
  const std::string named = file.text("dtype", file.text("torch_dtype", ""));
  for (const auto& [ours, torch] : type_names)
    if (named == torch) return ours;
  return "f32";
}

}  // namespace

ModelConfig config_from_hugging_face(const std::string& text, const std::string& path) {
  const ConfigFile file(text, path);
  const Family& family = family_named(file.text("model_type", "missing"), path);
  file.only("quantization_config", {});
  file.only("is_encoder_decoder", {false});
  file.only("pruned_heads", {Json::object()});
  ModelConfig config = family.settings;
  family.read(file, config);
  file.refuse_unknown(family.harmless);
  config.stored = type_of(file);
  if (config.head_size == 0) {
    require(config.heads > 0 && config.width % config.heads == 0, "{}: the width {} is not a multiple of the {} heads", path, config.width,
            config.heads);
    config.head_size = config.width / config.heads;
  }
  try {
    config.check();
    family_of(config);
  } catch (const Error& error) {
    fail("{}: {}", path, error.what());
  }
  return config;
}

double attention_dropout_from_hugging_face(const std::string& text, const std::string& path) {
  const ConfigFile file(text, path);
  return file.text("model_type", "missing") == "gpt2" ? file.number("attn_pdrop", 0.1) : file.number("attention_dropout", 0);
}

HuggingFaceIds ids_from_hugging_face(const std::string& text, const std::string& path) {
  const ConfigFile file(text, path);
  return {file.id("bos_token_id"), file.id("eos_token_id"), file.listed("eos_token_id")};
}

std::string config_to_hugging_face(const ModelConfig& config, std::optional<std::int64_t> bos, std::optional<std::int64_t> eos, Head head) {
  config.check();
  const Family& family = family_of(config);
  Json json{{"vocab_size", config.vocabulary}, {"tie_word_embeddings", config.tied}, {"use_cache", true}, {"model_type", family.name}};
  for (const auto& [ours, torch] : type_names)
    if (config.stored == ours) json["torch_dtype"] = torch;
  json["bos_token_id"] = bos ? Json(*bos) : Json();
  json["eos_token_id"] = eos ? Json(*eos) : Json();
  json["architectures"] = {family.architecture +
                           (head == Head::policy ? (family.name == "gpt2" ? "LMHeadModel" : "ForCausalLM") : "ForSequenceClassification")};
  if (head == Head::value) {
    json["id2label"] = {{"0", "LABEL_0"}};
    json["label2id"] = {{"LABEL_0", 0}};
  }
  family.write(config, json);
  return json.dump(2) + "\n";
}

Shape HuggingFaceTensor::part_shape() const {
  const std::int64_t count = static_cast<std::int64_t>(parts.size());
  if (shape.rank() == 1) return {shape[0] / count};
  return transposed ? Shape{shape[1] / count, shape[0]} : Shape{shape[0] / count, shape[1]};
}

std::vector<HuggingFaceTensor> hugging_face_tensors(const ModelConfig& config, Head head, const ValueHeadName& value) {
  config.check();
  std::vector<HuggingFaceTensor> tensors;
  family_of(config).add_tensors(config, tensors);
  if (head == Head::policy && !config.tied)
    tensors.push_back({"lm_head.weight", {config.vocabulary, config.width}, false, {"head.weight"}});
  if (head == Head::value) tensors.push_back({value.name + ".weight", {1, config.width}, false, {"value_head.weight"}});
  if (head == Head::value && value.bias) tensors.push_back({value.name + ".bias", {1}, false, {"value_head.bias"}});
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return tensors;
}

void unpack(const HuggingFaceTensor& tensor, int part, std::span<const float> stored, std::span<float> ours) {
  const Shape shape = tensor.part_shape();
  ensure(std::ssize(stored) == tensor.shape.count() && std::ssize(ours) == shape.count(), "unpack {}: wrong sizes", tensor.name);
  const std::int64_t rows = shape[0], columns = shape.count() / rows;
  if (!tensor.transposed) {
    std::copy_n(stored.begin() + part * rows * columns, rows * columns, ours.begin());
    return;
  }
  const std::int64_t all_rows = tensor.shape[1];
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t column = 0; column < columns; ++column) ours[row * columns + column] = stored[column * all_rows + part * rows + row];
}

void pack(const HuggingFaceTensor& tensor, int part, std::span<const float> ours, std::span<float> stored) {
  const Shape shape = tensor.part_shape();
  ensure(std::ssize(stored) == tensor.shape.count() && std::ssize(ours) == shape.count(), "pack {}: wrong sizes", tensor.name);
  const std::int64_t rows = shape[0], columns = shape.count() / rows;
  if (!tensor.transposed) {
    std::copy_n(ours.begin(), rows * columns, stored.begin() + part * rows * columns);
    return;
  }
  const std::int64_t all_rows = tensor.shape[1];
  for (std::int64_t column = 0; column < columns; ++column)
    for (std::int64_t row = 0; row < rows; ++row) stored[column * all_rows + part * rows + row] = ours[row * columns + column];
}

}  // namespace collimate
