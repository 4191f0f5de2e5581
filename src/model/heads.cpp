#include "collimate/model/heads.hpp"

#include <algorithm>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/kernels/rows.hpp"

namespace collimate {

PolicyHead::PolicyHead(const Transformer& model) : width_(model.config().width) {
  const Parameter& table = model.layout().parameter(model.config().tied ? "embedding.weight" : "head.weight");
  bounds_ = table.bounds;
  weight_ = table.parts;
}

PolicyHead::Buffers PolicyHead::take(Arena& arena, Transformer::Keep keep) const {
  constexpr std::int64_t rows = kernels::row_block;
  Buffers b;
  for (const View& weight : weight_) b.logits.push_back(arena.take({rows, weight.shape[0]}));
  b.statistics.push_back(arena.take({rows, 4}));
  for (std::size_t v = 1; v < weight_.size(); v *= 2) b.statistics.push_back(arena.take({rows, 4}));
  b.logprob = arena.take({rows});
  b.entropy = arena.take({rows});
  b.lse = arena.take({rows});
  if (keep == Transformer::Keep::all) {
    for (std::size_t v = 1; v < weight_.size(); v *= 2) b.tree.push_back(arena.take({rows, width_}));
    b.dlogprob = arena.take({rows});
    b.dentropy = arena.take({rows});
  }
  for (auto& host : b.host) host.resize(rows);
  return b;
}

void PolicyHead::merge(int first, int shards, std::size_t depth, std::int64_t rows, Tensor targets, float temperature, Buffers& b,
                       Stream& stream) const {
  const Tensor statistics = b.statistics[depth].slice(0, rows);
  if (shards == 1)
    return kernels::logit_statistics(statistics, b.logits[first].slice(0, rows), targets, bounds_[first], temperature, stream);
  merge(first, shards / 2, depth, rows, targets, temperature, b, stream);
  merge(first + shards / 2, shards / 2, depth + 1, rows, targets, temperature, b, stream);
  kernels::merge_statistics(statistics, b.statistics[depth + 1].slice(0, rows), stream);
}

void PolicyHead::block_statistics(Tensor hidden, Tensor targets, float temperature, Buffers& b, const Lease& lease, Stream& stream) const {
  const std::int64_t rows = hidden[0];
  for (std::size_t v = 0; v < weight_.size(); ++v)
    if (weight_[v].shape[0])
      kernels::linear_forward(b.logits[v].slice(0, rows), hidden, lease.at(weight_[v]), {}, kernels::Write::replace, stream);
  merge(0, static_cast<int>(weight_.size()), 0, rows, targets, temperature, b, stream);
  kernels::finish_statistics(b.logprob.slice(0, rows), b.entropy.slice(0, rows), b.lse.slice(0, rows), b.statistics[0].slice(0, rows),
                             targets, stream);
}

void PolicyHead::score(Tensor hidden, Tensor targets, float temperature, Buffers& b, const Lease& lease, Stream& stream,
                       std::span<float> logprob, std::span<float> entropy) const {
  Device& device = hidden.device();
  for (std::int64_t row = 0; row < hidden[0]; row += kernels::row_block) {
    const std::int64_t rows = std::min(kernels::row_block, hidden[0] - row);
    block_statistics(hidden.slice(row, rows), targets.slice(row, rows), temperature, b, lease, stream);
    device.copy(logprob.data() + row, b.logprob.data(), rows * sizeof(float), stream);
    device.copy(entropy.data() + row, b.entropy.data(), rows * sizeof(float), stream);
  }
  stream.wait();
}

// dlogits = loss gradient through log-softmax; dhidden = sum over shards of dlogits_v W_v; dW_v = dlogits_v^T hidden, block after block.
void PolicyHead::forward_backward(Tensor dhidden, Tensor hidden, Tensor targets, float temperature, Buffers& b, const Lease& lease,
                                  Stream& stream, const TokenLoss& loss) const {
  Device& device = hidden.device();
  for (std::int64_t row = 0; row < hidden[0]; row += kernels::row_block) {
    const std::int64_t rows = std::min(kernels::row_block, hidden[0] - row);
    const std::size_t bytes = rows * sizeof(float);
    const Tensor x = hidden.slice(row, rows), target = targets.slice(row, rows);
    block_statistics(x, target, temperature, b, lease, stream);
    device.copy(b.host[0].data(), b.logprob.data(), bytes, stream);
    device.copy(b.host[1].data(), b.entropy.data(), bytes, stream);
    stream.wait();
    std::fill_n(b.host[2].begin(), rows, 0.0f);
    std::fill_n(b.host[3].begin(), rows, 0.0f);
    const auto span = [&](int i) { return std::span(b.host[i]).first(rows); };
    loss(row, span(0), span(1), span(2), span(3));
    device.copy(b.dlogprob.data(), b.host[2].data(), bytes, stream);
    device.copy(b.dentropy.data(), b.host[3].data(), bytes, stream);
    sum_over_shards(dhidden.slice(row, rows), b.tree, static_cast<int>(weight_.size()), stream, [&](int v, Tensor partial) {
      if (weight_[v].shape[0] == 0) return partial.zero(stream);
      const Tensor logits = b.logits[v].slice(0, rows);
      kernels::logit_gradient(logits, b.lse.slice(0, rows), b.entropy.slice(0, rows), target, b.dlogprob.slice(0, rows),
                              b.dentropy.slice(0, rows), bounds_[v], temperature, stream);
      kernels::linear_backward_weight(lease.gradient_at(weight_[v]), logits, x, row ? kernels::Write::add : kernels::Write::replace,
                                      stream);
      kernels::linear_backward_input(partial, logits, lease.at(weight_[v]), kernels::Write::replace, stream);
    });
  }
}

void PolicyHead::logits(Tensor hidden, Buffers& b, const Lease& lease, Stream& stream, std::span<float> out) const {
  const std::int64_t vocabulary = bounds_.back();
  for (std::int64_t row = 0; row < hidden[0]; row += kernels::row_block) {
    const std::int64_t rows = std::min(kernels::row_block, hidden[0] - row);
    for (std::size_t v = 0; v < weight_.size(); ++v) {
      const std::int64_t columns = weight_[v].shape[0];
      if (columns == 0) continue;
      const Tensor part = b.logits[v].slice(0, rows);
      kernels::linear_forward(part, hidden.slice(row, rows), lease.at(weight_[v]), {}, kernels::Write::replace, stream);
      for (std::int64_t r = 0; r < rows; ++r)
        hidden.device().copy(out.data() + (row + r) * vocabulary + bounds_[v], part.as<float>() + r * columns, columns * sizeof(float),
                             stream);
    }
  }
  stream.wait();
}

void PolicyHead::decode(Tensor logits, Tensor hidden, Tensor scratch, const Lease& lease, Stream& stream) const {
  if (weight_.size() == 1) return kernels::linear_decode(logits, hidden, lease.at(weight_[0]), {}, stream);
  const std::int64_t rows = hidden[0], vocabulary = bounds_.back();
  for (std::size_t v = 0; v < weight_.size(); ++v) {
    const std::int64_t columns = weight_[v].shape[0];
    if (columns == 0) continue;
    const Tensor part = scratch.slice(0, rows * columns).reshape({rows, columns});
    kernels::linear_decode(part, hidden, lease.at(weight_[v]), {}, stream);
    for (std::int64_t r = 0; r < rows; ++r)
      hidden.device().copy(logits.as<float>() + r * vocabulary + bounds_[v], part.as<float>() + r * columns, columns * sizeof(float),
                           stream);
  }
}

void ValueHead::forward(Tensor values, Tensor hidden, const Lease& lease, Stream& stream) const {
  kernels::value_forward(values, hidden, lease.at(weight_).reshape({hidden[1]}), lease.at(bias_), stream);
}

void ValueHead::backward(Tensor dhidden, Tensor dvalues, Tensor hidden, const Lease& lease, Stream& stream) const {
  kernels::value_backward(dhidden, lease.gradient_at(weight_).reshape({hidden[1]}), lease.gradient_at(bias_), dvalues, hidden,
                          lease.at(weight_).reshape({hidden[1]}), stream);
}

}  // namespace collimate
