#pragma once
#include <functional>
#include <span>

#include "collimate/model/transformer.hpp"

namespace collimate {

/// A loss on log-probabilities, called for consecutive rows that have a target: reads log-probabilities and entropies, writes the gradient with
/// respect to both (0 for rows that do not count). Rows are those of the grain, from first_row on.
using TokenLoss = std::function<void(std::int64_t first_row, std::span<const float> logprob, std::span<const float> entropy,
                                     std::span<float> dlogprob, std::span<float> dentropy)>;
/// The same for several grains: `grain` is a place in the list given.
using GrainTokenLoss = std::function<void(std::size_t grain, std::int64_t first_row, std::span<const float> logprob,
                                          std::span<const float> entropy, std::span<float> dlogprob, std::span<float> dentropy)>;

/// How a head that learns goes over a grain. once: each block of 256 rows is computed, judged and turned into gradients while its logits are
/// there; all units of the table are leased meanwhile. twice: unit after unit, all log-probabilities of the group are computed and go to the
/// host in one copy, their gradients come back in one, and the logits of each unit are computed again; for tables that stream, for devices that
/// the host must not keep waiting, and for losses that see the whole grain. The same bits.
enum class Sweeps { once, twice };

/// Hidden states to log-probabilities: the rows that have a target are gathered, 256 at a time, so that prompts cost nothing here and the
/// R x V matrix of logits never exists. Each rank has its shards of the vocabulary, in units; per row, four numbers cross the ranks. Where a
/// grain has no rows the table is fetched all the same, for the other replicas.
class PolicyHead {
 public:
  /// G: grains of a group, of at most R rows; n: the rows of a sweep, 256 (once) or G*R.
  struct Buffers {
    std::vector<Tensor> logits;         ///< per unit [256, its rows]; but to learn once, all in one place
    std::vector<Lease> leases;          ///< per unit, the open ones
    std::vector<Tensor> statistics;     ///< [n,4], the result first, then one per level of the shard tree
    Tensor sums;                        ///< [n,2] f64, of a shard
    Tensor all_statistics;              ///< of all ranks that share the vocabulary
    ShardTree tree;                     ///< of tensors [n,C]; only to learn
    Tensor hidden;                      ///< [256,C], the gathered rows of a block
    Tensor dhidden;                     ///< [n,C], of gathered rows; only to learn
    Tensor rows, targets;               ///< [G*R] i32, where the gathered rows come from, and their targets
    Tensor logprob, entropy, lse;       ///< [G*R], of the gathered rows
    Tensor dlogprob, dentropy;          ///< [G*R]; only to learn
    std::vector<std::int32_t> host_rows, host_targets;  ///< the gathered rows; -1 in padding
    std::vector<float> host[4];                         ///< logprob, entropy and their gradients
    std::vector<Part> grains;                           ///< the gathered rows of each grain, with padding
    std::vector<std::int64_t> counts;                   ///< those of each grain without
  };
  /// A grain of a group.
  struct Grain {
    Tensor hidden;                            ///< [R,C]
    std::span<const std::int32_t> targets;    ///< [R] (host), or -1
    Tensor dhidden = {};                      ///< [R,C]; only to learn
  };
  PolicyHead(const Transformer& model, Sweeps sweeps);
  /// For groups of at most `grains` grains of at most `rows` rows.
  Buffers take(Arena& arena, std::int64_t grains, std::int64_t rows, Transformer::Keep keep) const;
  std::vector<int> scoring_route() const;   ///< the units that score, logits and decode fetch
  std::vector<int> learning_route() const;  ///< those of forward_backward

  /// What a score gives for a grain: logprob[R] and entropy[R]; 0 where there is no target.
  using Each = std::function<void(std::size_t grain, std::span<const float> logprob, std::span<const float> entropy)>;
  /// Log-probability and entropy of the targets under softmax(logits / temperature), of each grain that has rows.
  void score(std::span<const Grain> group, float temperature, Buffers& buffers, ParameterStore& store, Stream& stream, const Each& each) const;
  /// Writes dhidden[R,C] of each grain, and writes and reduces the gradient of the head's weight.
  void forward_backward(std::span<const Grain> group, float temperature, Buffers& buffers, ParameterStore& store, Stream& stream,
                        const GrainTokenLoss& loss) const;
  /// All logits of the rows (host, R x V, in vocabulary order); padding rows too. For one rank with the whole vocabulary.
  void logits(Tensor hidden, Buffers& buffers, ParameterStore& store, Stream& stream, std::span<float> out) const;
  /// logits[B,V] of few rows with the decode kernel, gathered in vocabulary order.
  void decode(Tensor logits, Tensor hidden, Tensor scratch, ParameterStore& store, Stream& stream) const;
  std::int64_t decode_scratch(std::int64_t rows) const;  ///< elements of decode's scratch

 private:
  /// What one call works with.
  struct Work {
    std::span<const Grain> group;
    Buffers& buffers;
    ParameterStore& store;
    Stream& stream;
    float temperature = 1;
    bool once = false;
  };
  /// At most 256 gathered rows of a grain.
  struct RowBlock {
    std::size_t grain;
    Part rows;
  };
  using EachBlock = std::function<void(const RowBlock& block)>;
  Part units_of(int shard) const;  // of this rank's, counted from 0
  const Lease& lease(std::size_t unit, const Work& work) const;
  void choose(const Work& work) const;
  void for_each_block(const Part& rows, const Work& work, const EachBlock& step) const;
  void gather(const RowBlock& block, const Work& work) const;
  Tensor block_logits(std::size_t unit, const RowBlock& block, const Work& work) const;
  void statistics(const Part& rows, const Work& work) const;
  void shard_statistics(int shard, const Part& rows, std::size_t depth, const Work& work) const;
  void merge(int first, int shards, std::size_t depth, const Part& rows, const Work& work) const;
  void merge_ranks(std::int64_t rows, const Work& work) const;
  void judge(const Part& rows, const Work& work, const GrainTokenLoss& loss) const;
  void unit_gradient(std::size_t unit, Lease& lease, const RowBlock& block, Tensor partial, bool first, const Work& work) const;
  void gradients(const Part& rows, const Work& work) const;
  void learn_once(std::size_t grain, const Work& work, const GrainTokenLoss& loss) const;
  void close(const Work& work) const;
  std::int64_t width_;
  Sweeps sweeps_;
  ShardTree tree_;
  Staging* staging_;
  std::vector<std::int64_t> all_bounds_;  // vocabulary borders of all shards
  std::vector<std::int64_t> bounds_;      // of this rank's
  int first_shard_;
  std::vector<TableRows> units_;          // of this rank's shards, in order
};

/// Hidden states to one number per token: rewards and values.
class ValueHead {
 public:
  explicit ValueHead(const Transformer& model)
      : weight_(model.head_layout().view("value_head.weight")), bias_(model.head_layout().view("value_head.bias")) {}
  void forward(Tensor values, Tensor hidden, const Lease& lease, Stream& stream) const;  ///< values[R]
  /// dhidden[R,C] and the gradients of weight and bias, from dvalues[R].
  void backward(Tensor dhidden, Tensor dvalues, Tensor hidden, const Lease& lease, Stream& stream) const;

 private:
  View weight_, bias_;
};

}  // namespace collimate
