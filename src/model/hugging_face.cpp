#include "collimate/model/hugging_face.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"

namespace collimate {

namespace {

using Json = nlohmann::json;

/// A config.json with sentences for what is missing, of the wrong type or not computed by us.
class ConfigFile {
 public:
  ConfigFile(const std::string& text, const std::string& path) : path_(path) {
    try {
      json_ = Json::parse(text);
    } catch (const Json::parse_error& error) {
      fail("{} is not valid JSON at byte {}: is the file complete?", path, error.byte);
    } catch (const Json::out_of_range&) {
      fail("{} has a number beyond the range of JSON readers: correct it", path);
    }
    require(json_.is_object(), "{} is not a JSON object, so it is not the config.json of a model", path);
  }

  bool has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }

  std::int64_t size(const char* key) const {
    require(has(key), "{} has no key \"{}\", which gives a size of the model", path_, key);
    require(json_[key].is_number_integer(), "{}: \"{}\" is {}, not a whole number", path_, key, json_[key].dump());
    return json_[key].get<std::int64_t>();
  }
  std::int64_t size(const char* key, std::int64_t otherwise) const { return has(key) ? size(key) : otherwise; }

  double number(const char* key, double otherwise) const {
    if (!has(key)) return otherwise;
    require(json_[key].is_number(), "{}: \"{}\" is {}, not a number", path_, key, json_[key].dump());
    return json_[key].get<double>();
  }

  bool flag(const char* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    require(json_[key].is_boolean(), "{}: \"{}\" is {}, neither true nor false", path_, key, json_[key].dump());
    return json_[key].get<bool>();
  }

  std::string text(const char* key, const std::string& otherwise) const {
    if (!has(key)) return otherwise;
    require(json_[key].is_string(), "{}: \"{}\" is {}, not a text", path_, key, json_[key].dump());
    return json_[key].get<std::string>();
  }

  /// Refuses a key with any value but the allowed ones (an absent key and null are always allowed).
  void only(const char* key, const std::vector<Json>& allowed) const {
    if (!has(key) || std::find(allowed.begin(), allowed.end(), json_[key]) != allowed.end()) return;
    std::string list;
    for (const Json& value : allowed) list += (list.empty() ? "" : " or ") + value.dump();
    fail("{}: \"{}\" is {}, which is not supported{}", path_, key, json_[key].dump(), list.empty() ? "" : ": it must be " + list);
  }

  std::optional<std::int64_t> id(const char* key) const {
    if (!has(key)) return std::nullopt;
    const Json& value = json_[key].is_array() && !json_[key].empty() ? json_[key][0] : json_[key];
    require(value.is_number_integer(), "{}: \"{}\" is {}, not a token id", path_, key, json_[key].dump());
    return value.get<std::int64_t>();
  }

  std::size_t listed(const char* key) const { return !has(key) ? 0 : json_[key].is_array() ? json_[key].size() : 1; }

  /// The rotary base: rope_theta, or inside rope_parameters as transformers 5 writes it. Scaled rotations are refused.
  double rope_theta() const {
    double theta = number("rope_theta", 10000);
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      if (!has(key)) continue;
      const Json& rope = json_[key];
      const Json type = rope.is_object() ? rope.value("rope_type", rope.value("type", Json("default"))) : Json();
      require(type == "default", "{}: \"{}\" is {}, which is not supported: only unscaled rotary positions are", path_, key, rope.dump());
      if (rope.contains("rope_theta") && rope["rope_theta"].is_number()) theta = rope["rope_theta"].get<double>();
    }
    return theta;
  }

 private:
  std::string path_;
  Json json_;
};

ModelConfig read_gpt2(const ConfigFile& file) {
  file.only("activation_function", {"gelu_new", "gelu_pytorch_tanh"});
  file.only("scale_attn_weights", {true});
  file.only("scale_attn_by_inverse_layer_idx", {false});
  file.only("add_cross_attention", {false});
  ModelConfig config;
  config.vocabulary = file.size("vocab_size");
  config.context = file.size("n_positions");
  config.layers = file.size("n_layer");
  config.width = file.size("n_embd");
  config.heads = config.kv_heads = file.size("n_head");
  config.mlp = file.size("n_inner", 4 * config.width);
  config.norm = Norm::layer;
  config.activation = Activation::gelu;
  config.positions = Positions::learned;
  config.bias = true;
  config.tied = file.flag("tie_word_embeddings", true);
  config.norm_epsilon = file.number("layer_norm_epsilon", 1e-5);
  config.dropout = file.number("resid_pdrop", 0.1);
  return config;
}

ModelConfig read_llama(const ConfigFile& file) {
  file.only("hidden_act", {"silu"});
  file.only("attention_bias", {false});
  file.only("mlp_bias", {false});
  file.only("sliding_window", {});
  file.only("partial_rotary_factor", {1, 1.0});
  ModelConfig config;
  config.vocabulary = file.size("vocab_size");
  config.context = file.size("max_position_embeddings");
  config.layers = file.size("num_hidden_layers");
  config.width = file.size("hidden_size");
  config.heads = file.size("num_attention_heads");
  config.kv_heads = file.size("num_key_value_heads", config.heads);
  config.head_size = file.size("head_dim", 0);
  config.mlp = file.size("intermediate_size");
  config.norm = Norm::rms;
  config.activation = Activation::swiglu;
  config.positions = Positions::rotary;
  config.bias = false;
  config.tied = file.flag("tie_word_embeddings", false);
  config.norm_epsilon = file.number("rms_norm_eps", 1e-6);
  config.rope_theta = file.rope_theta();
  return config;
}

bool is_gpt2(const ModelConfig& config) {
  return config.norm == Norm::layer && config.activation == Activation::gelu && config.positions == Positions::learned && config.bias &&
         config.kv_heads == config.heads && config.heads * config.head_size == config.width;
}

bool is_llama(const ModelConfig& config) {
  return config.norm == Norm::rms && config.activation == Activation::swiglu && config.positions == Positions::rotary && !config.bias;
}

void require_family(const ModelConfig& config) {
  require(is_gpt2(config) || is_llama(config),
          "this model is neither a GPT-2 (layer norm, gelu, learned positions, biases, kv_heads = heads, heads x head_size = width) nor a "
          "LLaMA (rms norm, swiglu, rotary positions, no biases), so Hugging Face has no format for it: {}",
          config.to_json());
}

}  // namespace

ModelConfig config_from_hugging_face(const std::string& text, const std::string& path) {
  const ConfigFile file(text, path);
  const std::string type = file.text("model_type", "missing");
  require(type == "gpt2" || type == "llama", "{}: \"model_type\" is {}, which is not supported: it must be gpt2 or llama", path, type);
  file.only("quantization_config", {});
  ModelConfig config = type == "gpt2" ? read_gpt2(file) : read_llama(file);
  if (config.head_size == 0) {
    require(config.heads > 0 && config.width % config.heads == 0, "{}: the width {} is not a multiple of the {} heads", path, config.width,
            config.heads);
    config.head_size = config.width / config.heads;
  }
  try {
    config.check();
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

std::string config_to_hugging_face(const ModelConfig& config, std::optional<std::int64_t> bos, std::optional<std::int64_t> eos) {
  config.check();
  require_family(config);
  Json json{{"vocab_size", config.vocabulary}, {"tie_word_embeddings", config.tied}, {"torch_dtype", "float32"}, {"use_cache", true}};
  json["bos_token_id"] = bos ? Json(*bos) : Json();
  json["eos_token_id"] = eos ? Json(*eos) : Json();
  if (is_gpt2(config)) {
    json.update({{"model_type", "gpt2"},
                 {"architectures", {"GPT2LMHeadModel"}},
                 {"activation_function", "gelu_new"},
                 {"n_positions", config.context},
                 {"n_layer", config.layers},
                 {"n_embd", config.width},
                 {"n_head", config.heads},
                 {"n_inner", config.mlp},
                 {"layer_norm_epsilon", config.norm_epsilon},
                 {"embd_pdrop", config.dropout},
                 {"resid_pdrop", config.dropout},
                 {"attn_pdrop", 0.0}});
  } else {
    json.update({{"model_type", "llama"},
                 {"architectures", {"LlamaForCausalLM"}},
                 {"hidden_act", "silu"},
                 {"max_position_embeddings", config.context},
                 {"num_hidden_layers", config.layers},
                 {"hidden_size", config.width},
                 {"num_attention_heads", config.heads},
                 {"num_key_value_heads", config.kv_heads},
                 {"head_dim", config.head_size},
                 {"intermediate_size", config.mlp},
                 {"rms_norm_eps", config.norm_epsilon},
                 {"rope_theta", config.rope_theta},
                 {"attention_bias", false},
                 {"mlp_bias", false}});
  }
  return json.dump(2) + "\n";
}

namespace {

void add_gpt2_block(std::vector<HuggingFaceTensor>& tensors, const ModelConfig& config, std::int64_t layer) {
  const std::string theirs = fmt::format("transformer.h.{}.", layer), ours = fmt::format("block.{}.", layer);
  const std::int64_t width = config.width, mlp = config.mlp;
  const auto norm = [&](const char* name, const char* our_name) {
    tensors.push_back({theirs + name + ".weight", {width}, false, {ours + our_name + ".gain"}});
    tensors.push_back({theirs + name + ".bias", {width}, false, {ours + our_name + ".bias"}});
  };
  const auto linear = [&](const char* name, std::int64_t in, std::int64_t out, std::vector<std::string> our_names) {
    HuggingFaceTensor weight{theirs + name + ".weight", {in, out}, true, {}}, bias{theirs + name + ".bias", {out}, false, {}};
    for (const std::string& our_name : our_names) {
      weight.parts.push_back(ours + our_name + ".weight");
      bias.parts.push_back(ours + our_name + ".bias");
    }
    tensors.push_back(std::move(weight));
    tensors.push_back(std::move(bias));
  };
  norm("ln_1", "norm1");
  linear("attn.c_attn", width, 3 * width, {"query", "key", "value"});
  linear("attn.c_proj", width, width, {"output"});
  norm("ln_2", "norm2");
  linear("mlp.c_fc", width, mlp, {"up"});
  linear("mlp.c_proj", mlp, width, {"down"});
}

void add_llama_block(std::vector<HuggingFaceTensor>& tensors, const ModelConfig& config, std::int64_t layer) {
  const std::string theirs = fmt::format("model.layers.{}.", layer), ours = fmt::format("block.{}.", layer);
  const std::int64_t width = config.width, query = config.heads * config.head_size, key = config.kv_heads * config.head_size;
  const auto add = [&](const char* name, Shape shape, const char* our_name) {
    tensors.push_back({theirs + name + ".weight", shape, false, {ours + our_name}});
  };
  add("input_layernorm", {width}, "norm1.gain");
  add("self_attn.q_proj", {query, width}, "query.weight");
  add("self_attn.k_proj", {key, width}, "key.weight");
  add("self_attn.v_proj", {key, width}, "value.weight");
  add("self_attn.o_proj", {width, query}, "output.weight");
  add("post_attention_layernorm", {width}, "norm2.gain");
  add("mlp.gate_proj", {config.mlp, width}, "gate.weight");
  add("mlp.up_proj", {config.mlp, width}, "up.weight");
  add("mlp.down_proj", {width, config.mlp}, "down.weight");
}

std::string without_prefix(const std::string& name) {
  for (const char* prefix : {"transformer.", "model."})
    if (name.starts_with(prefix)) return name.substr(std::string_view(prefix).size());
  return name;
}

/// Buffers of older transformers versions, which hold no parameters: "h.3.attn.bias" (a mask; "h.3.attn.c_attn.bias" is not one).
bool is_buffer(const std::string& name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace

Shape HuggingFaceTensor::part_shape() const {
  const std::int64_t count = static_cast<std::int64_t>(parts.size());
  if (shape.rank() == 1) return {shape[0] / count};
  return transposed ? Shape{shape[1] / count, shape[0]} : Shape{shape[0] / count, shape[1]};
}

std::vector<HuggingFaceTensor> hugging_face_tensors(const ModelConfig& config) {
  config.check();
  require_family(config);
  std::vector<HuggingFaceTensor> tensors;
  const Shape table{config.vocabulary, config.width};
  if (is_gpt2(config)) {
    tensors.push_back({"transformer.wte.weight", table, false, {"embedding.weight"}});
    tensors.push_back({"transformer.wpe.weight", {config.context, config.width}, false, {"position.weight"}});
    for (std::int64_t layer = 0; layer < config.layers; ++layer) add_gpt2_block(tensors, config, layer);
    tensors.push_back({"transformer.ln_f.weight", {config.width}, false, {"final_norm.gain"}});
    tensors.push_back({"transformer.ln_f.bias", {config.width}, false, {"final_norm.bias"}});
  } else {
    tensors.push_back({"model.embed_tokens.weight", table, false, {"embedding.weight"}});
    for (std::int64_t layer = 0; layer < config.layers; ++layer) add_llama_block(tensors, config, layer);
    tensors.push_back({"model.norm.weight", {config.width}, false, {"final_norm.gain"}});
  }
  if (!config.tied) tensors.push_back({"lm_head.weight", table, false, {"head.weight"}});
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
    for (std::int64_t column = 0; column < columns; ++column)
      ours[row * columns + column] = stored[column * all_rows + part * rows + row];
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
    for (std::int64_t row = 0; row < rows; ++row)
      stored[column * all_rows + part * rows + row] = ours[row * columns + column];
}

std::vector<std::size_t> match_hugging_face(const std::vector<HuggingFaceTensor>& wanted,
                                            const std::vector<std::pair<std::string, Shape>>& found, const std::string& path) {
  std::map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto [place, is_new] = places.emplace(without_prefix(found[i].first), i);
    require(is_new, "{} holds both {} and {}, which name the same tensor", path, found[place->second].first, found[i].first);
  }
  std::vector<std::size_t> matches;
  for (const HuggingFaceTensor& tensor : wanted) {
    const auto place = places.find(without_prefix(tensor.name));
    require(place != places.end(), "{} lacks the tensor {} of shape {}: is it complete, and does config.json belong to it?", path,
            tensor.name, tensor.shape.text());
    const auto& [name, shape] = found[place->second];
    require(shape == tensor.shape, "{}: the tensor {} has the shape {}, but config.json asks for {}", path, name, shape.text(),
            tensor.shape.text());
    matches.push_back(place->second);
    places.erase(place);
  }
  for (const auto& [name, index] : places)
    require(is_buffer(name) || name == "lm_head.weight", "{} holds the tensor {} of shape {}, which this model does not have", path,
            found[index].first, found[index].second.text());
  return matches;
}

}  // namespace collimate
