#include "data/model_file_keys.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"

namespace collimate {
namespace {

using nlohmann::json;

/// What a key does here.
enum class Does {
  used,     ///< read by model_files.cpp
  nothing,  ///< carries nothing that changes ids, stops or texts here, whatever it says
  calls,    ///< a setting of one call of another program, which here stands on the command line or in the deck
  samples,  ///< changes what other programs sample, and is not applied here
  ids,      ///< changes ids in other programs, and is not applied here
};

/// In which files a key stands.
enum In : unsigned { tokenizer_config = 1, special_map = 2, generation = 4, anywhere = 7 };

struct Row {
  const char* key;
  unsigned in;
  Does does;
  const char* harmless = "";  ///< values, as JSON, with which the key changes nothing, separated by blanks; null is always one
};

constexpr Row rows[] = {
    // Which tokens play a part.
    {"bos_token", tokenizer_config | special_map, Does::used},
    {"eos_token", tokenizer_config | special_map, Does::used},
    {"pad_token", tokenizer_config | special_map, Does::used},
    {"unk_token", tokenizer_config | special_map, Does::used},
    {"additional_special_tokens", tokenizer_config | special_map, Does::used},
    {"extra_special_tokens", tokenizer_config | special_map, Does::used},
    {"added_tokens_decoder", tokenizer_config, Does::used},
    {"bos_token_id", generation, Does::used},
    {"eos_token_id", generation, Does::used},
    {"pad_token_id", generation, Does::used},
    // No language model that answers asks for these parts; their tokens are special by the tokenizer's own file.
    {"cls_token", tokenizer_config | special_map, Does::nothing},
    {"sep_token", tokenizer_config | special_map, Does::nothing},
    {"mask_token", tokenizer_config | special_map, Does::nothing},
    // How texts become ids.
    {"add_bos_token", tokenizer_config, Does::used},
    {"add_eos_token", tokenizer_config, Does::used},
    {"add_prefix_space", tokenizer_config, Does::used},
    {"legacy", tokenizer_config, Does::used},
    {"tokenizer_class", tokenizer_config, Does::used},
    {"collimate_file", tokenizer_config, Does::used},
    {"chat_template", tokenizer_config, Does::used},
    {"do_lower_case", tokenizer_config, Does::ids, "false"},
    {"fix_mistral_regex", tokenizer_config, Does::ids, "false"},
    {"add_dummy_prefix_space", tokenizer_config, Does::ids, "true"},
    {"sp_model_kwargs", tokenizer_config, Does::ids, "{}"},
    {"auto_map", tokenizer_config, Does::ids, "{}"},
    {"split_special_tokens", tokenizer_config, Does::nothing},  // what it asks for is the rule here
    {"use_default_system_prompt", tokenizer_config, Does::ids, "false"},
    // Decoding for people, limits and bookkeeping of other programs.
    {"clean_up_tokenization_spaces", tokenizer_config, Does::nothing},
    {"spaces_between_special_tokens", tokenizer_config, Does::nothing},
    {"errors", tokenizer_config, Does::nothing},
    {"model_max_length", tokenizer_config, Does::nothing},
    {"max_len", tokenizer_config, Does::nothing},
    {"model_input_names", tokenizer_config, Does::nothing},
    {"return_token_type_ids", tokenizer_config, Does::nothing},
    {"padding_side", tokenizer_config, Does::nothing},
    {"truncation_side", tokenizer_config, Does::nothing},
    {"name_or_path", tokenizer_config, Does::nothing},
    {"special_tokens_map_file", tokenizer_config, Does::nothing},
    {"tokenizer_file", tokenizer_config, Does::nothing},
    {"vocab_file", tokenizer_config, Does::nothing},
    {"merges_file", tokenizer_config, Does::nothing},
    {"processor_class", tokenizer_config, Does::nothing},
    {"transformers_version", anywhere, Does::nothing},
    {"_commit_hash", anywhere, Does::nothing},
    {"from_slow", tokenizer_config, Does::nothing},
    {"use_fast", tokenizer_config, Does::nothing},
    {"backend", tokenizer_config, Does::nothing},
    {"is_local", tokenizer_config, Does::nothing},
    {"local_files_only", tokenizer_config, Does::nothing},
    {"trust_remote_code", tokenizer_config, Does::nothing},
    {"device_map", tokenizer_config, Does::nothing},
    {"low_cpu_mem_usage", tokenizer_config, Does::nothing},
    {"torch_dtype", tokenizer_config, Does::nothing},
    {"max_length", tokenizer_config, Does::calls},
    {"stride", tokenizer_config, Does::calls, "0"},
    {"truncation", tokenizer_config, Does::calls, "false"},
    {"truncation_strategy", tokenizer_config, Does::calls},
    {"padding", tokenizer_config, Does::calls, "false"},
    {"pad_to_multiple_of", tokenizer_config, Does::calls},
    {"pad_token_type_id", tokenizer_config, Does::nothing},
    // How other programs generate.
    {"_from_model_config", generation, Does::nothing},
    {"use_cache", generation, Does::nothing},
    {"cache_implementation", generation, Does::nothing},
    {"return_dict_in_generate", generation, Does::nothing},
    {"output_attentions", generation, Does::nothing},
    {"output_hidden_states", generation, Does::nothing},
    {"output_scores", generation, Does::nothing},
    {"output_logits", generation, Does::nothing},
    {"decoder_start_token_id", generation, Does::nothing},
    {"do_sample", generation, Does::nothing},  // says which of the next three count
    {"temperature", generation, Does::calls, "1 1.0"},
    {"top_k", generation, Does::calls, "0"},
    {"top_p", generation, Does::calls, "1 1.0"},
    {"max_length", generation, Does::calls, "20"},
    {"max_new_tokens", generation, Does::calls},
    {"num_return_sequences", generation, Does::calls, "1"},
    {"num_beams", generation, Does::samples, "1"},
    {"num_beam_groups", generation, Does::samples, "1"},
    {"length_penalty", generation, Does::nothing},   // of beams
    {"early_stopping", generation, Does::nothing},   // of beams
    {"diversity_penalty", generation, Does::samples, "0 0.0"},
    {"repetition_penalty", generation, Does::samples, "1 1.0"},
    {"encoder_repetition_penalty", generation, Does::nothing},
    {"encoder_no_repeat_ngram_size", generation, Does::nothing},
    {"no_repeat_ngram_size", generation, Does::samples, "0"},
    {"min_length", generation, Does::samples, "0"},
    {"min_new_tokens", generation, Does::samples, "0"},
    {"min_p", generation, Does::samples, "0 0.0"},
    {"top_h", generation, Does::samples},
    {"typical_p", generation, Does::samples, "1 1.0"},
    {"epsilon_cutoff", generation, Does::samples, "0 0.0"},
    {"eta_cutoff", generation, Does::samples, "0 0.0"},
    {"penalty_alpha", generation, Does::samples},
    {"guidance_scale", generation, Does::samples, "1 1.0"},
    {"bad_words_ids", generation, Does::samples, "[]"},
    {"force_words_ids", generation, Does::samples, "[]"},
    {"constraints", generation, Does::samples},
    {"forced_bos_token_id", generation, Does::samples},
    {"forced_eos_token_id", generation, Does::samples},
    {"suppress_tokens", generation, Does::samples, "[]"},
    {"begin_suppress_tokens", generation, Does::samples, "[]"},
    {"sequence_bias", generation, Does::samples, "{}"},
    {"exponential_decay_length_penalty", generation, Does::samples},
    {"renormalize_logits", generation, Does::nothing},
    {"remove_invalid_values", generation, Does::nothing},
    {"stop_strings", generation, Does::samples, "[]"},
    {"watermarking_config", generation, Does::samples},
    {"token_healing", generation, Does::samples, "false"},
    {"dola_layers", generation, Does::samples},
    {"max_time", generation, Does::calls},
};

/// Settings that speed another program's generation up and leave its samples' distribution alone.
constexpr std::array speed = {"assistant_", "num_assistant_tokens", "prompt_lookup", "max_matching_ngram_size", "target_lookbehind",
                              "is_assistant", "compile_config", "disable_compile", "low_memory", "cache_config", "prefill_chunk_size",
                              "max_cache_len", "use_mtp", "speculation_type", "continuous_batching_config"};

const Row* row_of(const std::string& key, unsigned in) {
  const auto found = std::find_if(std::begin(rows), std::end(rows), [&](const Row& row) { return (row.in & in) != 0 && key == row.key; });
  return found == std::end(rows) ? nullptr : found;
}

bool harmless(const Row& row, const json& value) {
  if (value.is_null()) return true;
  const std::vector<std::string> values = split(row.harmless, ' ');
  return std::find(values.begin(), values.end(), value.dump()) != values.end();
}

/// Special tokens of models that see or hear: "image_token" and the like. As tokens they are what the tokenizer's file says.
bool is_further_part(const std::string& key, const json& value) {
  return key.ends_with("_token") && (value.is_string() || value.is_object() || value.is_null());
}

Does does_of(const std::string& key, const json& value, unsigned in, bool& known) {
  const Row* row = row_of(key, in);
  known = true;
  if (row != nullptr) return row->does != Does::used && harmless(*row, value) ? Does::nothing : row->does;
  if (in != generation && is_further_part(key, value)) return Does::nothing;
  if (in == generation && std::any_of(speed.begin(), speed.end(), [&](const char* word) { return key.starts_with(word); }))
    return Does::nothing;
  known = false;
  return Does::nothing;
}

}  // namespace

std::vector<std::string> look_at_keys(const std::string& file, const std::string& path, const json& content) {
  const unsigned in = file == "generation_config.json" ? generation : file == "special_tokens_map.json" ? special_map : tokenizer_config;
  std::vector<std::string> unknown;
  std::map<Does, std::vector<std::string>> skipped;
  for (const auto& [key, value] : content.items()) {
    bool known = false;
    const Does does = does_of(key, value, in, known);
    if (!known) unknown.push_back(key);
    else if (does != Does::used && does != Does::nothing) skipped[does].push_back(key);
  }
  std::vector<std::string> notes;
  const auto note = [&](Does does, const char* words) {
    if (skipped.contains(does)) notes.push_back(fmt::format("{}: {} {}", path, fmt::join(skipped[does], ", "), words));
  };
  note(Does::ids, "not applied: other programs may give other token ids");
  note(Does::samples, "not applied: other programs draw other samples with them");
  note(Does::calls, "not taken over: such settings stand on the command line and in the deck");
  if (!unknown.empty()) notes.push_back(fmt::format("{}: not known and not used: {}", path, fmt::join(unknown, ", ")));
  return notes;
}

}  // namespace collimate
