#pragma once
#include <string>
#include <vector>

#include "collimate/model/hugging_face.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// A model that becomes files.
struct ExportedModel {
  ModelConfig config;  ///< its `stored` is the type of the files
  Head head;
  const ParameterStore& store;
  std::int64_t largest;  ///< bytes of data in a file
  std::vector<HuggingFaceTensor> tensors() const { return hugging_face_tensors(config, head); }
};

/// Writes config.json and the weights into a folder as Hugging Face stores them. bos, eos: token ids for config.json.
void write_model(const std::string& folder, const ExportedModel& model, std::optional<std::int64_t> bos, std::optional<std::int64_t> eos);

/// Reads what write_model wrote, and compares configuration, names, shapes and every bit.
void check_model(const std::string& folder, const ExportedModel& model);

/// Bytes of a size with a unit: 5GB, 500MB, 2GiB.
std::int64_t bytes_from(const std::string& size, const std::string& option);

}  // namespace collimate
