#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "kernels/cpu/head.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

/// Floats as integers of the same order.
std::uint32_t order_key(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x + 0.0f);  // -0 becomes 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// A set of tokens: all whose key is above `key`, and the first `ties` whose key equals it.
struct Kept {
  std::uint32_t key = 0;
  Index ties = std::numeric_limits<Index>::max();
};

/// Calls visit(token, key) for the kept tokens, in vocabulary order, until it returns false.
template <class Visit>
void visit_kept(const float* logits, Index columns, const Kept& kept, const Visit& visit) {
  Index ties = 0;
  for (Index i = 0; i < columns; ++i) {
    const std::uint32_t key = order_key(logits[i]);
    if (key < kept.key || (key == kept.key && ties++ >= kept.ties)) continue;
    if (!visit(i, key)) return;
  }
}

/// The smallest set of largest logits among the kept ones whose summed weight reaches `goal`: the key is found byte by byte, from
/// the sums of weight(token) over the tokens that share the bytes found so far.
template <class Weight>
Kept select(const float* logits, Index columns, const Kept& kept, double goal, const Weight& weight) {
  std::uint32_t prefix = 0;
  double above = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    std::array<double, 256> sums{};
    std::array<bool, 256> present{};
    visit_kept(logits, columns, kept, [&](Index i, std::uint32_t key) {
      if (shift < 24 && (key ^ prefix) >> (shift + 8)) return true;
      const std::uint32_t byte = key >> shift & 255;
      sums[byte] += weight(i);
      present[byte] = true;
      return true;
    });
    int byte = 255, lowest = 255;
    for (int b = 255; b >= 0; --b)
      if (present[b]) lowest = b;
    while (byte > lowest && (!present[byte] || above + sums[byte] < goal)) above += sums[byte--];
    prefix |= static_cast<std::uint32_t>(byte) << shift;
  }
  Index ties = 0;  // of the tokens at the border, the lower ids until the goal is reached
  visit_kept(logits, columns, kept, [&](Index i, std::uint32_t key) {
    if (key != prefix) return true;
    ++ties;
    above += weight(i);
    return above < goal;
  });
  return {prefix, ties};
}

void sample_row(std::int32_t& token, float& logprob, const float* logits, double uniform, const Sampling& sampling, Index columns) {
  const Index best = std::max_element(logits, logits + columns) - logits;
  if (sampling.temperature == 0) {
    token = static_cast<std::int32_t>(best);
    logprob = 0;
    return;
  }
  const float inverse = static_cast<float>(1.0 / sampling.temperature), top = logits[best] * inverse;
  alignas(64) float weights[lanes];
  Index held = -1;  // the sixteen tokens whose weights are at hand
  const auto weight = [&](Index i) {
    if (i / lanes != held) {
      held = i / lanes;
      store(weights, exp(load(logits + held * lanes, columns - held * lanes) * splat(inverse) - splat(top)));
    }
    return static_cast<double>(weights[i % lanes]);
  };
  const auto total_of = [&](const Kept& kept) {
    double total = 0;
    visit_kept(logits, columns, kept, [&](Index i, std::uint32_t) { return total += weight(i), true; });
    return total;
  };
  Kept kept;
  if (sampling.top_k && sampling.top_k < columns)
    kept = select(logits, columns, kept, static_cast<double>(sampling.top_k), [](Index) { return 1.0; });
  if (sampling.top_p < 1) kept = select(logits, columns, kept, sampling.top_p * total_of(kept), weight);
  const double total = total_of(kept), goal = uniform * total;
  double reached = 0;
  Index drawn = best;
  visit_kept(logits, columns, kept, [&](Index i, std::uint32_t) {
    const double w = weight(i);
    if (w > 0) drawn = i;
    reached += w;
    return !(reached > goal);
  });
  token = static_cast<std::int32_t>(drawn);
  logprob = static_cast<float>(static_cast<double>(logits[drawn]) * inverse - top - std::log(total));
}

}  // namespace

void sample_tokens(std::int32_t* tokens, float* logprobs, const float* logits, const double* uniforms, const Sampling& sampling, Index rows,
                   Index columns) {
  parallel_rows(rows, columns, [=](Index r) { sample_row(tokens[r], logprobs[r], logits + r * columns, uniforms[r], sampling, columns); });
}

}  // namespace collimate::kernels::cpu
