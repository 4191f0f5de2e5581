#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace collimate {

enum class Norm { rms, layer };
enum class Activation { swiglu, gelu };
enum class Positions { rotary, learned };

/// What a model's last layer gives.
enum class Head {
  policy,  ///< log-probabilities of tokens
  value    ///< one number per token
};

/// Which matrices of a block have a bias.
struct Biases {
  bool query_key_value = false, output = false;  ///< of the attention
  bool mlp = false;                              ///< gate, up and down

  static Biases all() { return {true, true, true}; }
  bool operator==(const Biases&) const = default;
};

/// Rotary frequencies slowed down for contexts longer than those of the first training.
struct RopeScaling {
  enum class Type {
    none,
    linear,  ///< all by `factor` (Chen et al., 2023)
    llama3   ///< by `factor` where a turn takes more than original_context / low_frequency tokens, not at all where it takes fewer than
             ///< original_context / high_frequency, and between the two in between
  };
  Type type = Type::none;
  double factor = 1, low_frequency = 1, high_frequency = 4;
  std::int64_t original_context = 8192;

  bool operator==(const RopeScaling&) const = default;
};

/// The numbers that define a Transformer. GPT-2, LLaMA and the other families (families.hpp) are settings of it.
struct ModelConfig {
  std::string family = "llama";  ///< its name in families.hpp: what Hugging Face calls model_type; changes no number here
  std::int64_t vocabulary = 0;   ///< V
  std::int64_t context = 0;      ///< T, the most tokens of a sequence
  std::int64_t layers = 0;       ///< L
  std::int64_t width = 0;        ///< C
  std::int64_t heads = 0;        ///< H, query heads
  std::int64_t kv_heads = 0;     ///< key/value heads; divides H
  std::int64_t head_size = 0;    ///< D; C need not be H * D
  std::int64_t mlp = 0;          ///< M, inner width of the MLP
  Norm norm = Norm::rms;
  Activation activation = Activation::swiglu;
  Positions positions = Positions::rotary;
  Biases bias;
  bool tied = true;  ///< the head is the embedding
  double norm_epsilon = 1e-5;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  std::int64_t sliding_window = 0;  ///< that the model's files name (0: none); at least the context, so that it changes nothing
  std::string stored = "f32";       ///< type of the numbers in the files that the model came from: f32, bf16 or f16
  double dropout = 0;               ///< on the embedding and both residual branches

  bool operator==(const ModelConfig&) const = default;
  void check() const;               ///< throws an input error in one sentence where the numbers do not fit together
  std::int64_t parameters() const;  ///< of the language model, a tied head counted once
  std::string to_json() const;      ///< one line; from_json(to_json()) is equal
  static ModelConfig from_json(const std::string& text);
};

/// The rotation per token of the pairs (i, i + D/2) of a head, in radians: theta^(-2i/D), scaled. [D/2]
std::vector<double> rope_frequencies(const ModelConfig& config);

// Names and global shapes of the parameters, used in every store, checkpoint and message (B T C H D V L M as above):
//   embedding.weight [V,C]   position.weight [T,C] (learned)
//   block.<i>.norm1.gain [C]  block.<i>.norm1.bias [C] (layer norm)
//   block.<i>.query.weight [H*D,C]  block.<i>.key.weight [Hkv*D,C]  block.<i>.value.weight [Hkv*D,C]   (+ .bias)
//   block.<i>.output.weight [C,H*D]  (+ .bias)
//   block.<i>.norm2.gain, .bias
//   block.<i>.gate.weight [M,C] (SwiGLU)  block.<i>.up.weight [M,C] (+ .bias)  block.<i>.down.weight [C,M] (+ .bias)
//   final_norm.gain [C], .bias   head.weight [V,C] (untied)   value_head.weight [1,C], value_head.bias [1]

}  // namespace collimate
