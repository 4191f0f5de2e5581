#pragma once
#include <functional>
#include <span>

#include "collimate/model/transformer.hpp"

namespace collimate {

/// A token-wise loss, called for consecutive rows: reads log-probabilities and entropies, writes the gradient with respect to both (0 for
/// rows that do not count). Rows are those of the grain, from first_row on; padding rows and rows without a target come too, with 0.
using TokenLoss = std::function<void(std::int64_t first_row, std::span<const float> logprob, std::span<const float> entropy,
                                     std::span<float> dlogprob, std::span<float> dentropy)>;

/// Hidden states to log-probabilities, 256 rows at a time: the R x V matrix of logits never exists.
class PolicyHead {
 public:
  struct Buffers {
    std::vector<Tensor> logits;      ///< per shard [256, V_v]
    std::vector<Tensor> statistics;  ///< [256,4], the result first, then one per level of the shard tree
    std::vector<Tensor> tree;        ///< log2(V) x [256,C]; only to learn
    Tensor logprob, entropy, lse;    ///< [256]
    Tensor dlogprob, dentropy;       ///< [256]; only to learn
    std::vector<float> host[4];      ///< staging of the four arrays above for the loss
  };
  explicit PolicyHead(const Transformer& model);
  Buffers take(Arena& arena, Transformer::Keep keep) const;

  /// logprob[R] and entropy[R] (host) of the targets under softmax(logits / temperature).
  void score(Tensor hidden, Tensor targets, float temperature, Buffers& buffers, const Lease& lease, Stream& stream,
             std::span<float> logprob, std::span<float> entropy) const;
  /// Writes dhidden[R,C] and the gradient of the head's weight; logits, loss and both gradients form block by block in one pass.
  void forward_backward(Tensor dhidden, Tensor hidden, Tensor targets, float temperature, Buffers& buffers, const Lease& lease,
                        Stream& stream, const TokenLoss& loss) const;
  /// All logits of the rows (host, R x V, in vocabulary order); padding rows too.
  void logits(Tensor hidden, Buffers& buffers, const Lease& lease, Stream& stream, std::span<float> out) const;
  /// logits[B,V] of few rows with the decode kernel, gathered in vocabulary order; scratch: flat, B x V.
  void decode(Tensor logits, Tensor hidden, Tensor scratch, const Lease& lease, Stream& stream) const;

 private:
  void block_statistics(Tensor hidden, Tensor targets, float temperature, Buffers& buffers, const Lease& lease, Stream& stream) const;
  void merge(int first, int shards, std::size_t depth, std::int64_t rows, Tensor targets, float temperature, Buffers& buffers,
             Stream& stream) const;
  std::int64_t width_;
  std::vector<std::int64_t> bounds_;  // vocabulary borders of the shards
  std::vector<View> weight_;
};

/// Hidden states to one number per token: rewards and values.
class ValueHead {
 public:
  explicit ValueHead(const Transformer& model)
      : weight_(model.layout().view("value_head.weight")), bias_(model.layout().view("value_head.bias")) {}
  void forward(Tensor values, Tensor hidden, const Lease& lease, Stream& stream) const;  ///< values[R]
  /// dhidden[R,C] and the gradients of weight and bias, from dvalues[R].
  void backward(Tensor dhidden, Tensor dvalues, Tensor hidden, const Lease& lease, Stream& stream) const;

 private:
  View weight_, bias_;
};

}  // namespace collimate
