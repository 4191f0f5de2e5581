#pragma once
#include <memory>
#include <string>

#include "collimate/data/model_files.hpp"

namespace collimate {

// Byte-level tokenizers in files that do not say how a text is cut into words: GPT-2's pair, and tiktoken's lists. A table of rows
// {names, expression, normal form, special tokens} says it for those that are known.

/// A tokenizer of vocab.json and merges.txt (parse_vocab_and_merges), cut as its class in `files` does, with the tokens that these add.
std::unique_ptr<Tokenizer> with_class_rules(std::unique_ptr<Tokenizer> pair, const ModelFiles& files, const std::string& name);

bool is_tiktoken(std::string_view bytes);  ///< lines of a token in base64 and its rank
/// The tokenizer of a tiktoken file. Its words are cut as `pattern` says ("cl100k", ...), else as the class in `files`, the file's name or
/// its number of tokens does; refused where none of them says it.
std::unique_ptr<Tokenizer> parse_tiktoken(const std::string& bytes, const std::string& path, const std::string& pattern, const ModelFiles& files);
/// How Qwen2's tokenizer cuts texts into words, behind NFC.
std::string_view qwen_expression();
/// The names of patterns, for messages.
std::string tiktoken_patterns();

}  // namespace collimate
