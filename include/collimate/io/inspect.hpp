#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace collimate {

/// Titles and lines that tell people what the JSON of a checkpoint, given to CheckpointWriter::publish(), says.
using Sections = std::vector<std::pair<std::string, std::string>>;
using DescribeMeta = std::function<Sections(const std::string& meta)>;

/// Describes what is at `path` in lines for people: a checkpoint, a run folder, a Hugging Face model, a safetensors file or any HDF5 file
/// (datasets of `prepare`, parts of checkpoints). Throws if it is none of these or damaged. describe: without it the JSON itself is shown.
std::string inspect(const std::string& path, const DescribeMeta& describe = {});

}  // namespace collimate
