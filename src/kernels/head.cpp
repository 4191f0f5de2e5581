#include "collimate/kernels/head.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/head.hpp"

namespace collimate::kernels {

void logit_statistics(Tensor statistics, Tensor logits, Tensor targets, std::int64_t first, float temperature, Stream&) {
  constexpr auto name = "logit_statistics";
  check_rank(name, "logits", logits, 2);
  check(name, "statistics", statistics, {logits[0], 4});
  check(name, "targets", targets, {logits[0]}, DType::i32);
  require(temperature > 0, "logit_statistics needs a temperature above 0, and was given {}", temperature);
  cpu::logit_statistics(statistics.as<float>(), logits.as<float>(), targets.as<std::int32_t>(), first, temperature, logits[0], logits[1]);
}

void merge_statistics(Tensor statistics, Tensor other, Stream&) {
  check_rank("merge_statistics", "statistics", statistics, 2);
  check("merge_statistics", "statistics", statistics, {statistics[0], 4});
  check("merge_statistics", "other", other, {statistics[0], 4});
  cpu::merge_statistics(statistics.as<float>(), other.as<float>(), statistics[0]);
}

void finish_statistics(Tensor logprob, Tensor entropy, Tensor lse, Tensor statistics, Tensor targets, Stream&) {
  constexpr auto name = "finish_statistics";
  check_rank(name, "targets", targets, 1, DType::i32);
  const auto rows = targets[0];
  check(name, "statistics", statistics, {rows, 4});
  check(name, "logprob", logprob, {rows});
  check(name, "entropy", entropy, {rows});
  check(name, "lse", lse, {rows});
  cpu::finish_statistics(logprob.as<float>(), entropy.as<float>(), lse.as<float>(), statistics.as<float>(), targets.as<std::int32_t>(),
                         rows);
}

void logit_gradient(Tensor logits, Tensor lse, Tensor entropy, Tensor targets, Tensor dlogprob, Tensor dentropy, std::int64_t first,
                    float temperature, Stream&) {
  constexpr auto name = "logit_gradient";
  check_rank(name, "logits", logits, 2);
  const Shape rows = {logits[0]};
  check(name, "lse", lse, rows);
  check(name, "entropy", entropy, rows);
  check(name, "targets", targets, rows, DType::i32);
  check(name, "dlogprob", dlogprob, rows);
  check(name, "dentropy", dentropy, rows);
  require(temperature > 0, "logit_gradient needs a temperature above 0, and was given {}", temperature);
  cpu::logit_gradient({logits.as<float>(), lse.as<float>(), entropy.as<float>(), targets.as<std::int32_t>(), dlogprob.as<float>(),
                       dentropy.as<float>(), first, temperature},
                      logits[0], logits[1]);
}

void value_forward(Tensor values, Tensor hidden, Tensor w, Tensor b, Stream&) {
  constexpr auto name = "value_forward";
  check_rank(name, "hidden", hidden, 2);
  check(name, "values", values, {hidden[0]});
  check(name, "w", w, {hidden[1]});
  check(name, "b", b, {1});
  cpu::value_forward(values.as<float>(), hidden.as<float>(), w.as<float>(), b.as<float>(), hidden[0], hidden[1]);
}

void value_backward(Tensor dhidden, Tensor dw, Tensor db, Tensor dvalues, Tensor hidden, Tensor w, Stream&) {
  constexpr auto name = "value_backward";
  check_rank(name, "hidden", hidden, 2);
  check(name, "dhidden", dhidden, hidden.shape());
  check(name, "dvalues", dvalues, {hidden[0]});
  check(name, "w", w, {hidden[1]});
  check(name, "dw", dw, {hidden[1]});
  check(name, "db", db, {1});
  cpu::value_backward(dhidden.as<float>(), dw.as<float>(), db.as<float>(), dvalues.as<float>(), hidden.as<float>(), w.as<float>(),
                      hidden[0], hidden[1]);
}

void sample_tokens(Tensor tokens, Tensor logprobs, Tensor logits, Tensor uniforms, const Sampling& sampling, Stream&) {
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
  cpu::sample_tokens(tokens.as<std::int32_t>(), logprobs.as<float>(), logits.as<float>(), uniforms.as<double>(), sampling, logits[0],
                     logits[1]);
}

}  // namespace collimate::kernels
