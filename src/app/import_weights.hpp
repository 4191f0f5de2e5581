#pragma once
#include <string>
#include <vector>

#include "collimate/io/safetensors.hpp"
#include "collimate/model/hugging_face.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// A Hugging Face folder and what its config.json says of the model.
struct ModelFolder {
  std::string folder, config_path, config_text;
  ModelConfig config;
};
ModelFolder open_model_folder(const std::string& folder);

/// The file or files of a folder's weights, in which every tensor of the model was found with its shape before any memory is asked for.
class WeightFiles {
 public:
  explicit WeightFiles(const ModelFolder& source);
  Head head() const { return value_ ? Head::value : Head::policy; }  ///< a reward model's files hold a value head
  std::string stored() const;                                        ///< the type that loses nothing: f32, bf16 or f16
  const std::vector<std::string>& notes() const { return notes_; }   ///< what was passed over, a sentence each
  void read(ParameterStore& store) const;                            ///< all values; a number that is not finite is an error

 private:
  void check_tied_head(const ModelFolder& source, std::size_t head) const;
  SafetensorsReader reader_;
  std::optional<ValueHeadName> value_;
  std::vector<HuggingFaceTensor> tensors_;
  std::vector<std::size_t> places_;  // in the file, of each tensor
  std::vector<std::string> notes_;
};

}  // namespace collimate
