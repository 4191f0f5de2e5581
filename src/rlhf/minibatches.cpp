#include "collimate/rlhf/minibatches.hpp"

#include <algorithm>
#include <numeric>

#include "collimate/base/error.hpp"
#include "collimate/base/random.hpp"

namespace collimate::rlhf {

std::vector<std::vector<std::int64_t>> minibatches(std::int64_t samples, std::int64_t minibatch, std::uint64_t seed,
                                                   std::uint64_t iteration, std::uint32_t epoch) {
  require(minibatch > 0, "a minibatch of {} samples is empty; give at least 1", minibatch);
  ensure(samples >= 0, "a batch of {} samples", samples);
  std::vector<std::int64_t> order(static_cast<std::size_t>(samples));
  std::iota(order.begin(), order.end(), 0);
  const RandomKey key(seed, Purpose::minibatch);
  for (std::size_t i = order.size(); i > 1; --i)  // Fisher and Yates
    std::swap(order[i - 1], order[key.below(i, iteration, epoch, static_cast<std::uint32_t>(i))]);
  std::vector<std::vector<std::int64_t>> runs;
  for (std::int64_t first = 0; first < samples; first += minibatch)
    runs.emplace_back(order.begin() + first, order.begin() + std::min(samples, first + minibatch));
  return runs;
}

}  // namespace collimate::rlhf
