#pragma once
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "collimate/base/shape.hpp"
#include "collimate/model/config.hpp"

namespace collimate {

// How Hugging Face names and stores the models of our families (transformers, models/<family>). Pure functions: files are read and
// written by io/safetensors.hpp.

/// The model of a config.json. `path` is named in errors. A family that is not ours is refused with the nearest one; a key that would change
/// the numbers and that we do not compute, or do not know, by its name. `dropout` becomes resid_pdrop.
ModelConfig config_from_hugging_face(const std::string& text, const std::string& path);
/// The dropout of attention probabilities that a config.json asks for (attn_pdrop, attention_dropout). We compute none.
double attention_dropout_from_hugging_face(const std::string& text, const std::string& path);

/// Token ids that a config.json names; of a list of ends the first one counts.
struct HuggingFaceIds {
  std::optional<std::int64_t> bos, eos;
  std::size_t ends = 0;  ///< how many ends there are
};
HuggingFaceIds ids_from_hugging_face(const std::string& text, const std::string& path);

/// The config.json that transformers would write for this model; refuses one that is not of the family that it names. With a value head it is
/// that of a sequence classifier with one label, which is what transformers calls a reward model.
std::string config_to_hugging_face(const ModelConfig& config, std::optional<std::int64_t> bos, std::optional<std::int64_t> eos,
                                   Head head = Head::policy);

/// One tensor of a Hugging Face file and the parameters of ours (model/config.hpp) that lie in it.
struct HuggingFaceTensor {
  std::string name;                 ///< with the prefix that transformers writes: "transformer.h.0.attn.c_attn.weight"
  Shape shape;                      ///< as stored
  bool transposed = false;          ///< stored [in, out] (GPT-2's Conv1D) where ours is [out, in]
  std::vector<std::string> parts;   ///< ours: equal parts of the out axis, in this order (query, key, value of c_attn; else one)

  Shape part_shape() const;         ///< of each parameter in `parts`
};

/// How a file calls its value head: "score" (transformers), "v_head.summary" (TRL) and others.
struct ValueHeadName {
  std::string name = "score";
  bool bias = false;
};

/// All tensors of a model, sorted by name, which is the order in which a file holds them. A tied head is not stored.
std::vector<HuggingFaceTensor> hugging_face_tensors(const ModelConfig& config, Head head = Head::policy, const ValueHeadName& value = {});

/// Copies part `part` of a stored tensor to our layout, and back.
void unpack(const HuggingFaceTensor& tensor, int part, std::span<const float> stored, std::span<float> ours);
void pack(const HuggingFaceTensor& tensor, int part, std::span<const float> ours, std::span<float> stored);

/// The tensors of a file, by their names in it.
using FoundTensors = std::vector<std::pair<std::string, Shape>>;

/// Where the tensors of a model lie among those of a file.
struct HuggingFaceMatch {
  std::vector<std::size_t> places;       ///< of each wanted tensor
  std::optional<std::size_t> tied_head;  ///< a second copy of a tied embedding
  std::vector<std::string> notes;        ///< what of the names was left out, and which tensors were passed over: a sentence each
};

/// Finds the tensors of a model. Names may have other prefixes than those that transformers writes, as long as all of them have: wrappers of
/// frameworks ("_orig_mod.", "module.") and any one more are left out. Of a tied embedding either name will do. Buffers that hold no
/// parameters are passed over. A missing tensor, a surplus one or a wrong shape is an error naming tensor, file, expected and found shape.
HuggingFaceMatch match_hugging_face(const std::vector<HuggingFaceTensor>& wanted, const FoundTensors& found, const std::string& path);

/// The value head among a file's tensors, if it has one.
std::optional<ValueHeadName> value_head_in(const FoundTensors& found);
bool has_language_head(const FoundTensors& found);

}  // namespace collimate
