#include "kernels/cpu/optimizer.hpp"

#include <atomic>
#include <bit>
#include <cmath>

#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {

using Index = std::int64_t;

// m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,  with corrections c1 = 1 - beta1^t, c2 = 1 - beta2^t:
// torch: value -= rate/c1 m / (sqrt(v/c2) + epsilon)  =  rate sqrt(c2)/c1 m / (sqrt(v) + epsilon sqrt(c2))
// tf:    value -= rate sqrt(c2)/c1 m / (sqrt(v) + epsilon)
// So the two forms differ in epsilon alone.
void adamw(float* value, const float* gradient, float* first_moment, float* second_moment, const AdamW& how, Index count) {
  const double correction1 = 1 - std::pow(how.beta1, static_cast<double>(how.step));
  const double root2 = std::sqrt(1 - std::pow(how.beta2, static_cast<double>(how.step)));
  const auto scale = splat(static_cast<float>(how.gradient_scale));
  const auto beta1 = splat(static_cast<float>(how.beta1)), rest1 = splat(static_cast<float>(1 - how.beta1));
  const auto beta2 = splat(static_cast<float>(how.beta2)), rest2 = splat(static_cast<float>(1 - how.beta2));
  const auto rate = splat(static_cast<float>(how.rate * root2 / correction1));
  const auto epsilon = splat(static_cast<float>(how.form == EpsilonForm::torch ? how.epsilon * root2 : how.epsilon));
  const auto keep = splat(static_cast<float>(1 - how.rate * how.decay));
  parallel_elements(count, [=](Index begin, Index end) {
    for (Index i = begin; i < end; i += lanes) {
      const Index n = end - i;
      const Lanes g = load(gradient + i, n) * scale;
      const Lanes m = fma(load(first_moment + i, n), beta1, g * rest1);
      const Lanes v = fma(load(second_moment + i, n), beta2, g * g * rest2);
      store(first_moment + i, m, n);
      store(second_moment + i, v, n);
      store(value + i, load(value + i, n) * keep - rate * m / (square_root(v) + epsilon), n);
    }
  });
}

void block_squares(double* sums, const float* x, Index blocks) {
  parallel_tiles(tiles_of(blocks, 8), blocks > 8, [=](Index tile) {
    for (Index b = tile * 8; b < blocks && b < tile * 8 + 8; ++b) {
      Doubles total{};
      for (Index i = 0; i < chunk_block; i += lanes) {
        const Doubles v = widen(load(x + b * chunk_block + i));
        total.low += v.low * v.low;
        total.high += v.high * v.high;
      }
      sums[b] = sum(total);
    }
  });
}

// The sum of the splitmix64 finaliser (Steele et al., 2014) of (place, word): a changed, swapped or moved word changes it.
std::uint64_t element_hash(Numbers x, Index first, Index count) {
  std::atomic<std::uint64_t> total{0};
  const auto hash = [=, &total](const auto* numbers) {
    parallel_elements(count, [=, &total](Index begin, Index end) {
      std::uint64_t sum = 0;
      for (Index i = begin; i < end; ++i) {
        const auto word = std::bit_cast<std::uint32_t>(widened(numbers[i]));
        std::uint64_t z = static_cast<std::uint64_t>(first + i + 1) * 0x9E3779B97F4A7C15u ^ word * 0xD6E8FEB86659FD93u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        sum += z ^ z >> 31;
      }
      total += sum;
    });
  };
  std::visit(hash, x);
  return total;
}

}  // namespace collimate::kernels::cpu
