#pragma once
#include <string>
#include <vector>

#include "collimate/model/config.hpp"
#include "collimate/model/pass.hpp"

namespace collimate {

/// The matrices of a block that may have an adapter, in the order in which a block's adapters are stored and numbered.
const std::vector<std::string>& adapter_targets();  // query, key, value, output, gate, up, down

/// Low-rank adapters (Hu et al., 2021): y = x W^T + scale dropout(x) A^T B^T with A [rank, in], B [out, rank] and scale = alpha / rank. The
/// model's own parameters are frozen. A starts with normal numbers of variance 1/in, B at 0.
struct LoraConfig {
  std::int64_t rank = 0;  ///< 0: no adapters
  double alpha = 16;
  double dropout = 0;                                     ///< of x, in supervised and reward training
  std::vector<std::string> targets = {"query", "value"};  ///< none: only a value head learns

  bool operator==(const LoraConfig&) const = default;
  bool on() const { return rank > 0; }
  float scale() const { return static_cast<float>(alpha / static_cast<double>(rank)); }
  bool has(const std::string& target) const;
  void check(const ModelConfig& config) const;  ///< throws an input error where they do not fit the model
};

/// Adds the adapters that a block's matrices shall have to the open chunk of their layout: <matrix>.lora_a and .lora_b, divided over the
/// shards as the matrix is. weights: the layout of the model's own parameters.
void declare_adapters(const LoraConfig& lora, const ParameterLayout& weights, const std::string& block, ParameterLayout& adapters);

/// What a block's adapters write and nobody keeps; flat, so many elements a row (but `shared`).
struct AdapterScratch {
  ShardTree tree;                ///< of tensors like u, or like a gradient that shards share
  Tensor u, du;                  ///< rank for each matrix of a group; du only for a backward
  std::vector<Tensor> partials;  ///< like u, per shard
  std::vector<Tensor> shared;    ///< per shard, the gradients of B of matrices that shards share; only for a backward
  Tensor part, dropped;          ///< the widest input or output; dropped only with dropout
  AdapterScratch rows(std::int64_t begin, std::int64_t count, std::int64_t all) const;  ///< those of some of the rows, for a decode
};

/// The widths of what a block's adapters write: see AdapterScratch.
struct AdapterWidths {
  std::int64_t group = 0, widest = 0, shared = 0;
};
AdapterScratch take_adapter_scratch(Arena& arena, std::int64_t rows, const LoraConfig& lora, const AdapterWidths& widths,
                                    const ShardTree& tree, bool backward);

/// One use of a block's adapters. lease: empty where they are off; pass: null where single tokens are decoded.
struct AdapterUse {
  const Lease& lease;
  const AdapterScratch& scratch;
  Stream& stream;
  const Pass* pass = nullptr;
};

/// The adapters of matrices that read the same rows x and whose outputs are divided over the shards: query, key and value; gate and up.
/// Nothing of the forward is kept: the backward forms u = scale dropout(x) A^T again.
class InAdapters {
 public:
  InAdapters(const LoraConfig& lora, int block) : lora_(lora), block_(block) {}
  /// columns: of the matrix in the product of each shard held; first_row: where shards share the matrix, the first of these columns in it.
  void add(const ParameterLayout& layout, const std::string& target, std::vector<Part> columns, std::vector<std::int64_t> first_row = {});
  AdapterWidths widths() const;

  void begin(Tensor x, const AdapterUse& use) const;             ///< u, alike for all shards; before the others
  void forward(Tensor y, int v, const AdapterUse& use) const;    ///< y_v += u B_v^T
  void backward(Tensor dy, int v, const AdapterUse& use) const;  ///< dB_v, and the shard's part of du
  /// du = sum over shards of dy_v B_v (numerics contract R2); dA = du^T dropout(x); dx += dropout(du A)
  void finish_backward(Tensor dx, Tensor x, const AdapterUse& use) const;

 private:
  struct Target {
    int number;
    View a;
    std::vector<View> b;  // per shard held, or one
    std::vector<Part> columns;
    std::vector<std::int64_t> first_row;
    bool shared() const { return !first_row.empty(); }
  };
  bool off(const AdapterUse& use) const { return targets_.empty() || !use.lease.value; }
  Tensor of(const Tensor& group, std::size_t t, std::int64_t rows) const;
  Tensor rows_of_shard(Tensor b, const Target& target, int v) const;
  Tensor shared_gradient(std::size_t t, int v, const AdapterUse& use) const;

  LoraConfig lora_;
  int block_;
  std::vector<Target> targets_;
};

/// The adapter of a matrix whose input is divided over the shards: output, or down.
class OutAdapter {
 public:
  OutAdapter(const LoraConfig& lora, const ParameterLayout& layout, int block, const std::string& target);
  AdapterWidths widths() const;

  void begin(Tensor x, int v, const AdapterUse& use) const;                ///< the shard's part of u = scale dropout(x) A^T
  void forward(Tensor y, const AdapterUse& use) const;                     ///< y += u B^T, after all shards have begun
  void begin_backward(Tensor dy, const AdapterUse& use) const;             ///< dB = dy^T u and du = scale dy B, after all shards have begun
  void backward(Tensor dx, Tensor x, int v, const AdapterUse& use) const;  ///< dA_v = du^T dropout(x_v); dx_v += dropout(du A_v)

 private:
  bool off(const AdapterUse& use) const { return a_.empty() || !use.lease.value; }
  Tensor sum(std::int64_t rows, const AdapterUse& use) const;
  LoraConfig lora_;
  int block_, number_ = 0;
  std::vector<View> a_;                     // per shard held
  std::vector<std::int64_t> first_column_;  // the column of x_v's first in dropout's count
  View b_;
};

}  // namespace collimate
