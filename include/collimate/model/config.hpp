#pragma once
#include <cstdint>
#include <string>

namespace collimate {

enum class Norm { rms, layer };
enum class Activation { swiglu, gelu };
enum class Positions { rotary, learned };

/// The numbers that define a Transformer. GPT-2 and LLaMA are two settings of it.
struct ModelConfig {
  std::int64_t vocabulary = 0;  ///< V
  std::int64_t context = 0;     ///< T, the most tokens of a sequence
  std::int64_t layers = 0;      ///< L
  std::int64_t width = 0;       ///< C
  std::int64_t heads = 0;       ///< H, query heads
  std::int64_t kv_heads = 0;    ///< key/value heads; divides H
  std::int64_t head_size = 0;   ///< D; C need not be H * D
  std::int64_t mlp = 0;         ///< M, inner width of the MLP
  Norm norm = Norm::rms;
  Activation activation = Activation::swiglu;
  Positions positions = Positions::rotary;
  bool bias = false;  ///< linear layers have biases
  bool tied = true;   ///< the head is the embedding
  double norm_epsilon = 1e-5;
  double rope_theta = 10000;
  double dropout = 0;  ///< on the embedding and both residual branches

  bool operator==(const ModelConfig&) const = default;
  void check() const;                  ///< throws an input error in one sentence where the numbers do not fit together
  std::int64_t parameters() const;     ///< of the language model, a tied head counted once
  std::string to_json() const;         ///< one line; from_json(to_json()) is equal
  static ModelConfig from_json(const std::string& text);
};

// Names and global shapes of the parameters, used in every store, checkpoint and message (B T C H D V L M as above):
//   embedding.weight [V,C]   position.weight [T,C] (learned)
//   block.<i>.norm1.gain [C]  block.<i>.norm1.bias [C] (layer norm)
//   block.<i>.query.weight [H*D,C]  block.<i>.key.weight [Hkv*D,C]  block.<i>.value.weight [Hkv*D,C]   (+ .bias)
//   block.<i>.output.weight [C,H*D]  (+ .bias)
//   block.<i>.norm2.gain, .bias
//   block.<i>.gate.weight [M,C] (SwiGLU)  block.<i>.up.weight [M,C] (+ .bias)  block.<i>.down.weight [C,M] (+ .bias)
//   final_norm.gain [C], .bias   head.weight [V,C] (untied)   value_head.weight [1,C], value_head.bias [1]

}  // namespace collimate
