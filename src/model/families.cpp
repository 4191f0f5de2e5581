#include "collimate/model/families.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "model/family.hpp"

namespace collimate {
namespace {

using Json = nlohmann::json;

// ---- GPT-2

ModelConfig gpt2_settings() {
  ModelConfig config;
  config.family = "gpt2";
  config.norm = Norm::layer;
  config.activation = Activation::gelu;
  config.positions = Positions::learned;
  config.bias = Biases::all();
  return config;
}

void read_gpt2(const ConfigFile& file, ModelConfig& config) {
  file.only("activation_function", {"gelu_new", "gelu_pytorch_tanh", "gelu_fast"});  // one formula in three ways of writing
  file.only("scale_attn_weights", {true});
  file.only("scale_attn_by_inverse_layer_idx", {false});
  file.only("add_cross_attention", {false});
  config.vocabulary = file.size("vocab_size");
  config.context = file.size("n_positions");
  config.layers = file.size("n_layer");
  config.width = file.size("n_embd");
  config.heads = config.kv_heads = file.size("n_head");
  config.mlp = file.size("n_inner", 4 * config.width);
  config.tied = file.flag("tie_word_embeddings", true);
  config.norm_epsilon = file.number("layer_norm_epsilon", 1e-5);
  config.dropout = file.number("resid_pdrop", 0.1);
}

void write_gpt2(const ModelConfig& config, Json& json) {
  json.update({{"activation_function", "gelu_new"},
               {"n_positions", config.context},
               {"n_layer", config.layers},
               {"n_embd", config.width},
               {"n_head", config.heads},
               {"n_inner", config.mlp},
               {"layer_norm_epsilon", config.norm_epsilon},
               {"embd_pdrop", config.dropout},
               {"resid_pdrop", config.dropout},
               {"attn_pdrop", 0.0}});
}

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

void add_gpt2_tensors(const ModelConfig& config, std::vector<HuggingFaceTensor>& tensors) {
  tensors.push_back({"transformer.wte.weight", {config.vocabulary, config.width}, false, {"embedding.weight"}});
  tensors.push_back({"transformer.wpe.weight", {config.context, config.width}, false, {"position.weight"}});
  for (std::int64_t layer = 0; layer < config.layers; ++layer) add_gpt2_block(tensors, config, layer);
  tensors.push_back({"transformer.ln_f.weight", {config.width}, false, {"final_norm.gain"}});
  tensors.push_back({"transformer.ln_f.bias", {config.width}, false, {"final_norm.bias"}});
}

bool fits_gpt2(const ModelConfig& config) {
  return config.norm == Norm::layer && config.activation == Activation::gelu && config.positions == Positions::learned &&
         config.bias == Biases::all() && config.kv_heads == config.heads && config.heads * config.head_size == config.width;
}

// ---- LLaMA and its kin: rms norm, SwiGLU, rotary positions; they differ in biases and windows

ModelConfig llama_settings(const char* name, Biases bias) {
  ModelConfig config;
  config.family = name;
  config.bias = bias;
  return config;
}

/// kv_heads: what an absent num_key_value_heads means to transformers (0: as many as heads; null always means that).
void read_llama_sizes(const ConfigFile& file, ModelConfig& config, std::int64_t kv_heads) {
  file.only("hidden_act", {"silu", "swish"});
  config.vocabulary = file.size("vocab_size");
  config.context = file.size("max_position_embeddings");
  config.layers = file.size("num_hidden_layers");
  config.width = file.size("hidden_size");
  config.heads = file.size("num_attention_heads");
  config.kv_heads = file.size("num_key_value_heads", file.named("num_key_value_heads") || kv_heads == 0 ? config.heads : kv_heads);
  config.head_size = file.size("head_dim", 0);
  config.mlp = file.size("intermediate_size");
  config.tied = file.flag("tie_word_embeddings", false);
  config.norm_epsilon = file.number("rms_norm_eps", 1e-6);
  file.read_rope(config);
}

/// The window in which a token attends, in tokens with itself, is kept where it holds the whole context; a smaller one is refused.
void read_window(const ConfigFile& file, ModelConfig& config, std::int64_t window) {
  if (window == 0) return;
  require(window >= config.context,
          "{}: \"sliding_window\" is {} and the context is {}: a window that does not hold the whole context is not supported; set "
          "\"max_position_embeddings\" to {} to use the model up to there, where the window changes nothing",
          file.path(), window, config.context, window);
  config.sliding_window = window;
}

/// Whether any layer slides, by "layer_types"; otherwise: where there is no such key.
bool any_layer_slides(const ConfigFile& file, bool otherwise) {
  if (!file.has("layer_types")) return otherwise;
  bool slides = false;
  for (const std::string& type : file.texts("layer_types")) {
    require(type == "full_attention" || type == "sliding_attention", "{}: \"layer_types\" names {}, which is not supported", file.path(),
            type);
    slides |= type == "sliding_attention";
  }
  return slides;
}

void read_llama(const ConfigFile& file, ModelConfig& config) {
  read_llama_sizes(file, config, 0);
  config.bias.query_key_value = config.bias.output = file.flag("attention_bias", false);
  config.bias.mlp = file.flag("mlp_bias", false);
  const bool slides = any_layer_slides(file, true);
  read_window(file, config, slides ? file.size("sliding_window", 0) : 0);
  config.sliding_window = 0;  // a key of others, which says nothing here
}

void read_mistral(const ConfigFile& file, ModelConfig& config) {
  read_llama_sizes(file, config, 8);
  file.only("attention_bias", {false});
  file.only("mlp_bias", {false});
  const bool slides = any_layer_slides(file, true);
  const std::int64_t window = file.named("sliding_window") ? file.size("sliding_window", 0) : 4096;  // transformers' own value
  read_window(file, config, slides ? window : 0);
}

void read_qwen2(const ConfigFile& file, ModelConfig& config) {
  read_llama_sizes(file, config, 32);
  file.only("attention_bias", {true});
  file.only("qkv_bias", {true});
  file.only("mlp_bias", {false});
  const bool uses = file.flag("use_sliding_window", false);
  const std::int64_t window = file.named("sliding_window") ? file.size("sliding_window", 0) : 4096;
  const bool slides = any_layer_slides(file, file.size("max_window_layers", 28) < config.layers);
  read_window(file, config, uses && slides ? window : 0);
}

void write_llama_sizes(const ModelConfig& config, Json& json) {
  json.update({{"hidden_act", "silu"},
               {"max_position_embeddings", config.context},
               {"num_hidden_layers", config.layers},
               {"hidden_size", config.width},
               {"num_attention_heads", config.heads},
               {"num_key_value_heads", config.kv_heads},
               {"head_dim", config.head_size},
               {"intermediate_size", config.mlp},
               {"rms_norm_eps", config.norm_epsilon}});
  write_rope(config, json);
}

void write_llama(const ModelConfig& config, Json& json) {
  write_llama_sizes(config, json);
  json["attention_bias"] = config.bias.output;
  json["mlp_bias"] = config.bias.mlp;
}

Json window_of(const ModelConfig& config) { return config.sliding_window > 0 ? Json(config.sliding_window) : Json(); }

void write_mistral(const ModelConfig& config, Json& json) {
  write_llama_sizes(config, json);
  json["sliding_window"] = window_of(config);
}

void write_qwen2(const ModelConfig& config, Json& json) {
  write_llama_sizes(config, json);
  json["use_sliding_window"] = config.sliding_window > 0;
  json["sliding_window"] = window_of(config);
  json["max_window_layers"] = config.sliding_window > 0 ? 0 : config.layers;
}

void add_llama_block(std::vector<HuggingFaceTensor>& tensors, const ModelConfig& config, std::int64_t layer) {
  const std::string theirs = fmt::format("model.layers.{}.", layer), ours = fmt::format("block.{}.", layer);
  const std::int64_t width = config.width, query = config.heads * config.head_size, key = config.kv_heads * config.head_size;
  const auto norm = [&](const char* name, const char* our_name) {
    tensors.push_back({theirs + name + ".weight", {width}, false, {ours + our_name + ".gain"}});
  };
  const auto linear = [&](const char* name, std::int64_t out, std::int64_t in, const char* our_name, bool bias) {
    tensors.push_back({theirs + name + ".weight", {out, in}, false, {ours + our_name + ".weight"}});
    if (bias) tensors.push_back({theirs + name + ".bias", {out}, false, {ours + our_name + ".bias"}});
  };
  norm("input_layernorm", "norm1");
  linear("self_attn.q_proj", query, width, "query", config.bias.query_key_value);
  linear("self_attn.k_proj", key, width, "key", config.bias.query_key_value);
  linear("self_attn.v_proj", key, width, "value", config.bias.query_key_value);
  linear("self_attn.o_proj", width, query, "output", config.bias.output);
  norm("post_attention_layernorm", "norm2");
  linear("mlp.gate_proj", config.mlp, width, "gate", config.bias.mlp);
  linear("mlp.up_proj", config.mlp, width, "up", config.bias.mlp);
  linear("mlp.down_proj", width, config.mlp, "down", config.bias.mlp);
}

void add_llama_tensors(const ModelConfig& config, std::vector<HuggingFaceTensor>& tensors) {
  tensors.push_back({"model.embed_tokens.weight", {config.vocabulary, config.width}, false, {"embedding.weight"}});
  for (std::int64_t layer = 0; layer < config.layers; ++layer) add_llama_block(tensors, config, layer);
  tensors.push_back({"model.norm.weight", {config.width}, false, {"final_norm.gain"}});
}

bool is_llama_like(const ModelConfig& config) {
  return config.norm == Norm::rms && config.activation == Activation::swiglu && config.positions == Positions::rotary;
}
bool fits_llama(const ModelConfig& config) { return is_llama_like(config) && config.bias.query_key_value == config.bias.output; }
bool fits_mistral(const ModelConfig& config) { return is_llama_like(config) && config.bias == Biases{}; }
bool fits_qwen2(const ModelConfig& config) {
  return is_llama_like(config) && config.bias == Biases{.query_key_value = true, .output = false, .mlp = false};
}

// ---- The table

const std::vector<Family>& families() {
  static const std::vector<Family> table{
      {"gpt2", "GPT2", gpt2_settings(), read_gpt2, write_gpt2, add_gpt2_tensors, fits_gpt2, {}},
      {"llama",
       "Llama",
       llama_settings("llama", {}),
       read_llama,
       write_llama,
       add_llama_tensors,
       fits_llama,
       {"use_sliding_window", "max_window_layers"}},
      {"mistral", "Mistral", llama_settings("mistral", {}), read_mistral, write_mistral, add_llama_tensors, fits_mistral, {}},
      {"qwen2",
       "Qwen2",
       llama_settings("qwen2", {.query_key_value = true, .output = false, .mlp = false}),
       read_qwen2,
       write_qwen2,
       add_llama_tensors,
       fits_qwen2,
       {}},
  };
  return table;
}

const Family* find_family(const std::string& name) {
  const auto found = std::ranges::find(families(), name, &Family::name);
  return found == families().end() ? nullptr : &*found;
}

// ---- What is not supported

/// A family that we do not compute, the one of ours that is nearest to it, and what keeps it from being that one.
struct Stranger {
  const char *name, *nearest, *difference;
};

constexpr const char *experts = "its MLPs are mixtures of experts", *alibi = "it has ALiBi instead of positions",
                     *geglu = "its MLPs have GELU instead of SiLU gates, its norms multiply by 1 + gain, and its embedding is scaled",
                     *encoder = "it is not a text-only decoder";

constexpr Stranger strangers[] = {
    {"arcee", "llama", "its MLPs have squared ReLU instead of gates"},
    {"baichuan", "llama", "its queries, keys and values are one matrix (and the larger ones have ALiBi)"},
    {"bart", "gpt2", encoder},
    {"bert", "gpt2", encoder},
    {"bloom", "gpt2", alibi},
    {"chatglm", "llama", "it turns half of each head, and its matrices are fused"},
    {"codegen", "gpt2", "it has rotary positions, and attention and MLP side by side"},
    {"cohere", "llama", "attention and MLP stand side by side under one layer norm, and its logits are scaled"},
    {"cohere2", "llama", "attention and MLP stand side by side under one layer norm, and its logits are scaled"},
    {"dbrx", "llama", experts},
    {"deepseek_v2", "llama", "it has latent attention and mixtures of experts"},
    {"deepseek_v3", "llama", "it has latent attention and mixtures of experts"},
    {"ernie4_5", "llama", "it turns neighbouring pairs of each head"},
    {"exaone", "llama", "its tensors have other names"},
    {"exaone4", "llama", "it normalises queries and keys, and some layers have windows"},
    {"falcon", "gpt2", "it has rotary positions or ALiBi, shared key/value heads, and attention and MLP side by side"},
    {"gemma", "llama", geglu},
    {"gemma2", "llama", geglu},
    {"gemma3", "llama", geglu},
    {"gemma3_text", "llama", geglu},
    {"glm", "llama", "it turns half of each head, and gate and up are one matrix"},
    {"glm4", "llama", "it turns half of each head, and has two more norms in each block"},
    {"gpt_bigcode", "gpt2", "its query heads share one key/value head"},
    {"gpt_neo", "gpt2", "every second layer attends to a window, and its attention is not scaled"},
    {"gpt_neox", "gpt2", "it has rotary positions on a part of each head, and attention and MLP side by side"},
    {"gpt_oss", "llama", "it has mixtures of experts and attention sinks"},
    {"gptj", "gpt2", "it has rotary positions on a part of each head, and attention and MLP side by side"},
    {"granite", "llama", "its embedding, attention, residuals and logits have multipliers"},
    {"granitemoe", "llama", experts},
    {"helium", "llama", "it turns neighbouring pairs of each head"},
    {"internlm2", "llama", "its queries, keys and values are one matrix with names of its own"},
    {"llama4", "llama", "it has mixtures of experts, and some layers have no positions"},
    {"llama4_text", "llama", "it has mixtures of experts, and some layers have no positions"},
    {"llava", "llama", encoder},
    {"mamba", "llama", "it has no attention"},
    {"mamba2", "llama", "it has no attention"},
    {"ministral", "mistral", "some layers have windows and others have none"},
    {"mistral3", "mistral", encoder},
    {"mixtral", "mistral", experts},
    {"mpt", "gpt2", alibi},
    {"nemotron", "llama", "its MLPs have squared ReLU, and it turns half of each head"},
    {"olmo", "llama", "its norms are layer norms without gains"},
    {"olmo2", "llama", "its norms stand behind attention and MLP, and it normalises queries and keys"},
    {"olmo3", "llama", "its norms stand behind attention and MLP, and it normalises queries and keys"},
    {"olmoe", "llama", experts},
    {"openai-gpt", "gpt2", "its norms stand behind attention and MLP"},
    {"opt", "gpt2", "its MLPs have ReLU, and its positions begin at 2"},
    {"persimmon", "gpt2", "it has rotary positions on a part of each head and squared ReLU"},
    {"phi", "gpt2", "it has rotary positions on a part of each head, and attention and MLP side by side"},
    {"phi3", "mistral", "its queries, keys and values are one matrix, and so are gate and up"},
    {"phimoe", "mistral", experts},
    {"qwen", "qwen2", "its queries, keys and values are one matrix with names of its own"},
    {"qwen2_moe", "qwen2", experts},
    {"qwen2_vl", "qwen2", encoder},
    {"qwen2_5_vl", "qwen2", encoder},
    {"qwen3", "qwen2", "it normalises queries and keys, and has no biases"},
    {"qwen3_moe", "qwen2", "it has mixtures of experts, and normalises queries and keys"},
    {"recurrent_gemma", "llama", "most of its layers have no attention"},
    {"roberta", "gpt2", encoder},
    {"rwkv", "llama", "it has no attention"},
    {"seed_oss", "qwen2", "its biases are chosen one by one"},
    {"smollm3", "llama", "every fourth layer has no positions"},
    {"stablelm", "llama", "it has layer norms, and turns a part of each head"},
    {"starcoder2", "mistral", "it has layer norms, and its MLPs have GELU without gates"},
    {"t5", "gpt2", encoder},
    {"xglm", "gpt2", "its positions are waves, and its MLPs have the exact GELU"},
    {"xlnet", "gpt2", encoder},
};

}  // namespace

std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const Family& family : families()) names.push_back(family.name);
  return names;
}

ModelConfig of_family(const std::string& name) {
  const Family* family = find_family(name);
  require(family != nullptr, "there is no family of models called {}: there are {}", name, join(family_names(), ", "));
  return family->settings;
}

const Family& family_of(const ModelConfig& config) {
  const Family* family = find_family(config.family);
  require(family != nullptr && family->fits(config),
          "this model is not a {}: its norm, activation, positions, heads or biases are not that family's, so Hugging Face has no format for "
          "it: {}",
          config.family, config.to_json());
  return *family;
}

const Family& family_named(const std::string& type, const std::string& path) {
  if (const Family* family = find_family(type)) return *family;
  std::string name = type;
  std::ranges::replace(name, '-', '_');
  const auto stranger = std::ranges::find_if(strangers, [&](const Stranger& each) { return each.name == type || each.name == name; });
  const std::string ours = join(family_names(), ", ");
  require(stranger != std::end(strangers), "{}: \"model_type\" is {}, which is not supported: it must be one of {}", path, type, ours);
  fail("{}: \"model_type\" is {}, which is not supported; the nearest supported family is {}, but {} (supported: {})", path, type,
       stranger->nearest, stranger->difference, ours);
}

}  // namespace collimate
