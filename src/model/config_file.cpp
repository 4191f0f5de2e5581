#include "model/config_file.hpp"

#include <algorithm>
#include <iterator>
#include <sstream>

#include "collimate/base/error.hpp"

namespace collimate {

using Json = nlohmann::json;

ConfigFile::ConfigFile(const std::string& text, const std::string& path) : path_(path) {
  try {
    json_ = Json::parse(text);
  } catch (const Json::parse_error& error) {
    fail("{} is not valid JSON at byte {}: is the file complete?", path, error.byte);
  } catch (const Json::out_of_range&) {
    fail("{} has a number beyond the range of JSON readers: correct it", path);
  }
  require(json_.is_object(), "{} is not a JSON object, so it is not the config.json of a model", path);
}

bool ConfigFile::named(const char* key) const {
  asked_.insert(key);
  return json_.contains(key);
}

bool ConfigFile::has(const char* key) const { return named(key) && !json_[key].is_null(); }

std::int64_t ConfigFile::size(const char* key) const {
  require(has(key), "{} has no key \"{}\", which gives a size of the model", path_, key);
  require(json_[key].is_number_integer(), "{}: \"{}\" is {}, not a whole number", path_, key, json_[key].dump());
  return json_[key].get<std::int64_t>();
}

std::int64_t ConfigFile::size(const char* key, std::int64_t otherwise) const { return has(key) ? size(key) : otherwise; }

double ConfigFile::number(const char* key, double otherwise) const {
  if (!has(key)) return otherwise;
  require(json_[key].is_number(), "{}: \"{}\" is {}, not a number", path_, key, json_[key].dump());
  return json_[key].get<double>();
}

bool ConfigFile::flag(const char* key, bool otherwise) const {
  if (!has(key)) return otherwise;
  require(json_[key].is_boolean(), "{}: \"{}\" is {}, neither true nor false", path_, key, json_[key].dump());
  return json_[key].get<bool>();
}

std::string ConfigFile::text(const char* key, const std::string& otherwise) const {
  if (!has(key)) return otherwise;
  require(json_[key].is_string(), "{}: \"{}\" is {}, not a text", path_, key, json_[key].dump());
  return json_[key].get<std::string>();
}

std::optional<std::int64_t> ConfigFile::id(const char* key) const {
  if (!has(key)) return std::nullopt;
  const Json& value = json_[key].is_array() && !json_[key].empty() ? json_[key][0] : json_[key];
  require(value.is_number_integer(), "{}: \"{}\" is {}, not a token id", path_, key, json_[key].dump());
  return value.get<std::int64_t>();
}

std::size_t ConfigFile::listed(const char* key) const { return !has(key) ? 0 : json_[key].is_array() ? json_[key].size() : 1; }

std::vector<std::string> ConfigFile::texts(const char* key) const {
  if (!has(key)) return {};
  const bool right = json_[key].is_array() && std::ranges::all_of(json_[key], [](const Json& each) { return each.is_string(); });
  require(right, "{}: \"{}\" is {}, not a list of texts", path_, key, json_[key].dump());
  return json_[key].get<std::vector<std::string>>();
}

void ConfigFile::only(const char* key, const std::vector<Json>& allowed) const {
  if (!has(key) || std::find(allowed.begin(), allowed.end(), json_[key]) != allowed.end()) return;
  std::string list;
  for (const Json& value : allowed) list += (list.empty() ? "" : " or ") + value.dump();
  fail("{}: \"{}\" is {}, which is not supported{}", path_, key, json_[key].dump(), list.empty() ? "" : ": it must be " + list);
}

namespace {

struct Rope {
  std::optional<double> theta;
  RopeScaling scaling;
};

double rope_number(const Json& rope, const char* name, const std::string& what) {
  require(rope.contains(name) && rope[name].is_number(), "{} needs a number \"{}\"", what, name);
  return rope[name].get<double>();
}

/// One of rope_scaling and rope_parameters. original: the context that stands beside them, which goes before; context: for where none is
/// named, as in transformers 5.
Rope rope_from(const Json& rope, const std::string& what, std::optional<std::int64_t> original, std::int64_t context) {
  require(rope.is_object(), "{}, which does not describe rotary positions", what);
  Rope read;
  const Json type = rope.value("rope_type", rope.value("type", Json("default")));
  std::vector<std::string> known{"rope_type", "type", "rope_theta", "partial_rotary_factor"};
  if (type == "linear" || type == "llama3") {
    read.scaling.type = type == "linear" ? RopeScaling::Type::linear : RopeScaling::Type::llama3;
    read.scaling.factor = rope_number(rope, "factor", what);
    known.push_back("factor");
  } else {
    require(type == "default", "{}, and scaled positions of the type {} are not supported: only linear and llama3 are", what, type.dump());
  }
  if (type == "llama3") {
    read.scaling.low_frequency = rope_number(rope, "low_freq_factor", what);
    read.scaling.high_frequency = rope_number(rope, "high_freq_factor", what);
    const bool named = rope.contains("original_max_position_embeddings");
    if (named) context = static_cast<std::int64_t>(rope_number(rope, "original_max_position_embeddings", what));
    read.scaling.original_context = original.value_or(context);
    known.insert(known.end(), {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
  }
  if (rope.contains("rope_theta") && !rope["rope_theta"].is_null()) read.theta = rope_number(rope, "rope_theta", what);
  for (const auto& [key, value] : rope.items()) {
    const bool off = value.is_null() || (key == "factor" && value == 1) || std::ranges::find(known, key) != known.end();
    require(off, "{}, and its key \"{}\" is not supported", what, key);
  }
  require(rope.value("partial_rotary_factor", Json(1)) == 1, "{}: positions that turn a part of each head only are not supported", what);
  return read;
}

}  // namespace

void ConfigFile::read_rope(ModelConfig& config) const {
  only("partial_rotary_factor", {1});
  config.rope_theta = number("rope_theta", 10000);
  std::optional<std::int64_t> original;
  if (has("original_max_position_embeddings")) original = size("original_max_position_embeddings");
  std::optional<Rope> first;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!has(key) || json_[key].empty()) continue;
    const std::string what = fmt::format("{}: \"{}\" is {}", path_, key, json_[key].dump());
    const Rope rope = rope_from(json_[key], what, original, config.context);
    require(!first || first->scaling == rope.scaling, "{}: rope_scaling and rope_parameters contradict each other; take one out", path_);
    first = rope;
    config.rope_scaling = rope.scaling;
    if (rope.theta) config.rope_theta = *rope.theta;
  }
}

void write_rope(const ModelConfig& config, Json& json) {
  const RopeScaling& scaling = config.rope_scaling;
  json["rope_theta"] = config.rope_theta;
  if (scaling.type == RopeScaling::Type::linear) json["rope_scaling"] = {{"type", "linear"}, {"factor", scaling.factor}};
  if (scaling.type == RopeScaling::Type::llama3)
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", scaling.factor},
                            {"low_freq_factor", scaling.low_frequency},
                            {"high_freq_factor", scaling.high_frequency},
                            {"original_max_position_embeddings", scaling.original_context}};
}

namespace {

/// Keys of any config.json that change no number of a forward: how it was made, trained, called or generated from.
const std::set<std::string>& known_harmless() {
  static const std::string words =
      "model_type architectures _name_or_path name_or_path auto_map transformers_version torch_dtype dtype _commit_hash "
      "_attn_implementation_autoset _attn_implementation_internal _flash_attn_2_enabled _pre_quantization_dtype "
      "unsloth_version unsloth_fixed model_name transformers.js_config is_llama_config torchscript tokenizer_class use_cache "
      "use_bfloat16 use_flash_attn use_flash_attention flash_attention gradient_checkpointing pretraining_tp "
      "chunk_size_feed_forward low_cpu_mem_usage reorder_and_upcast_attn output_attentions output_hidden_states output_scores "
      "output_router_logits return_dict return_dict_in_generate is_decoder tf_legacy_loss tie_last_hidden_states "
      "keys_to_ignore_at_inference n_ctx seq_length max_sequence_length model_max_length tokenizer_model_max_length "
      "num_labels id2label label2id problem_type finetuning_task task_specific_params prefix "
      "length_penalty max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups "
      "diversity_penalty temperature top_k top_p typical_p repetition_penalty no_repeat_ngram_size "
      "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences remove_invalid_values exponential_decay_length_penalty "
      "suppress_tokens begin_suppress_tokens special_tokens_map summary_activation summary_type summary_use_proj "
      "summary_proj_to_labels neftune_noise_alpha router_aux_loss_coef sequence_parallel tensor_parallel "
      "pad_vocab_size_multiple training_args";
  static const std::set<std::string> keys = [] {
    std::istringstream stream(words);
    return std::set<std::string>{std::istream_iterator<std::string>(stream), {}};
  }();
  return keys;
}

/// Keys that say in other words what our families do anyway.
const std::set<std::pair<std::string, Json>>& known_neutral() {
  static const std::set<std::pair<std::string, Json>> entries{{"use_mrope", false}, {"rope_interleaved", false}, {"is_causal", true},
                                                              {"causal", true},     {"use_rope", true},          {"use_rms_norm", true}};
  return entries;
}

bool contains_one_of(const std::string& key, std::initializer_list<const char*> words) {
  return std::ranges::any_of(words, [&](const char* word) { return key.find(word) != std::string::npos; });
}

/// What a key's name alone says: dropouts, initial values, token ids and ways of computing change no number of a forward.
bool harmless_by_name(const std::string& key) {
  if (known_harmless().contains(key) || contains_one_of(key, {"dropout", "pdrop", "initializer"})) return true;
  return std::ranges::any_of(std::initializer_list<const char*>{"_token_id", "_token_ids", "_implementation", "_version", "_init_std"},
                             [&](const char* end) { return key.ends_with(end); });
}

/// A value that turns an unknown key off: none, nothing, false or 0, where our families have nothing of that name to be turned off; and 1
/// for what numbers are multiplied by.
bool turned_off(const std::string& key, const Json& value) {
  if (known_neutral().contains({key, value}) || value.is_null() || (value.is_structured() && value.empty()) || value == "") return true;
  const bool factor = contains_one_of(key, {"multiplier", "scale", "scaling", "factor", "rotary_p"});
  if (factor) return value == 1;
  return (value == false || value == 0) && !contains_one_of(key, {"rope", "rotary", "causal", "rms_norm", "norm_before", "norm_first",
                                                                  "pre_norm", "gated", "glu", "position"});
}

}  // namespace

void ConfigFile::refuse_unknown(const std::vector<std::string>& harmless) const {
  for (const auto& [key, value] : json_.items()) {
    if (asked_.contains(key) || harmless_by_name(key) || std::ranges::find(harmless, key) != harmless.end()) continue;
    require(turned_off(key, value),
            "{}: the key \"{}\" ({}) is not known for this family, and may change the model's numbers; take it out if it does not", path_,
            key, value.dump().substr(0, 60));
  }
}

}  // namespace collimate
