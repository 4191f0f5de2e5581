#pragma once
#include <memory>
#include <vector>

#include "collimate/kernels/attention.hpp"
#include "collimate/model/config.hpp"
#include "collimate/model/pass.hpp"

namespace collimate {

// Shapes: R rows of a grain, C width, H heads, D head size, M MLP width, v a virtual shard.

/// The result of normalising rows, kept for the backward.
struct NormSaved {
  Tensor y, mean, rstd;  ///< [R,C], [R] (layer norm), [R]
};

/// RMSNorm or LayerNorm over the columns of a row.
class NormLayer {
 public:
  NormLayer(const ModelConfig& config, const ParameterLayout& layout, const std::string& name);
  static void declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name);
  NormSaved take(Arena& arena, std::int64_t rows) const;
  void forward(const NormSaved& saved, Tensor x, const Lease& lease, Stream& stream) const;  ///< writes saved.y
  /// dx += gradient with respect to x
  void backward(Tensor dx, Tensor dy, Tensor x, const NormSaved& saved, const Lease& lease, Stream& stream) const;

 private:
  Norm kind_;
  std::int64_t width_;
  float epsilon_;
  View gain_, bias_;
};

/// Buffers that a backward (or the shard tree of a forward) writes and nobody keeps.
struct Scratch {
  std::vector<Tensor> tree;  ///< log2(V) x [R,C]
  Tensor branch, norm;       ///< [R,C]; norm only for a backward
  Tensor wide, narrow;       ///< flat: R x the widest fused product of a shard, and R x its inner width; only for a backward
  Tensor delta;              ///< flat: R x the most heads of a shard; only for a backward
};

/// Multi-head causal self-attention with grouped key/value heads: y = softmax(q k^T / sqrt(D)) v Wo^T.
class AttentionLayer {
 public:
  struct Saved {
    std::vector<Tensor> qkv, out, lse;  ///< per shard: [R,columns], [R,H_v*D], [R,H_v]
  };
  AttentionLayer(const ModelConfig& config, const ParameterLayout& layout, const std::string& name);
  static void declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name);
  Saved take(Arena& arena, std::int64_t rows) const;
  void forward(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Tensor rotary, const Pass& pass,
               int layer) const;
  void backward(Tensor dx, Tensor dy, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Tensor rotary,
                const Pass& pass) const;
  /// One new token for each of B sequences at positions[B] in slots[B]: y[B,C] from x[B,C].
  void decode(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Tensor rotary, const KvCache& cache,
              int layer, Tensor slots, Tensor positions, Stream& stream) const;
  const std::vector<kernels::Heads>& heads() const { return heads_; }

 private:
  std::int64_t width_;
  bool rotary_;
  std::vector<kernels::Heads> heads_;
  std::vector<View> in_weight_, in_bias_, out_weight_;
  View out_bias_;
};

/// The gated (SwiGLU) or plain (GELU) MLP: y = activation(x Wup^T) Wdown^T.
class MlpLayer {
 public:
  struct Saved {
    std::vector<Tensor> up, inner;  ///< per shard: [R,M_v] or [R,2M_v]; [R,M_v]
  };
  MlpLayer(const ModelConfig& config, const ParameterLayout& layout, const std::string& name);
  static void declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name);
  Saved take(Arena& arena, std::int64_t rows) const;
  void forward(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Stream& stream) const;
  void backward(Tensor dx, Tensor dy, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Stream& stream) const;
  void decode(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Stream& stream) const;
  std::int64_t widest_up() const;
  std::int64_t widest_inner() const;

 private:
  Activation activation_;
  std::vector<std::int64_t> inner_;
  std::vector<View> up_weight_, up_bias_, down_weight_;
  View down_bias_;
};

/// One pre-norm block: mid = x + attention(norm1(x)); y = mid + mlp(norm2(mid)).
class Block {
 public:
  struct Saved {
    NormSaved norm1, norm2;
    AttentionLayer::Saved attention;
    MlpLayer::Saved mlp;
    Tensor mid;  ///< [R,C]
  };
  Block(const ModelConfig& config, const ParameterLayout& layout, int index);
  static void declare(const ModelConfig& config, ParameterLayout& layout, int index);
  Saved take(Arena& arena, std::int64_t rows) const;
  void forward(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Tensor rotary, const Pass& pass) const;
  /// Turns dy into dx in place.
  void backward(Tensor dy_dx, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Tensor rotary,
                const Pass& pass) const;
  void decode(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Tensor rotary, const KvCache& cache,
              Tensor slots, Tensor positions, Stream& stream) const;
  const AttentionLayer& attention() const { return attention_; }
  /// Widths of what a backward needs beside the rows: {widest fused product, widest inner, most heads} of a shard.
  struct Widths {
    std::int64_t fused, inner, heads;
  };
  Widths widths() const;

 private:
  int index_;
  NormLayer norm1_, norm2_;
  AttentionLayer attention_;
  MlpLayer mlp_;
};

/// What a model's last layer gives.
enum class Head {
  policy,  ///< log-probabilities of tokens
  value    ///< one number per token
};

/// Everything a forward keeps. In score mode all blocks share one set.
struct Activations {
  std::vector<Tensor> x;  ///< [R,C]: inputs of the blocks, then the input of the final norm
  std::vector<Block::Saved> blocks;
  NormSaved final_norm;
  Scratch scratch;
  Tensor gradient;                                                 ///< [R,C], flows backwards
  Activations rows(std::int64_t begin, std::int64_t count) const;  ///< those that a decode needs, for some of the rows
};

/// A decoder-only Transformer without its head: tokens -> normalised hidden states, and back.
class Transformer {
 public:
  Transformer(const ModelConfig& config, Head head, int shards, MemoryPlan& plan);

  const ModelConfig& config() const { return config_; }
  const ParameterLayout& layout() const { return layout_; }
  Head head() const { return head_; }
  int head_chunk() const { return head_chunk_; }  ///< a chunk, or the tie of the embedding

  enum class Keep { all, nothing };  ///< what a forward keeps for a backward
  Activations take(Arena& arena, std::int64_t rows, Keep keep) const;
  void prepare(Stream& stream) const;  ///< fills tables, once the plan is committed

  /// Hidden states [R,C] = activations.final_norm.y.
  Tensor forward(const Activations& activations, const ParameterStore& store, const Pass& pass) const;
  /// dhidden [R,C] = gradient of the hidden states; every gradient of the grain but the head's is written.
  void backward(Tensor dhidden, const Activations& activations, const ParameterStore& store, const Pass& pass) const;
  /// One token (tokens[B], positions[B]) for each sequence in slots[B]: hidden [B,C].
  Tensor decode(const Activations& activations, const ParameterStore& store, const KvCache& cache, Tensor tokens, Tensor slots,
                Tensor positions, Stream& stream) const;
  /// A cache of `slots` sequences of at most `capacity` tokens.
  KvCache take_cache(Arena& arena, std::int64_t slots, std::int64_t capacity) const;

 private:
  static ParameterLayout make_layout(const ModelConfig& config, Head head, int shards, int& head_chunk);
  Tensor rotary() const;
  int first_block() const { return config_.positions == Positions::learned ? 2 : 1; }
  int final_chunk() const { return first_block() + static_cast<int>(config_.layers); }
  void embed(Tensor x, const ParameterStore& store, Tensor tokens, Tensor positions, Stream& stream) const;
  ModelConfig config_;
  Head head_;
  int head_chunk_ = 0;
  ParameterLayout layout_;
  MemoryPlan* plan_;
  Slot rotary_;
  std::vector<Block> blocks_;
  NormLayer final_norm_;
};

}  // namespace collimate
