#pragma once
#include <cstdint>
#include <string>

namespace collimate {

/// Makes the quickstart's data in a folder: the JSONL of write_example (data/example.hpp), a byte-level BPE trained on the training
/// text (tokenizer.json; `vocabulary` counts its special tokens), and with this one tokenizer and template the datasets
/// {sft,preference,prompts}.h5 and heldout-{sft,preference,prompts}.h5. Equal seeds give equal files. Returns a few lines to print.
std::string prepare_example(const std::string& folder, std::int64_t vocabulary, std::uint64_t seed);

}  // namespace collimate
