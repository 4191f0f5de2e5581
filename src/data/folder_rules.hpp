#pragma once
#include <string>

#include "collimate/data/model_files.hpp"

namespace collimate {

/// A tokenizer.json changed as transformers changes it by the files beside it: blanks before texts where the folder's class heeds
/// "add_prefix_space" and "legacy", tokens added, an old Mistral's expression mended. The same text where they change nothing; what they
/// say in vain is added to `notes`. `name` is the file.
std::string with_folder_rules(const std::string& text, const ModelFiles& files, const std::string& name, Notes& notes);

/// Adds those of `files.extra_special` that `tokenizer` lacks or does not find in texts to `files.added_tokens`: says whether there are
/// any.
bool add_extra_special(const Tokenizer& tokenizer, ModelFiles& files);

}  // namespace collimate
