#pragma once
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "collimate/base/shape.hpp"
#include "collimate/model/config.hpp"

namespace collimate {

// How Hugging Face names and stores GPT-2 and LLaMA models (transformers, models/gpt2 and models/llama). Pure functions:
// files are read and written by io/safetensors.hpp.

/// The model of a config.json (model_type gpt2 or llama). `path` is named in errors. A key that would change the numbers and that
/// we do not compute (rope_scaling, attention_bias, another activation, ...) is refused. `dropout` becomes resid_pdrop.
ModelConfig config_from_hugging_face(const std::string& text, const std::string& path);
/// The dropout of attention probabilities that a config.json asks for (attn_pdrop, attention_dropout). We compute none.
double attention_dropout_from_hugging_face(const std::string& text, const std::string& path);

/// Token ids that a config.json names; of a list of ends the first one counts.
struct HuggingFaceIds {
  std::optional<std::int64_t> bos, eos;
  std::size_t ends = 0;  ///< how many ends there are
};
HuggingFaceIds ids_from_hugging_face(const std::string& text, const std::string& path);

/// The config.json that transformers would write for this model; refuses a mixture that is neither GPT-2 nor LLaMA.
std::string config_to_hugging_face(const ModelConfig& config, std::optional<std::int64_t> bos, std::optional<std::int64_t> eos);

/// One tensor of a Hugging Face file and the parameters of ours (model/config.hpp) that lie in it.
struct HuggingFaceTensor {
  std::string name;                 ///< with the prefix that transformers writes: "transformer.h.0.attn.c_attn.weight"
  Shape shape;                      ///< as stored
  bool transposed = false;          ///< stored [in, out] (GPT-2's Conv1D) where ours is [out, in]
  std::vector<std::string> parts;   ///< ours: equal parts of the out axis, in this order (query, key, value of c_attn; else one)

  Shape part_shape() const;         ///< of each parameter in `parts`
};

/// All tensors of a model, sorted by name, which is the order in which a file holds them. A tied head is not stored.
std::vector<HuggingFaceTensor> hugging_face_tensors(const ModelConfig& config);

/// Copies part `part` of a stored tensor to our layout, and back.
void unpack(const HuggingFaceTensor& tensor, int part, std::span<const float> stored, std::span<float> ours);
void pack(const HuggingFaceTensor& tensor, int part, std::span<const float> ours, std::span<float> stored);

/// Finds the tensors of a model among those of a file, whose names may lack the prefix "transformer." or "model.". Returns for
/// each of `wanted` its index in `found`. Mask buffers, old rotary tables and the second copy of a tied head (lm_head.weight, whose values
/// are not looked at) are passed over. A missing tensor, a surplus one or a wrong shape is an error naming tensor, file, expected and found
/// shape.
std::vector<std::size_t> match_hugging_face(const std::vector<HuggingFaceTensor>& wanted,
                                            const std::vector<std::pair<std::string, Shape>>& found, const std::string& path);

}  // namespace collimate
