#pragma once
#include "collimate/device/tensor.hpp"
#include "collimate/kernels/matmul.hpp"

namespace collimate::kernels {

// The log-probability head, for one block of rows (at most 256) and one shard of the vocabulary. Logits are divided by the
// temperature here. Sums over the vocabulary run in tiles of fixed width in index order.

/// Per row of logits[R,N] / temperature: statistics[R,4] = {max, sum exp(l - max), sum exp(l - max) l, logit of the target or
/// -inf where the target is in another shard or -1}. targets[R] i32 are vocabulary ids; the shard holds [first, first + N).
/// An empty shard (N = 0) gives {-inf, 0, 0, -inf}. sums[R,2] f64: the two sums before they are rounded; with go_on a shard's next columns are
/// added to them and to statistics, as if all were there at once, if there were a multiple of 1,024 before.
void logit_statistics(Tensor statistics, Tensor sums, Tensor logits, Tensor targets, std::int64_t first, float temperature, Write write,
                      Stream& stream);
/// statistics = the statistics of the union of two vocabulary shards.
void merge_statistics(Tensor statistics, Tensor other, Stream& stream);
/// logprob[R] = target - lse, entropy[R] = lse - sum p l, lse[R] = max + log(sum); 0 where the target is -1.
void finish_statistics(Tensor logprob, Tensor entropy, Tensor lse, Tensor statistics, Tensor targets, Stream& stream);
/// logits[R,N] become their own gradient: (dlogprob (1[target] - p) - dentropy p (log p + entropy)) / temperature; 0 in rows whose
/// target is -1.
void logit_gradient(Tensor logits, Tensor lse, Tensor entropy, Tensor targets, Tensor dlogprob, Tensor dentropy, std::int64_t first,
                    float temperature, Stream& stream);

/// values[R] = hidden[R,C] w[C] + b[1], w and b f32 or bf16; a row's bits depend on that row alone.
void value_forward(Tensor values, Tensor hidden, Tensor w, Tensor b, Stream& stream);
/// dhidden[R,C] (replaced) of w[C], f32 or bf16, and dw[C] and db[1] (replaced or added to), block by block.
void value_backward(Tensor dhidden, Tensor dw, Tensor db, Tensor dvalues, Tensor hidden, Tensor w, Write write_parameters, Stream& stream);

/// The temperatures by which logits are divided: far below they would overflow, far above all of them would be 0.
constexpr double lowest_temperature = 1e-6, highest_temperature = 1e6;

/// How a token is drawn from logits.
struct Sampling {
  double temperature = 1.0;  ///< one of the above, or 0: the largest logit, the lower id on a tie
  std::int64_t top_k = 0;    ///< keep the k largest logits (0: all)
  double top_p = 1.0;        ///< keep the smallest set of largest probabilities whose sum reaches p
};
/// Inverse CDF in fp64 in vocabulary order with one uniform number per row: tokens[B] i32, logprobs[B] f32 under the distribution
/// that was sampled from (temperature 0: of the logits as they are), of logits[B,N], uniforms[B] f64. Ties at a top-k or top-p border go to
/// the lower id.
void sample_tokens(Tensor tokens, Tensor logprobs, Tensor logits, Tensor uniforms, const Sampling& sampling, Stream& stream);

}  // namespace collimate::kernels
