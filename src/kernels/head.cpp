#include "collimate/kernels/head.hpp"

#include "kernels/check.hpp"
#include "kernels/table.hpp"

namespace collimate::kernels {

void logit_statistics(Tensor statistics, Tensor sums, Tensor logits, Tensor targets, std::int64_t first, float temperature, Write write,
                      Stream& stream) {
  constexpr auto name = "logit_statistics";
  check_rank(name, "logits", logits, 2);
  check(name, "statistics", statistics, {logits[0], 4});
  check(name, "sums", sums, {logits[0], 2}, DType::f64);
  check(name, "targets", targets, {logits[0]}, DType::i32);
  ensure(write != Write::add, "logit_statistics replaces or goes on");
  require(temperature > 0, "logit_statistics needs a temperature above 0, and was given {}", temperature);
  table_of(statistics).logit_statistics(statistics, sums, logits, targets, first, temperature, write, stream);
}

void merge_statistics(Tensor statistics, Tensor other, Stream& stream) {
  check_rank("merge_statistics", "statistics", statistics, 2);
  check("merge_statistics", "statistics", statistics, {statistics[0], 4});
  check("merge_statistics", "other", other, {statistics[0], 4});
  table_of(statistics).merge_statistics(statistics, other, stream);
}

void finish_statistics(Tensor logprob, Tensor entropy, Tensor lse, Tensor statistics, Tensor targets, Stream& stream) {
  constexpr auto name = "finish_statistics";
  check_rank(name, "targets", targets, 1, DType::i32);
  const auto rows = targets[0];
  check(name, "statistics", statistics, {rows, 4});
  check(name, "logprob", logprob, {rows});
  check(name, "entropy", entropy, {rows});
  check(name, "lse", lse, {rows});
  table_of(logprob).finish_statistics(logprob, entropy, lse, statistics, targets, stream);
}

void logit_gradient(Tensor logits, Tensor lse, Tensor entropy, Tensor targets, Tensor dlogprob, Tensor dentropy, std::int64_t first,
                    float temperature, Stream& stream) {
  constexpr auto name = "logit_gradient";
  check_rank(name, "logits", logits, 2);
  const Shape rows = {logits[0]};
  check(name, "lse", lse, rows);
  check(name, "entropy", entropy, rows);
  check(name, "targets", targets, rows, DType::i32);
  check(name, "dlogprob", dlogprob, rows);
  check(name, "dentropy", dentropy, rows);
  require(temperature > 0, "logit_gradient needs a temperature above 0, and was given {}", temperature);
  table_of(logits).logit_gradient(logits, lse, entropy, targets, dlogprob, dentropy, first, temperature, stream);
}

void value_forward(Tensor values, Tensor hidden, Tensor w, Tensor b, Stream& stream) {
  constexpr auto name = "value_forward";
  check_rank(name, "hidden", hidden, 2);
  check(name, "values", values, {hidden[0]});
  check(name, "w", w, {hidden[1]}, f32_or_bf16);
  check(name, "b", b, {1}, f32_or_bf16);
  table_of(values).value_forward(values, hidden, w, b, stream);
}

void value_backward(Tensor dhidden, Tensor dw, Tensor db, Tensor dvalues, Tensor hidden, Tensor w, Write write_parameters, Stream& stream) {
  constexpr auto name = "value_backward";
  check_rank(name, "hidden", hidden, 2);
  check(name, "dhidden", dhidden, hidden.shape());
  check(name, "dvalues", dvalues, {hidden[0]});
  check(name, "w", w, {hidden[1]}, f32_or_bf16);
  check(name, "dw", dw, {hidden[1]});
  check(name, "db", db, {1});
  table_of(dhidden).value_backward(dhidden, dw, db, dvalues, hidden, w, write_parameters, stream);
}

void sample_tokens(Tensor tokens, Tensor logprobs, Tensor logits, Tensor uniforms, const Sampling& sampling, Stream& stream) {
  constexpr auto name = "sample_tokens";
  check_rank(name, "logits", logits, 2);
  check(name, "tokens", tokens, {logits[0]}, DType::i32);
  check(name, "logprobs", logprobs, {logits[0]});
  check(name, "uniforms", uniforms, {logits[0]}, DType::f64);
  require(logits[1] >= 1, "sample_tokens was given logits of no token");
  const double temperature = sampling.temperature;
  require(temperature == 0 || (temperature >= lowest_temperature && temperature <= highest_temperature),
          "no token can be drawn at the temperature {}: give 0 for the most probable one, or a temperature from {} to {}", temperature,
          lowest_temperature, highest_temperature);
  require(sampling.top_k >= 0, "sample_tokens needs a top-k of at least 0, and was given {}", sampling.top_k);
  require(sampling.top_p > 0 && sampling.top_p <= 1, "sample_tokens needs a top-p above 0 and at most 1, and was given {}", sampling.top_p);
  table_of(tokens).sample_tokens(tokens, logprobs, logits, uniforms, sampling, stream);
}

}  // namespace collimate::kernels
