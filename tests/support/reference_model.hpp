#pragma once
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "collimate/model/config.hpp"

namespace collimate::test {

using Vector = std::vector<double>;
using Weights = std::map<std::string, Vector>;  ///< parameter name -> flattened global tensor

/// A decoder written as plainly as possible in fp64, one token at a time: the oracle of the real one.
class ReferenceModel {
 public:
  /// adapter_scale: of <matrix>.lora_a and .lora_b, where the weights have them.
  ReferenceModel(const ModelConfig& config, const Weights& weights, double adapter_scale = 0)
      : c_(config), w_(weights), adapter_scale_(adapter_scale) {}

  /// Hidden state after the final norm for every token of one sequence.
  std::vector<Vector> hidden(const std::vector<int>& tokens) const {
    const int n = static_cast<int>(tokens.size());
    std::vector<Vector> x(n);
    for (int t = 0; t < n; ++t) {
      x[t] = row("embedding.weight", tokens[t], c_.width);
      if (c_.positions == Positions::learned) add(x[t], row("position.weight", t, c_.width));
    }
    for (int i = 0; i < c_.layers; ++i) block("block." + std::to_string(i), x);
    for (Vector& v : x) v = norm("final_norm", v);
    return x;
  }
  Vector logits(const Vector& hidden) const { return product(c_.tied ? "embedding.weight" : "head.weight", "", hidden, c_.vocabulary); }
  double value(const Vector& hidden) const { return product("value_head.weight", "value_head.bias", hidden, 1)[0]; }
  /// log softmax(logits / temperature)[target]
  double logprob(const Vector& hidden, int target, double temperature = 1, double* entropy = nullptr) const {
    Vector l = logits(hidden);
    double top = -1e300, sum = 0, mean = 0;
    for (double& x : l) top = std::max(top, x /= temperature);
    for (const double x : l) sum += std::exp(x - top);
    const double lse = top + std::log(sum);
    for (const double x : l) mean += std::exp(x - lse) * x;
    if (entropy) *entropy = lse - mean;
    return l[target] - lse;
  }

 private:
  static void add(Vector& a, const Vector& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  }
  Vector row(const std::string& name, int index, std::int64_t width) const {
    const Vector& w = w_.at(name);
    return {w.begin() + index * width, w.begin() + (index + 1) * width};
  }
  Vector product(const std::string& weight, const std::string& bias, const Vector& x, std::int64_t rows) const {
    const Vector& w = w_.at(weight);
    Vector y(rows);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::size_t k = 0; k < x.size(); ++k) y[r] += w[r * x.size() + k] * x[k];
      if (!bias.empty()) y[r] += w_.at(bias)[r];
    }
    return y;
  }
  Vector linear(const std::string& name, const Vector& x, std::int64_t rows) const {
    const std::string matrix = name.substr(name.rfind('.') + 1);
    const bool attends = matrix == "query" || matrix == "key" || matrix == "value";
    const bool bias = attends ? c_.bias.query_key_value : matrix == "output" ? c_.bias.output : c_.bias.mlp;
    Vector y = product(name + ".weight", bias ? name + ".bias" : "", x, rows);
    if (!w_.count(name + ".lora_a")) return y;
    const auto rank = static_cast<std::int64_t>(w_.at(name + ".lora_a").size() / x.size());
    const Vector more = product(name + ".lora_b", "", product(name + ".lora_a", "", x, rank), rows);
    for (std::int64_t r = 0; r < rows; ++r) y[r] += adapter_scale_ * more[r];
    return y;
  }
  Vector norm(const std::string& name, const Vector& x) const {
    double mean = 0, square = 0;
    if (c_.norm == Norm::layer)
      for (const double v : x) mean += v / static_cast<double>(x.size());
    for (const double v : x) square += (v - mean) * (v - mean) / static_cast<double>(x.size());
    Vector y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      y[i] = (x[i] - mean) / std::sqrt(square + c_.norm_epsilon) * w_.at(name + ".gain")[i];
      if (c_.norm == Norm::layer) y[i] += w_.at(name + ".bias")[i];
    }
    return y;
  }
  /// A rotary frequency after scaling. LLaMA 3.1's: waves longer than context / low are stretched by the factor, those shorter than context /
  /// high are kept, and between the two the share that is kept falls linearly with the number of waves in the context.
  double slowed(double frequency) const {
    const RopeScaling& s = c_.rope_scaling;
    if (s.type == RopeScaling::Type::none) return frequency;
    if (s.type == RopeScaling::Type::linear) return frequency / s.factor;
    const double wave = 2 * M_PI / frequency, context = static_cast<double>(s.original_context);
    if (wave > context / s.low_frequency) return frequency / s.factor;
    if (wave < context / s.high_frequency) return frequency;
    const double kept = (context / wave - s.low_frequency) / (s.high_frequency - s.low_frequency);
    return (1 - kept) * frequency / s.factor + kept * frequency;
  }
  void rotate(Vector& heads, int position) const {
    const std::int64_t d = c_.head_size;
    for (std::size_t h = 0; h < heads.size(); h += d)
      for (std::int64_t i = 0; i < d / 2; ++i) {
        const double angle = position * slowed(std::pow(c_.rope_theta, -2.0 * i / d)), a = heads[h + i], b = heads[h + i + d / 2];
        heads[h + i] = a * std::cos(angle) - b * std::sin(angle);
        heads[h + i + d / 2] = b * std::cos(angle) + a * std::sin(angle);
      }
  }
  void block(const std::string& name, std::vector<Vector>& x) const {
    const int n = static_cast<int>(x.size());
    const std::int64_t d = c_.head_size, group = c_.heads / c_.kv_heads;
    std::vector<Vector> q(n), k(n), v(n);
    for (int t = 0; t < n; ++t) {
      const Vector y = norm(name + ".norm1", x[t]);
      q[t] = linear(name + ".query", y, c_.heads * d);
      k[t] = linear(name + ".key", y, c_.kv_heads * d);
      v[t] = linear(name + ".value", y, c_.kv_heads * d);
      if (c_.positions == Positions::rotary) rotate(q[t], t), rotate(k[t], t);
    }
    for (int t = 0; t < n; ++t) {
      Vector out(c_.heads * d);
      for (std::int64_t h = 0; h < c_.heads; ++h) {
        Vector p(t + 1);
        double sum = 0;
        for (int s = 0; s <= t; ++s) {
          for (std::int64_t i = 0; i < d; ++i) p[s] += q[t][h * d + i] * k[s][h / group * d + i];
          sum += p[s] = std::exp(p[s] / std::sqrt(static_cast<double>(d)));
        }
        for (int s = 0; s <= t; ++s)
          for (std::int64_t i = 0; i < d; ++i) out[h * d + i] += p[s] / sum * v[s][h / group * d + i];
      }
      add(x[t], linear(name + ".output", out, c_.width));
    }
    for (int t = 0; t < n; ++t) add(x[t], linear(name + ".down", inner(name, norm(name + ".norm2", x[t])), c_.width));
  }
  Vector inner(const std::string& name, const Vector& x) const {
    Vector up = linear(name + ".up", x, c_.mlp);
    if (c_.activation == Activation::swiglu) {
      const Vector gate = linear(name + ".gate", x, c_.mlp);
      for (std::size_t i = 0; i < up.size(); ++i) up[i] *= gate[i] / (1 + std::exp(-gate[i]));
      return up;
    }
    for (double& u : up) u = 0.5 * u * (1 + std::tanh(std::sqrt(2 / M_PI) * (u + 0.044715 * u * u * u)));
    return up;
  }
  const ModelConfig& c_;
  const Weights& w_;
  double adapter_scale_;
};

}  // namespace collimate::test
