#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "collimate/kernels/attention.hpp"
#include "collimate/model/adapter.hpp"
#include "collimate/model/config.hpp"
#include "collimate/model/embedding.hpp"
#include "collimate/model/pass.hpp"

namespace collimate {

// Shapes: R rows of a grain, C width, H heads, D head size, M MLP width, v a virtual shard.

/// The parameters of a block while it is computed, and those of its adapters, empty where it has none or they are off.
struct BlockLease : Lease {
  Lease adapter;
};

/// The parameters that a Transformer computes with: the model's own and, where it has adapters and they are on, theirs.
struct ModelWeights {
  ModelWeights(ParameterStore& own, ParameterStore* adapters = nullptr) : own(own), adapters(adapters) {}  // NOLINT: a store is weights
  ParameterStore& own;
  ParameterStore* adapters;
};

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
  ShardTree tree;            ///< of tensors [R,C]
  ShardTree key_value;       ///< of the gradients of key/value weights that shards share; only for a backward
  std::vector<Tensor> dkey_value;  ///< per shard, flat: R x the columns of keys and values, where they are shared; only for a backward
  Tensor part;               ///< flat: R x the columns of query (or of key) heads of a shard, where key/value heads are shared
  Tensor branch, norm;       ///< [R,C]; norm only for a backward
  Tensor wide, narrow;       ///< flat: R x the widest fused product of a shard, and R x its inner width; only for a backward
  Tensor delta;              ///< flat: R x the most heads of a shard; only for a backward
  AdapterScratch adapter;
};

/// What is computed again in the backward instead of being kept: nothing; what is widest (the inputs of attention and activation, by two
/// products of a block); or everything but the input of a block. Changes no number.
enum class Recompute { none, selective, full };

/// Multi-head causal self-attention with grouped key/value heads: y = softmax(q k^T / sqrt(D)) v Wo^T. Where the shards would cut a group
/// of query heads, its key/value head is shared: it lies in the chunk's shared section, and its gradient is a sum over the shards.
class AttentionLayer {
 public:
  struct Saved {
    std::vector<Tensor> qkv, out, lse;  ///< per shard: [R,columns], [R,H_v*D], [R,H_v]
  };
  AttentionLayer(const ModelConfig& config, const ParameterLayout& layout, const LoraConfig& lora, const ParameterLayout& adapters, int block);
  static void declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name);
  Saved take(Arena& arena, std::int64_t rows) const;
  void take_scratch(Arena& arena, std::int64_t rows, bool backward, Scratch& scratch) const;
  void forward(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary, const Pass& pass,
               int layer) const;
  /// Computes saved.qkv again from x.
  void recompute_inner(Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary, const Pass& pass) const;
  void backward(Tensor dx, Tensor dy, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                const Pass& pass) const;
  /// One new token for each of B sequences at positions[B] in slots[B]: y[B,C] from x[B,C].
  void decode(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary, const KvCache& cache,
              int layer, const kernels::Ragged& slots, const kernels::Ragged& positions, Stream& stream) const;
  const std::vector<kernels::Heads>& heads() const { return heads_; }  ///< of this rank's shards
  std::vector<AdapterWidths> adapter_widths() const { return {in_.widths(), out_.widths()}; }

 private:
  struct Shared {  // where shards share key/value heads: query alone per shard, keys and values whole
    std::vector<View> query, query_bias;
    View weight[2], bias[2];  // key, value
  };
  template <class Product>
  void project(Tensor qkv, int v, const Lease& lease, const Scratch& scratch, Stream& stream, const Product& product) const;
  void backward_shared(Tensor partial, int v, Tensor dqkv, Tensor x, const Lease& lease, const Scratch& scratch, Stream& stream) const;
  void reduce_shared(Tensor x, const Lease& lease, const Scratch& scratch, Stream& stream) const;
  Tensor dkey_value(int v, int which, std::int64_t rows, const Scratch& scratch) const;

  std::int64_t width_;
  bool rotary_, bias_;  // bias_: of query, key and value
  std::vector<kernels::Heads> heads_;
  std::vector<View> in_weight_, in_bias_, out_weight_;
  std::optional<Shared> shared_;
  std::optional<View> out_bias_;
  InAdapters in_;
  OutAdapter out_;
};

/// The gated (SwiGLU) or plain (GELU) MLP: y = activation(x Wup^T) Wdown^T.
class MlpLayer {
 public:
  struct Saved {
    std::vector<Tensor> up, inner;  ///< per shard: [R,M_v] or [R,2M_v]; [R,M_v]
  };
  MlpLayer(const ModelConfig& config, const ParameterLayout& layout, const LoraConfig& lora, const ParameterLayout& adapters, int block);
  static void declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name);
  Saved take(Arena& arena, std::int64_t rows) const;
  /// saved.up and saved.inner again from x
  void recompute_inner(Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, const Pass& pass) const;
  void forward(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, const Pass& pass) const;
  void backward(Tensor dx, Tensor dy, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, const Pass& pass) const;
  void decode(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Stream& stream) const;
  std::vector<AdapterWidths> adapter_widths() const { return {in_.widths(), out_.widths()}; }
  std::int64_t widest_up() const;
  std::int64_t widest_inner() const;

 private:
  void inner(int v, Tensor x, const Saved& saved, const BlockLease& lease, const AdapterUse& use) const;
  Activation activation_;
  std::vector<std::int64_t> inner_;
  std::vector<View> up_weight_, up_bias_, down_weight_;
  std::optional<View> down_bias_;
  InAdapters in_;
  OutAdapter out_;
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
  Block(const ModelConfig& config, const ParameterLayout& layout, const LoraConfig& lora, const ParameterLayout& adapters, int index);
  static void declare(const ModelConfig& config, ParameterLayout& layout, int index, Presence presence);
  Saved take(Arena& arena, std::int64_t rows) const;
  /// What a block keeps that computes `how` again: its own buffers, and those of `shared` for the rest.
  Saved take(Arena& arena, std::int64_t rows, Recompute how, const Saved& shared) const;
  void recompute(Recompute how, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                 const Pass& pass) const;
  void forward(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary, const Pass& pass) const;
  /// Turns dy into dx in place.
  void backward(Tensor dy_dx, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                const Pass& pass) const;
  void decode(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary, const KvCache& cache,
              const kernels::Ragged& slots, const kernels::Ragged& positions, Stream& stream) const;
  const AttentionLayer& attention() const { return attention_; }
  /// Widths of what a backward needs beside the rows: {widest fused product, widest inner, most heads} of a shard.
  struct Widths {
    std::int64_t fused, inner, heads;
  };
  Widths widths() const;
  AdapterWidths adapter_widths() const;

 private:
  int index_;
  NormLayer norm1_, norm2_;
  AttentionLayer attention_;
  MlpLayer mlp_;
};

/// Everything a forward keeps. In score mode all blocks share one set.
struct Activations {
  std::vector<Tensor> x;  ///< [R,C]: inputs of this stage's blocks, then the input of the final norm (or of the next stage)
  std::vector<Block::Saved> blocks;
  NormSaved final_norm;
  Block::Saved again;  ///< what blocks that compute again share
  Scratch scratch;
  Tensor gradient;                                                 ///< [R,C], flows backwards
  Activations rows(std::int64_t begin, std::int64_t count) const;  ///< those that a decode needs, for some of the rows
};

/// Which blocks compute again: every `every`-th one.
struct RecomputePlan {
  Recompute how = Recompute::none;
  int every = 1;
  Recompute of(int block) const { return block % every == 0 ? how : Recompute::none; }
};

/// The blocks of a pipeline stage: contiguous, at least one each, so that the largest stage, by products, is as small as can be; the
/// head's products count on the last stage. Throws where there are more stages than blocks.
Part stage_blocks(const ModelConfig& config, Head head, int stage, int stages);

/// The units whose values a pass fetches, in order: from a model's own parameters, and from its adapters.
struct Route {
  std::vector<int> own, adapters;
};

/// A decoder-only Transformer without its head: tokens -> normalised hidden states, and back. On a grid, the part of it that a rank has:
/// its shards of the blocks of its stage.
class Transformer {
 public:
  /// longest: tokens of the longest sequence that it will see; 0: the context.
  Transformer(const ModelConfig& config, Head head, const Division& division, MemoryPlan& plan, RecomputePlan recompute = {},
              const LoraConfig& lora = {}, std::int64_t longest = 0);

  const ModelConfig& config() const { return config_; }
  const ParameterLayout& layout() const { return layout_; }
  /// Of the adapters: a chunk for each block and, where frozen parameters get a new value head, one for that.
  const ParameterLayout& adapter_layout() const { return adapter_layout_; }
  const LoraConfig& lora() const { return lora_; }
  const Division& division() const { return division_; }
  MemoryPlan& plan() const { return *plan_; }
  Head head() const { return head_; }
  const ParameterLayout& head_layout() const { return head_apart() ? adapter_layout_ : layout_; }
  int head_place() const { return head_chunk_; }                    ///< in head_layout(): the head's chunk, or the tie of the embedding
  ParameterStore& head_store(const ModelWeights& weights) const { return head_apart() ? *weights.adapters : weights.own; }
  ShardTree shard_tree() const;                   ///< without room
  std::size_t blocks() const { return blocks_.size(); }  ///< of this stage
  bool head_apart() const { return lora_.on() && head_ == Head::value; }  ///< a value head among the adapters
  const Route& forward_route() const { return forward_; }    ///< what forward() fetches on this stage
  const Route& backward_route() const { return backward_; }  ///< what backward() does

  enum class Keep { all, nothing };  ///< what a forward keeps for a backward
  /// like: activations of another grain, whose scratch and shared buffers these use too; they have no room for a gradient of their own.
  Activations take(Arena& arena, std::int64_t rows, Keep keep, const Activations* like = nullptr) const;
  void prepare(Stream& stream) const;  ///< fills tables, once the plan is committed

  /// One grain of a group.
  struct Grain {
    const Activations& activations;
    Pass pass;
    Tensor dhidden = {};  ///< [R,C], gradient of the hidden states; only for a backward, on the last stage
  };
  /// Block by block: each is computed for all grains of the group before the next one, so its values are fetched once. On all stages but the
  /// first a grain's activations.x[0] holds what the one before gave; output() is what it gives. A grain without rows computes nothing but
  /// takes part in what replicas do together.
  void forward(std::span<const Grain> group, const ModelWeights& weights) const;
  /// Hidden states [R,C] = activations.final_norm.y on the last stage; elsewhere what the next stage reads.
  Tensor output(const Activations& activations, std::int64_t rows) const;
  /// On the last stage from dhidden; elsewhere activations.gradient holds the gradient of what the next stage
  /// reads. Every gradient but the head's is written and reduced; activations.gradient becomes that of this stage's input.
  void backward(std::span<const Grain> group, const ModelWeights& weights) const;
  /// One token (tokens[B], positions[B]) for each sequence in slots[B]; the result is as output().
  Tensor decode(const Activations& activations, const ModelWeights& weights, const KvCache& cache, const kernels::Ragged& tokens,
                const kernels::Ragged& slots,
                const kernels::Ragged& positions, Stream& stream) const;
  /// A cache of `slots` sequences of at most `capacity` tokens.
  KvCache take_cache(Arena& arena, std::int64_t slots, std::int64_t capacity) const;

 private:
  static ParameterLayout make_layout(const ModelConfig& config, Head head, const Division& division, bool head_apart, int& head_chunk);
  ParameterLayout make_adapter_layout();
  Tensor rotary() const;
  int chunk_of_block(std::size_t i) const { return (config_.positions == Positions::learned ? 2 : 1) + static_cast<int>(mine_.begin + i); }
  int final_chunk() const { return (config_.positions == Positions::learned ? 2 : 1) + static_cast<int>(config_.layers); }
  int unit(int chunk) const { return static_cast<int>(layout_.units_of(chunk).begin); }  ///< of a chunk that is one
  int block_unit(std::size_t i) const { return unit(chunk_of_block(i)); }
  int adapter_unit(std::size_t i) const { return lora_.on() ? static_cast<int>(adapter_layout_.units_of(static_cast<int>(mine_.begin + i)).begin) : -1; }
  void make_routes();
  BlockLease fetch_block(const ModelWeights& weights, std::size_t i) const;
  std::vector<Embedding::Rows> embedded(std::span<const Grain> group, bool gradients) const;
  void drop(const Embedding::Rows& rows, const Pass& pass) const;
  ModelConfig config_;
  Head head_;
  Division division_;
  RecomputePlan recompute_;
  Part mine_;  // blocks of this stage
  LoraConfig lora_;
  int head_chunk_ = 0;  // a chunk, or the tie of the embedding
  Route forward_, backward_;
  ParameterLayout layout_, adapter_layout_;
  Embedding embedding_;
  MemoryPlan* plan_;
  std::int64_t longest_;
  Slot rotary_;
  std::vector<Block> blocks_;
  std::optional<NormLayer> final_norm_;
};

}  // namespace collimate
