#pragma once
#include <string>

namespace collimate {

/// Describes what is at `path` in lines for people: a checkpoint, a run folder, a Hugging Face model, a safetensors file or any HDF5 file
/// (datasets of `prepare`, parts of checkpoints). Throws if it is none of these or damaged.
std::string inspect(const std::string& path);

}  // namespace collimate
