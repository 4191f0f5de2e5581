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
Kept select(const float* logits, Index columns, const Kept& kept, double goal, Weight&& weight) {
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

/// The weights exp(logit / temperature - top) of one row, in pieces of fixed size.
class Weights {
 public:
  Weights(const float* logits, Index columns, float inverse_temperature, float top)
      : logits_(logits), columns_(columns), inverse_(splat(inverse_temperature)), top_(splat(top)) {}
  double operator()(Index token) {
    if (token < begin_ || token >= begin_ + piece) fill(token / piece * piece);
    return held_[token - begin_];
  }
  static constexpr Index piece = 256;

  /// Sum over the piece that begins at this token.
  double sum_from(Index begin) {
    fill(begin);
    Doubles total{};
    for (Index i = 0; i < piece; i += lanes) {
      const Doubles w = widen(load(held_ + i));
      total.low += w.low;
      total.high += w.high;
    }
    return sum(total);
  }
  double total() {
    double sum = 0;
    for (Index begin = 0; begin < columns_; begin += piece) sum += sum_from(begin);
    return sum;
  }

 private:
  /// Weights behind the row's end are zero.
  void fill(Index begin) {
    begin_ = begin;
    const Index count = std::min(piece, columns_ - begin), body = count / lanes * lanes;
    for (Index i = 0; i < body; i += lanes) store(held_ + i, exp(load(logits_ + begin + i) * inverse_ - top_));
    if (body == piece) return;
    const Lanes rest = exp(load(logits_ + begin + body, count - body) * inverse_ - top_);
    store(held_ + body, select(before(count - body), rest, Lanes{}));
    for (Index i = body + lanes; i < piece; i += lanes) store(held_ + i, Lanes{});
  }
  const float* logits_;
  Index columns_, begin_ = -piece;
  Lanes inverse_, top_;
  alignas(64) float held_[piece];
};

Index best_token(const float* logits, Index columns) {
  Index best = 0;
  for (Index begin = 0; begin < columns; begin += lanes) {
    const Index count = std::min(lanes, columns - begin);
    const Lanes l = count == lanes ? load(logits + begin)
                                   : select(before(count), load(logits + begin, count), splat(logits[begin]));
    if (!(largest(l) > logits[best])) continue;
    for (Index i = begin; i < begin + count; ++i)
      if (logits[i] > logits[best]) best = i;
  }
  return best;
}

/// The first token at which the sum of weights in vocabulary order passes uniform * total, and that total.
struct Drawn {
  Index token;
  double total;
};

Drawn draw_of_kept(double uniform, Index fallback, const float* logits, Index columns, const Kept& kept, Weights& weight) {
  double total = 0, reached = 0;
  visit_kept(logits, columns, kept, [&](Index i, std::uint32_t) { return total += weight(i), true; });
  const double goal = uniform * total;
  Index drawn = fallback;
  visit_kept(logits, columns, kept, [&](Index i, std::uint32_t) {
    const double w = weight(i);
    if (w > 0) drawn = i;
    reached += w;
    return !(reached > goal);
  });
  return {drawn, total};
}

/// The same over all tokens, piece by piece: only the piece that the draw falls into is walked token by token.
Drawn draw_of_all(double uniform, Index fallback, Index columns, Weights& weight) {
  const double total = weight.total();
  double reached = 0;
  const double goal = uniform * total;
  Index drawn = fallback;
  for (Index begin = 0; begin < columns; begin += Weights::piece) {
    const double sum = weight.sum_from(begin);
    if (!(reached + sum > goal) && begin + Weights::piece < columns) {
      reached += sum;
      continue;
    }
    for (Index i = begin; i < std::min(columns, begin + Weights::piece); ++i) {
      if (weight(i) > 0) drawn = i;
      reached += weight(i);
      if (reached > goal) break;
    }
    break;
  }
  return {drawn, total};
}

void sample_row(std::int32_t& token, float& logprob, const float* logits, double uniform, const Sampling& sampling, Index columns) {
  const Index best = best_token(logits, columns);
  const bool greedy = sampling.temperature == 0;
  const float inverse = greedy ? 1 : static_cast<float>(1.0 / sampling.temperature), top = logits[best] * inverse;
  Weights weight(logits, columns, inverse, top);
  if (greedy) {
    token = static_cast<std::int32_t>(best);
    logprob = static_cast<float>(static_cast<double>(top - top) - std::log(weight.total()));  // NaN where no logit is finite
    return;
  }
  const bool every = (sampling.top_k == 0 || sampling.top_k >= columns) && sampling.top_p >= 1;
  Kept kept;
  if (sampling.top_k && sampling.top_k < columns)
    kept = select(logits, columns, kept, static_cast<double>(sampling.top_k), [](Index) { return 1.0; });
  if (sampling.top_p < 1) {
    double total = 0;
    visit_kept(logits, columns, kept, [&](Index i, std::uint32_t) { return total += weight(i), true; });
    kept = select(logits, columns, kept, sampling.top_p * total, weight);
  }
  const Drawn drawn = every ? draw_of_all(uniform, best, columns, weight) : draw_of_kept(uniform, best, logits, columns, kept, weight);
  token = static_cast<std::int32_t>(drawn.token);
  logprob = static_cast<float>(static_cast<double>(logits[drawn.token]) * inverse - top - std::log(drawn.total));
}

}  // namespace

void sample_tokens(std::int32_t* tokens, float* logprobs, const float* logits, const double* uniforms, const Sampling& sampling, Index rows,
                   Index columns) {
  parallel_rows(rows, columns, [=](Index r) { sample_row(tokens[r], logprobs[r], logits + r * columns, uniforms[r], sampling, columns); });
}

}  // namespace collimate::kernels::cpu
