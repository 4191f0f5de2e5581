#include "kernels/table.hpp"

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/embedding.hpp"
#include "kernels/cpu/head.hpp"
#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/norm.hpp"
#include "kernels/cpu/optimizer.hpp"

namespace collimate::kernels {
namespace {

using In = Table::In;

float* f(In tensor) { return tensor.as<float>(); }
float* optional(In tensor) { return tensor ? tensor.as<float>() : nullptr; }
const std::int32_t* i(In tensor) { return tensor.as<std::int32_t>(); }
/// The elements of a tensor that may be f32 or bf16; null where it is absent.
cpu::Numbers numbers(In tensor) {
  if (tensor && tensor.dtype() == DType::bf16) return tensor.as<BFloat16>();
  return optional(tensor);
}
cpu::Results results(In tensor) {
  if (tensor.dtype() == DType::bf16) return tensor.as<BFloat16>();
  return f(tensor);
}
bool adds(Write write) { return write == Write::add; }
cpu::Samples samples(const Ragged& offsets, In qkv) { return {i(offsets.device), offsets.device[0] - 1, qkv[0]}; }
cpu::Cache cache(In keys, In values) { return {f(keys), f(values), keys[0], keys[1]}; }

constexpr Table table = {
    .linear_forward =
        [](In y, In x, In w, In bias, Write write, Stream&) {
          cpu::linear_forward(results(y), numbers(x), numbers(w), numbers(bias), adds(write), x[0], w[0], x[1]);
        },
    .linear_backward_input = [](In dx, In dy, In w, Write write,
                                Stream&) { cpu::linear_backward_input(results(dx), numbers(dy), numbers(w), write, dy[0], dy[1], w[1]); },
    .linear_backward_weight = [](In dw, In dy, In x, Write write,
                                 Stream&) { cpu::linear_backward_weight(f(dw), numbers(dy), numbers(x), adds(write), dy[0], dy[1], x[1]); },
    .linear_backward_bias = [](In dbias, In dy, Write write, Stream&) { cpu::sum_rows(f(dbias), numbers(dy), adds(write), dy[0], dy[1]); },
    .linear_decode = [](In y, In x, In w, In bias,
                        Stream&) { cpu::linear_decode(results(y), numbers(x), numbers(w), numbers(bias), x[0], w[0], x[1]); },

    .rms_norm_forward = [](In y, In rstd, In x, In gain, float eps,
                           Stream&) { cpu::norm_forward({results(y), nullptr, f(rstd), f(x), numbers(gain), {}, eps}, x[0], x[1]); },
    .rms_norm_backward =
        [](In dx, In dgain, In dy, In x, In gain, In rstd, Write dx_as, Write dgain_as, Stream&) {
          cpu::norm_backward({f(dx), optional(dgain), nullptr, f(dy), f(x), numbers(gain), nullptr, f(rstd), adds(dx_as), adds(dgain_as)}, x[0], x[1]);
        },
    .layer_norm_forward =
        [](In y, In mean, In rstd, In x, In gain, In bias, float eps, Stream&) {
          cpu::norm_forward({results(y), f(mean), f(rstd), f(x), numbers(gain), numbers(bias), eps}, x[0], x[1]);
        },
    .layer_norm_backward =
        [](In dx, In dgain, In dbias, In dy, In x, In gain, In mean, In rstd, Write dx_as, Write parameters_as, Stream&) {
          cpu::norm_backward({f(dx), optional(dgain), optional(dbias), f(dy), f(x), numbers(gain), f(mean), f(rstd), adds(dx_as), adds(parameters_as)}, x[0], x[1]);
        },

    .rotary = [](In qkv, const Ragged& positions, In angles, const Heads& heads, bool inverse,
                 Stream&) { cpu::rotary(f(qkv), i(positions.device), f(angles), heads, inverse, qkv[0]); },
    .attention_forward = [](In out, In lse, In qkv, const Ragged& offsets, const Heads& heads,
                            Stream&) { cpu::attention_forward(f(out), f(lse), f(qkv), samples(offsets, qkv), heads); },
    .attention_backward =
        [](In dqkv, In dout, In out, In lse, In qkv, const Ragged& offsets, In scratch, const Heads& heads, Stream&) {
          cpu::attention_backward({f(dqkv), f(dout), f(out), f(lse), f(qkv), f(scratch)}, samples(offsets, qkv), heads);
        },
    .cache_write = [](In keys, In values, In qkv, const Ragged& offsets, const Ragged& slots, const Heads& heads,
                      Stream&) { cpu::cache_write(cache(keys, values), f(qkv), samples(offsets, qkv), i(slots.device), heads); },
    .attention_decode = [](In out, In qkv, In keys, In values, const Ragged& slots, const Ragged& lengths, const Heads& heads,
                           Stream&) { cpu::attention_decode(f(out), f(qkv), cache(keys, values), i(slots.device), i(lengths.device), qkv[0], heads); },

    .embedding_forward = [](In y, In entries, In tokens, std::int64_t first,
                            Stream&) { cpu::embedding_forward(f(y), numbers(entries), i(tokens), first, false, tokens[0], entries[0], entries[1]); },
    .embedding_backward = [](In entries, In dy, In tokens, std::int64_t first,
                             Stream&) { cpu::embedding_backward(f(entries), f(dy), i(tokens), first, tokens[0], entries[0], entries[1]); },
    .embedding_add = [](In y, In entries, In indices,
                        Stream&) { cpu::embedding_forward(f(y), numbers(entries), i(indices), 0, true, indices[0], entries[0], entries[1]); },

    .cast =
        [](In to, In from, Stream&) {
          if (to.dtype() == DType::bf16) return cpu::cast(to.as<BFloat16>(), f(from), to.count());
          cpu::cast(f(to), from.as<BFloat16>(), to.count());
        },
    .add =
        [](In y, In a, In b, Stream&) {
          if (y.dtype() == DType::i32) return cpu::add(y.as<std::int32_t>(), i(a), i(b), y.count());
          cpu::add(f(y), f(a), f(b), y.count());
        },
    .add_bias = [](In y, In bias, Stream&) { cpu::add_bias(f(y), numbers(bias), y[0], y[1]); },
    .copy_columns = [](In y, std::int64_t y_first, In x, std::int64_t x_first, std::int64_t columns,
                       Stream&) { cpu::copy_columns(f(y) + y_first, y[1], f(x) + x_first, x[1], y[0], columns); },
    .add_columns = [](In y, std::int64_t y_first, In x, std::int64_t x_first, std::int64_t columns,
                      Stream&) { cpu::add_columns(f(y) + y_first, y[1], f(x) + x_first, x[1], y[0], columns); },
    .scale = [](In y, float factor, Stream&) { cpu::scale(f(y), factor, y.count()); },
    .gelu_forward = [](In y, In x, Stream&) { cpu::gelu_forward(results(y), numbers(x), x.count()); },
    .gelu_backward = [](In dx, In dy, In x, Stream&) { cpu::gelu_backward(results(dx), numbers(dy), numbers(x), x.count()); },
    .swiglu_forward = [](In y, In gate_up, Stream&) { cpu::swiglu_forward(results(y), numbers(gate_up), y[0], y[1]); },
    .swiglu_backward = [](In dgate_up, In dy, In gate_up,
                          Stream&) { cpu::swiglu_backward(results(dgate_up), numbers(dy), numbers(gate_up), dy[0], dy[1]); },
    .dropout =
        [](In y, In x, double probability, const RandomKey& key, In samples, In positions, std::uint32_t site, std::int64_t first, Stream&) {
          cpu::dropout(f(y), f(x), probability, key, samples.as<std::int64_t>(), i(positions), site, first, x[0], x[1]);
        },

    .logit_statistics =
        [](In statistics, In sums, In logits, In targets, std::int64_t first, float temperature, Write write, Stream&) {
          cpu::logit_statistics(f(statistics), sums.as<double>(), f(logits), i(targets), first, temperature, write == Write::go_on, logits[0], logits[1]);
        },
    .merge_statistics = [](In statistics, In other, Stream&) { cpu::merge_statistics(f(statistics), f(other), statistics[0]); },
    .finish_statistics = [](In logprob, In entropy, In lse, In statistics, In targets,
                            Stream&) { cpu::finish_statistics(f(logprob), f(entropy), f(lse), f(statistics), i(targets), targets[0]); },
    .logit_gradient =
        [](In logits, In lse, In entropy, In targets, In dlogprob, In dentropy, std::int64_t first, float temperature, Stream&) {
          cpu::logit_gradient({f(logits), f(lse), f(entropy), i(targets), f(dlogprob), f(dentropy), first, temperature}, logits[0], logits[1]);
        },
    .value_forward = [](In values, In hidden, In w, In b, Stream&) { cpu::value_forward(f(values), f(hidden), numbers(w), numbers(b), hidden[0], hidden[1]); },
    .value_backward = [](In dhidden, In dw, In db, In dvalues, In hidden, In w, Write parameters_as,
                         Stream&) { cpu::value_backward(f(dhidden), f(dw), f(db), f(dvalues), f(hidden), numbers(w), adds(parameters_as), hidden[0], hidden[1]); },
    .sample_tokens =
        [](In tokens, In logprobs, In logits, In uniforms, const Sampling& sampling, Stream&) {
          cpu::sample_tokens(tokens.as<std::int32_t>(), f(logprobs), f(logits), uniforms.as<double>(), sampling, logits[0], logits[1]);
        },

    .adamw = [](In value, In gradient, In first_moment, In second_moment, const AdamW& how,
                Stream&) { cpu::adamw(f(value), f(gradient), f(first_moment), f(second_moment), how, value.count()); },
    .block_squares = [](In sums, In x, Stream&) { cpu::block_squares(sums.as<double>(), f(x), sums.count()); },
    .element_hash = [](In hash, In x, std::int64_t first, Stream&) { *hash.as<std::uint64_t>() += cpu::element_hash(numbers(x), first, x.count()); },
};

}  // namespace

const Table& cpu_table() { return table; }

}  // namespace collimate::kernels
