#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// A token that files beside a tokenizer add to it (added_tokens_decoder, added_tokens.json).
struct AddedTokenEntry {
  std::int32_t id = 0;
  std::string content;
  bool special = true, lstrip = false, rstrip = false, single_word = false, normalized = false;
};

/// The text of a special token, and the file that names it.
struct TokenName {
  std::string text, path;
};

/// A chat template as its folder gives it: Jinja source. Most folders have one, with the name "default".
struct ChatTemplateText {
  std::string name, text;
};

/// What stands beside a model's weights and its tokenizer: tokenizer_config.json, special_tokens_map.json, added_tokens.json,
/// generation_config.json, chat_template.jinja or .json, and the token ids of config.json. Files that are absent say nothing. An empty text
/// names nothing, as if its key were absent. What each key does is written in one table, src/data/file_keys.cpp.
struct ModelFiles {
  std::string folder;
  std::string tokenizer_class;                            ///< without the ending "Fast"; "" where no file names one
  std::optional<TokenName> bos, eos, pad, unknown;
  bool denies_bos = false;                                ///< "bos_token": null, and no other file names one
  std::string model_type;                                 ///< of config.json
  std::optional<bool> add_bos, legacy, add_prefix_space;
  bool fix_mistral_regex = false;                         ///< and the model is one of those for which transformers heeds it
  std::vector<AddedTokenEntry> added_tokens;              ///< by id
  std::vector<std::string> extra_special;                 ///< texts of further special tokens
  std::vector<ChatTemplateText> chat_templates;           ///< "default" first, if there is one
  std::optional<std::int64_t> bos_id, pad_id;             ///< of config.json, else of generation_config.json
  std::vector<std::int32_t> ends;                         ///< all ids that config.json and then generation_config.json name as ends of text
  std::string generation;                                 ///< generation_config.json without its token ids, "" where there is none
  std::string own_file;                                   ///< of several tokenizer files in the folder, the one that `export` made the others of
  std::vector<std::string> notes;                         ///< lines to print: what is not used, or not known

  const std::string* chat_template() const;               ///< the text of "default", or nothing
};

/// Reads the files in a folder, or beside a file. What would change ids and is not supported is refused in a sentence.
ModelFiles read_model_files(const std::string& path);

/// load_tokenizer() of tokenizer.hpp, which also takes tiktoken files (*.tiktoken, LLaMA 3's tokenizer.model), the class that a folder names for
/// vocab.json with merges.txt, and what it adds to a SentencePiece model ("legacy", "add_prefix_space", added tokens). `pattern` says how texts
/// are cut into words by a tiktoken file that does not show it otherwise: r50k, p50k, cl100k, o200k, llama3 or qwen.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path, const std::string& pattern);

/// save_tokenizer() of tokenizer.hpp, which also says whether other programs begin a text with BOS.
void save_tokenizer(const Tokenizer& tokenizer, const std::string& folder, bool add_bos);

/// Whether other programs put BOS before a text: as the post_processor of tokenizer.json says, where there is one; else as add_bos_token
/// does, else by the tokenizer's kind (SentencePiece models do, GPT-2's pairs of files do not). Never without a BOS.
bool adds_bos(const Tokenizer& tokenizer, const ModelFiles& files);
/// A line where add_bos_token says another thing than was done, or "".
std::string bos_told(const Tokenizer& tokenizer, const ModelFiles& files, bool added);

/// Of a folder that was written: a line where transformers does not read its tokenizer.json as it is, whatever tokenizer_config.json says,
/// or "".
std::string class_told(const std::string& folder);

/// All ids that end a text: the tokenizer's EOS (of none: nothing) first, then those that the files name and that are below `rows`.
std::vector<std::int32_t> ends_of_text(const Tokenizer* tokenizer, const ModelFiles& files, std::int64_t rows);

}  // namespace collimate
