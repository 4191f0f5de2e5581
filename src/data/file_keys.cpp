#include "data/file_keys.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"

namespace collimate {
namespace {

using nlohmann::json;

enum class Does { used, passed, refused };

struct Row {
  const char* key;
  unsigned of;  ///< KeysOf
  Does does;
  const char* why = "";       ///< of passed and refused keys
  const char* harmless = "";  ///< further values, as JSON, that say nothing, separated by blanks
};

constexpr const char* no_effect = "without effect here";
constexpr const char* of_calls = "such settings stand on the command line and in the deck";
constexpr const char* of_samples = "other programs draw other samples with them";
constexpr const char* of_chance = "it would give other ids every time; set it to null";
constexpr unsigned folder_files = tokenizer_config | special_tokens_map | generation_config;
constexpr unsigned any_model = bpe_model | unigram_model | wordpiece_model | wordlevel_model;

constexpr Row rows[] = {
    // Which tokens play a part.
    {"bos_token", tokenizer_config | special_tokens_map, Does::used},
    {"eos_token", tokenizer_config | special_tokens_map, Does::used},
    {"pad_token", tokenizer_config | special_tokens_map, Does::used},
    {"unk_token", tokenizer_config | special_tokens_map, Does::used},
    {"additional_special_tokens", tokenizer_config | special_tokens_map, Does::used},
    {"extra_special_tokens", tokenizer_config | special_tokens_map, Does::used},
    {"added_tokens_decoder", tokenizer_config, Does::used},
    {"bos_token_id", generation_config, Does::used},
    {"eos_token_id", generation_config, Does::used},
    {"pad_token_id", generation_config, Does::used},
    // No language model that answers asks for these parts; their tokens are special by the tokenizer's own file.
    {"cls_token", tokenizer_config | special_tokens_map, Does::passed, no_effect},
    {"sep_token", tokenizer_config | special_tokens_map, Does::passed, no_effect},
    {"mask_token", tokenizer_config | special_tokens_map, Does::passed, no_effect},
    // How texts become ids.
    {"add_bos_token", tokenizer_config, Does::used},
    {"add_eos_token", tokenizer_config, Does::passed, "--add-eos says whether responses end with EOS, and prompts never do"},
    {"add_prefix_space", tokenizer_config, Does::used},
    {"legacy", tokenizer_config, Does::used},
    {"tokenizer_class", tokenizer_config, Does::used},
    {"collimate_file", tokenizer_config, Does::used},
    {"chat_template", tokenizer_config, Does::used},
    {"do_lower_case", tokenizer_config, Does::passed, "the tokenizer's own file says whether letters become small"},
    {"fix_mistral_regex", tokenizer_config, Does::used},  // by folder_rules.cpp
    {"add_dummy_prefix_space", tokenizer_config, Does::passed, "the tokenizer's own file says where blanks are put", "true"},
    {"sp_model_kwargs", tokenizer_config, Does::passed, "a SentencePiece model is applied as its file says, without sampling"},
    {"auto_map", tokenizer_config, Does::passed, "Python programs of a folder are not run"},
    {"split_special_tokens", tokenizer_config, Does::passed, no_effect},  // what it asks for is the rule here
    {"use_default_system_prompt", tokenizer_config, Does::passed, "the chat template says whether there is a default system turn"},
    // Decoding for people, limits and bookkeeping of other programs.
    {"clean_up_tokenization_spaces", tokenizer_config, Does::passed, no_effect},
    {"spaces_between_special_tokens", tokenizer_config, Does::passed, no_effect},
    {"errors", tokenizer_config, Does::passed, no_effect},
    {"model_max_length", tokenizer_config, Does::passed, no_effect},
    {"max_len", tokenizer_config, Does::passed, no_effect},
    {"model_input_names", tokenizer_config, Does::passed, no_effect},
    {"return_token_type_ids", tokenizer_config, Does::passed, no_effect},
    {"padding_side", tokenizer_config, Does::passed, no_effect},
    {"truncation_side", tokenizer_config, Does::passed, no_effect},
    {"name_or_path", tokenizer_config, Does::passed, no_effect},
    {"special_tokens_map_file", tokenizer_config, Does::passed, no_effect},
    {"tokenizer_file", tokenizer_config, Does::passed, no_effect},
    {"vocab_file", tokenizer_config, Does::passed, no_effect},
    {"merges_file", tokenizer_config, Does::passed, no_effect},
    {"processor_class", tokenizer_config, Does::passed, no_effect},
    {"transformers_version", folder_files, Does::passed, no_effect},
    {"_commit_hash", folder_files, Does::passed, no_effect},
    {"from_slow", tokenizer_config, Does::passed, no_effect},
    {"use_fast", tokenizer_config, Does::passed, no_effect},
    {"backend", tokenizer_config, Does::passed, no_effect},
    {"is_local", tokenizer_config, Does::passed, no_effect},
    {"local_files_only", tokenizer_config, Does::passed, no_effect},
    {"trust_remote_code", tokenizer_config, Does::passed, no_effect},
    {"device_map", tokenizer_config, Does::passed, no_effect},
    {"low_cpu_mem_usage", tokenizer_config, Does::passed, no_effect},
    {"torch_dtype", tokenizer_config, Does::passed, no_effect},
    {"max_length", tokenizer_config, Does::passed, of_calls},
    {"stride", tokenizer_config, Does::passed, of_calls, "0"},
    {"truncation", tokenizer_config, Does::passed, of_calls, "false"},
    {"truncation_strategy", tokenizer_config, Does::passed, of_calls},
    {"padding", tokenizer_config, Does::passed, of_calls, "false"},
    {"pad_to_multiple_of", tokenizer_config, Does::passed, of_calls},
    {"pad_token_type_id", tokenizer_config, Does::passed, no_effect},
    // How other programs generate.
    {"_from_model_config", generation_config, Does::passed, no_effect},
    {"use_cache", generation_config, Does::passed, no_effect},
    {"cache_implementation", generation_config, Does::passed, no_effect},
    {"return_dict_in_generate", generation_config, Does::passed, no_effect},
    {"output_attentions", generation_config, Does::passed, no_effect},
    {"output_hidden_states", generation_config, Does::passed, no_effect},
    {"output_scores", generation_config, Does::passed, no_effect},
    {"output_logits", generation_config, Does::passed, no_effect},
    {"decoder_start_token_id", generation_config, Does::passed, no_effect},
    {"do_sample", generation_config, Does::passed, no_effect},  // says which of the next three count
    {"temperature", generation_config, Does::passed, of_calls, "1 1.0"},
    {"top_k", generation_config, Does::passed, of_calls, "0"},
    {"top_p", generation_config, Does::passed, of_calls, "1 1.0"},
    {"max_length", generation_config, Does::passed, of_calls, "20"},
    {"max_new_tokens", generation_config, Does::passed, of_calls},
    {"num_return_sequences", generation_config, Does::passed, of_calls, "1"},
    {"num_beams", generation_config, Does::passed, of_samples, "1"},
    {"num_beam_groups", generation_config, Does::passed, of_samples, "1"},
    {"length_penalty", generation_config, Does::passed, no_effect},   // of beams
    {"early_stopping", generation_config, Does::passed, no_effect},   // of beams
    {"diversity_penalty", generation_config, Does::passed, of_samples, "0 0.0"},
    {"repetition_penalty", generation_config, Does::passed, of_samples, "1 1.0"},
    {"encoder_repetition_penalty", generation_config, Does::passed, no_effect},
    {"encoder_no_repeat_ngram_size", generation_config, Does::passed, no_effect},
    {"no_repeat_ngram_size", generation_config, Does::passed, of_samples, "0"},
    {"min_length", generation_config, Does::passed, of_samples, "0"},
    {"min_new_tokens", generation_config, Does::passed, of_samples, "0"},
    {"min_p", generation_config, Does::passed, of_samples, "0 0.0"},
    {"top_h", generation_config, Does::passed, of_samples},
    {"typical_p", generation_config, Does::passed, of_samples, "1 1.0"},
    {"epsilon_cutoff", generation_config, Does::passed, of_samples, "0 0.0"},
    {"eta_cutoff", generation_config, Does::passed, of_samples, "0 0.0"},
    {"penalty_alpha", generation_config, Does::passed, of_samples},
    {"guidance_scale", generation_config, Does::passed, of_samples, "1 1.0"},
    {"bad_words_ids", generation_config, Does::passed, of_samples, "[]"},
    {"force_words_ids", generation_config, Does::passed, of_samples, "[]"},
    {"constraints", generation_config, Does::passed, of_samples},
    {"forced_bos_token_id", generation_config, Does::passed, of_samples},
    {"forced_eos_token_id", generation_config, Does::passed, of_samples},
    {"suppress_tokens", generation_config, Does::passed, of_samples, "[]"},
    {"begin_suppress_tokens", generation_config, Does::passed, of_samples, "[]"},
    {"sequence_bias", generation_config, Does::passed, of_samples, "{}"},
    {"exponential_decay_length_penalty", generation_config, Does::passed, of_samples},
    {"renormalize_logits", generation_config, Does::passed, no_effect},
    {"remove_invalid_values", generation_config, Does::passed, no_effect},
    {"stop_strings", generation_config, Does::passed, of_samples, "[]"},
    {"watermarking_config", generation_config, Does::passed, of_samples},
    {"token_healing", generation_config, Does::passed, of_samples, "false"},
    {"dola_layers", generation_config, Does::passed, of_samples},
    {"max_time", generation_config, Does::passed, of_calls},
    // tokenizer.json.
    {"version", tokenizer_json, Does::passed, no_effect, "\"1.0\""},
    {"truncation", tokenizer_json, Does::passed, "texts are cut by --max-prompt-tokens and --max-response-tokens alone"},
    {"padding", tokenizer_json, Does::passed, "samples are never padded"},
    {"added_tokens", tokenizer_json, Does::used},
    {"normalizer", tokenizer_json, Does::used},
    {"pre_tokenizer", tokenizer_json, Does::used},
    {"post_processor", tokenizer_json, Does::used},
    {"decoder", tokenizer_json, Does::used},
    {"model", tokenizer_json, Does::used},
    {"id", added_token, Does::used},
    {"content", added_token, Does::used},
    {"single_word", added_token, Does::used},
    {"lstrip", added_token, Does::used},
    {"rstrip", added_token, Does::used},
    {"normalized", added_token, Does::used},
    {"special", added_token, Does::used},
    {"type", any_model, Does::used},
    {"vocab", any_model, Does::used},
    {"merges", bpe_model, Does::used},
    {"unk_token", bpe_model | wordpiece_model | wordlevel_model, Does::used},
    {"unk_id", unigram_model, Does::used},
    {"fuse_unk", bpe_model, Does::used},
    {"byte_fallback", bpe_model | unigram_model, Does::used},
    {"ignore_merges", bpe_model, Does::used},
    {"continuing_subword_prefix", bpe_model | wordpiece_model, Does::used},
    {"end_of_word_suffix", bpe_model, Does::used},
    {"max_input_chars_per_word", wordpiece_model, Does::used},
    {"dropout", bpe_model, Does::refused, of_chance},
    {"alpha", unigram_model, Does::refused, of_chance},
    {"nbest_size", unigram_model, Does::refused, of_chance},
};

/// Settings that speed another program's generation up and leave its samples' distribution alone: keys that begin so.
constexpr std::array speed = {"assistant_", "num_assistant_tokens", "prompt_lookup", "max_matching_ngram_size", "target_lookbehind",
                              "is_assistant", "compile_config", "disable_compile", "low_memory", "cache_config", "prefill_chunk_size",
                              "max_cache_len", "use_mtp", "speculation_type", "continuous_batching_config"};

/// Special tokens of models that see or hear, "image_token" and the like: as tokens they are what the tokenizer's file says.
constexpr Row further_part = {"", tokenizer_config | special_tokens_map, Does::passed, no_effect};
constexpr Row of_speed = {"", generation_config, Does::passed, no_effect};
constexpr Row unknown = {"", folder_files, Does::passed, "not known"};
constexpr Row unknown_in_tokenizer = {
    "", 0, Does::refused, "no program that Collimate follows has such a key, and it could change the ids; take it out if it does not"};

const Row& row_of(const std::string& key, const json& value, KeysOf kind) {
  const auto found = std::find_if(std::begin(rows), std::end(rows), [&](const Row& row) { return (row.of & kind) != 0 && key == row.key; });
  if (found != std::end(rows)) return *found;
  if ((further_part.of & kind) != 0 && key.ends_with("_token") && (value.is_string() || value.is_object())) return further_part;
  const auto begins = [&](const char* word) { return key.starts_with(word); };
  if (kind == generation_config && std::any_of(speed.begin(), speed.end(), begins)) return of_speed;
  return (folder_files & kind) != 0 ? unknown : unknown_in_tokenizer;
}

bool says_something(const Row& row, const json& value) {
  const std::vector<std::string> values = split(row.harmless, ' ');
  return std::find(values.begin(), values.end(), value.dump()) == values.end();
}

}  // namespace

bool is_set(const json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null() || *found == false || *found == "") return false;
  return found->is_number() ? *found != 0.0 : !found->is_structured() || !found->empty();
}

Notes check_keys(const json& object, KeysOf kind, const std::string& place) {
  std::map<std::string, std::vector<std::string>> passed;  // by reason
  for (const auto& [key, value] : object.items()) {
    if (!is_set(object, key)) continue;
    const Row& row = row_of(key, value, kind);
    if (row.does == Does::used || !says_something(row, value)) continue;
    require(row.does != Does::refused, "{}: \"{}\" is not supported: {}", place, key, row.why);
    passed[row.why].push_back(key);
  }
  Notes notes;
  for (const auto& [why, keys] : passed) notes.push_back(fmt::format("{}: not used: {} ({})", place, fmt::join(keys, ", "), why));
  return notes;
}

}  // namespace collimate
