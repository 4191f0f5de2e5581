#include "collimate/device/dry_device.hpp"
#include "kernels/table.hpp"

namespace collimate::kernels {
namespace {

using In = Table::In;
using List = std::initializer_list<std::reference_wrapper<const Tensor>>;

double n(In tensor) { return static_cast<double>(tensor.count()); }

/// One kernel: flops, and the bytes of what it reads and writes; operands that are absent have none.
void count(Stream& stream, double flops, List read, List written) {
  Cost& cost = static_cast<DryDevice&>(stream.device()).meter();
  const auto bytes = [](List tensors) {
    double sum = 0;
    for (In tensor : tensors) sum += tensor ? static_cast<double>(tensor.bytes()) : 0;
    return sum;
  };
  cost.flops += flops;
  cost.read += bytes(read);
  cost.written += bytes(written);
  ++cost.kernels;
}
/// A product of 2 flops for each of its terms; what is added to is read too.
void product(Stream& stream, double terms, In out, In left, In right, In bias, Write write) {
  static const Tensor none;
  count(stream, 2 * terms + (bias ? n(out) : 0), {left, right, bias, write == Write::replace ? none : out}, {out});
}
void product(Stream& stream, double terms, In out, In left, In right, Write write) { product(stream, terms, out, left, right, Tensor(), write); }

/// Pairs of a token and one that it sees: T (T + 1) / 2 of a sample of T tokens.
double causal_pairs(const Ragged& offsets) {
  double pairs = 0;
  for (std::size_t s = 1; s < offsets.host.size(); ++s) {
    const double length = offsets.host[s] - offsets.host[s - 1];
    pairs += length * (length + 1) / 2;
  }
  return pairs;
}
double width(const Heads& heads) { return static_cast<double>(heads.query * heads.size); }

/// As many rows of a table as there are in y.
Tensor looked_up(In entries, In y) { return {entries.data(), entries.dtype(), y.shape(), entries.device()}; }

constexpr Table table = {
    .linear_forward = [](In y, In x, In w, In bias, Write write, Stream& s) { product(s, n(y) * n(w) / static_cast<double>(w[0]), y, x, w, bias, write); },
    .linear_backward_input = [](In dx, In dy, In w, Write write, Stream& s) { product(s, n(dy) * static_cast<double>(w[1]), dx, dy, w, write); },
    .linear_backward_weight = [](In dw, In dy, In x, Write write, Stream& s) { product(s, n(dy) * static_cast<double>(x[1]), dw, dy, x, write); },
    .linear_backward_bias = [](In dbias, In dy, Write, Stream& s) { count(s, n(dy), {dy}, {dbias}); },
    .linear_decode = [](In y, In x, In w, In bias, Stream& s) { product(s, n(x) * static_cast<double>(w[0]), y, x, w, bias, Write::replace); },

    .rms_norm_forward = [](In y, In rstd, In x, In gain, float, Stream& s) { count(s, 4 * n(x), {x, gain}, {y, rstd}); },
    .rms_norm_backward = [](In dx, In dgain, In dy, In x, In gain, In rstd, Write, Write,
                            Stream& s) { count(s, 10 * n(x), {dy, x, gain, rstd, dx}, {dx, dgain}); },
    .layer_norm_forward = [](In y, In mean, In rstd, In x, In gain, In bias, float,
                             Stream& s) { count(s, 7 * n(x), {x, gain, bias}, {y, mean, rstd}); },
    .layer_norm_backward = [](In dx, In dgain, In dbias, In dy, In x, In gain, In mean, In rstd, Write, Write,
                              Stream& s) { count(s, 14 * n(x), {dy, x, gain, mean, rstd, dx}, {dx, dgain, dbias}); },

    .rotary = [](In qkv, const Ragged&, In angles, const Heads&, bool, Stream& s) { count(s, 3 * n(qkv), {qkv, angles}, {qkv}); },
    .attention_forward = [](In out, In lse, In qkv, const Ragged& offsets, const Heads& heads,
                            Stream& s) { count(s, 4 * causal_pairs(offsets) * width(heads), {qkv}, {out, lse}); },
    .attention_backward = [](In dqkv, In dout, In out, In lse, In qkv, const Ragged& offsets, In scratch, const Heads& heads,
                             Stream& s) { count(s, 10 * causal_pairs(offsets) * width(heads), {dout, out, lse, qkv}, {dqkv, scratch}); },
    .cache_write = [](In, In, In qkv, const Ragged&, const Ragged&, const Heads&, Stream& s) { count(s, 0, {qkv}, {qkv}); },
    .attention_decode =
        [](In out, In qkv, In keys, In, const Ragged&, const Ragged& lengths, const Heads& heads, Stream& s) {
          double seen = 0;  // positions, over the sequences
          for (const std::int32_t length : lengths.host) seen += length + 1;
          count(s, 4 * seen * width(heads), {qkv}, {out});
          static_cast<DryDevice&>(s.device()).meter().read += 2 * seen * static_cast<double>(keys[2]) * sizeof(float);
        },

    .embedding_forward = [](In y, In entries, In tokens, std::int64_t, Stream& s) { const Tensor part = looked_up(entries, y); count(s, 0, {part, tokens}, {y}); },
    .embedding_backward = [](In, In dy, In tokens, std::int64_t, Stream& s) { count(s, n(dy), {dy, dy, tokens}, {dy}); },
    .embedding_add = [](In y, In entries, In indices, Stream& s) { const Tensor part = looked_up(entries, y); count(s, n(y), {y, part, indices}, {y}); },

    .cast = [](In to, In from, Stream& s) { count(s, 0, {from}, {to}); },
    .add = [](In y, In a, In b, Stream& s) { count(s, n(y), {a, b}, {y}); },
    .add_bias = [](In y, In bias, Stream& s) { count(s, n(y), {y, bias}, {y}); },
    .copy_columns = [](In y, std::int64_t, In, std::int64_t, std::int64_t columns,
                       Stream& s) { const Tensor part(y.data(), y.dtype(), {y[0], columns}, y.device()); count(s, 0, {part}, {part}); },
    .add_columns = [](In y, std::int64_t, In, std::int64_t, std::int64_t columns,
                      Stream& s) { const Tensor part(y.data(), y.dtype(), {y[0], columns}, y.device()); count(s, n(part), {part, part}, {part}); },
    .scale = [](In y, float, Stream& s) { count(s, n(y), {y}, {y}); },
    .gelu_forward = [](In y, In x, Stream& s) { count(s, 20 * n(x), {x}, {y}); },
    .gelu_backward = [](In dx, In dy, In x, Stream& s) { count(s, 30 * n(x), {dy, x}, {dx}); },
    .swiglu_forward = [](In y, In gate_up, Stream& s) { count(s, 16 * n(y), {gate_up}, {y}); },
    .swiglu_backward = [](In dgate_up, In dy, In gate_up, Stream& s) { count(s, 22 * n(dy), {dy, gate_up}, {dgate_up}); },
    .dropout = [](In y, In x, double, const RandomKey&, In samples, In positions, std::uint32_t, std::int64_t,
                  Stream& s) { count(s, n(x), {x, samples, positions}, {y}); },

    .logit_statistics = [](In statistics, In sums, In logits, In targets, std::int64_t, float, Write,
                           Stream& s) { count(s, 18 * n(logits), {logits, targets}, {statistics, sums}); },
    .merge_statistics = [](In statistics, In other, Stream& s) { count(s, 8 * n(other), {statistics, other}, {statistics}); },
    .finish_statistics = [](In logprob, In entropy, In lse, In statistics, In targets,
                            Stream& s) { count(s, 4 * n(lse), {statistics, targets}, {logprob, entropy, lse}); },
    .logit_gradient = [](In logits, In lse, In entropy, In targets, In dlogprob, In dentropy, std::int64_t, float,
                         Stream& s) { count(s, 20 * n(logits), {logits, lse, entropy, targets, dlogprob, dentropy}, {logits}); },
    .value_forward = [](In values, In hidden, In w, In b, Stream& s) { count(s, 2 * n(hidden), {hidden, w, b}, {values}); },
    .value_backward = [](In dhidden, In dw, In db, In dvalues, In hidden, In w, Write,
                         Stream& s) { count(s, 3 * n(hidden), {dvalues, hidden, w}, {dhidden, dw, db}); },
    .sample_tokens = [](In tokens, In logprobs, In logits, In uniforms, const Sampling&,
                        Stream& s) { count(s, 18 * n(logits), {logits, uniforms}, {tokens, logprobs}); },

    .adamw = [](In value, In gradient, In first_moment, In second_moment, const AdamW&,
                Stream& s) { count(s, 16 * n(value), {value, gradient, first_moment, second_moment}, {value, first_moment, second_moment}); },
    .block_squares = [](In sums, In x, Stream& s) { count(s, 2 * n(x), {x}, {sums}); },
    .element_hash = [](In hash, In x, std::int64_t, Stream& s) { count(s, 0, {hash, x}, {hash}); },
};

}  // namespace

const Table& dry_table() { return table; }

}  // namespace collimate::kernels
