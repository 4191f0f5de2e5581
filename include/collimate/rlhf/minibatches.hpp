#pragma once
#include <cstdint>
#include <vector>

namespace collimate::rlhf {

/// The minibatches of one PPO epoch over a global batch of N samples: one permutation of 0 .. N-1 that depends on
/// (seed, iteration, epoch) alone, cut into runs of `minibatch` samples. The last run may be shorter and is kept, so every sample is in
/// exactly one. `for (const auto& samples : minibatches(...)) step(samples);`
std::vector<std::vector<std::int64_t>> minibatches(std::int64_t samples, std::int64_t minibatch, std::uint64_t seed,
                                                   std::uint64_t iteration, std::uint32_t epoch);

}  // namespace collimate::rlhf
