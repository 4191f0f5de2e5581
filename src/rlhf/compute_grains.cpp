#include "collimate/rlhf/compute_grains.hpp"

#include <algorithm>

namespace collimate::rlhf {

namespace {

/// Picks numbers out of the rows of every sequence, and brings them in sequence order (grains hold consecutive sequences) to every rank.
/// size(sequence): how many; pick(sequence, rows): which.
template <class Size, class Pick>
std::vector<float> gather_rows(const Batch& batch, const Division& division, const Forward& forward, const Size& size, const Pick& pick) {
  std::vector<std::int64_t> begins{0};  // of each grain's numbers
  for (std::int64_t g = 0; g < batch.grains(); ++g) {
    begins.push_back(begins.back());
    for (const std::int64_t member : batch.members(g)) begins.back() += size(batch.sequences()[member]);
  }
  const std::vector<PackedGrain> packed = batch.pack_mine();
  std::vector<float> mine;
  const auto take = [&](std::size_t i, std::span<const float> values) {
    const auto members = batch.members(batch.mine()[i]);
    for (std::size_t s = 0; s < members.size(); ++s) {
      const auto picked = pick(batch.sequences()[members[s]],
                               values.subspan(packed[i].offsets[s], packed[i].offsets[s + 1] - packed[i].offsets[s]));
      mine.insert(mine.end(), picked.begin(), picked.end());
    }
  };
  compute_grains(division, [&] { forward(views_of(packed), take); });
  if (!division.grid) return mine;
  const auto all = gather_all(division.grid->world(), division.grid->speaks() ? mine : std::vector<float>());
  std::vector<float> out(static_cast<std::size_t>(begins.back()));
  for (int rank = 0; rank < static_cast<int>(all.size()); ++rank) {
    if (all[rank].empty()) continue;
    std::int64_t at = 0;
    for (const std::int64_t g : division.grains_of(division.grid->coord_of(rank).data, batch.grains())) {
      if (g < 0) continue;
      const std::int64_t count = begins[g + 1] - begins[g];
      std::copy_n(all[rank].begin() + at, count, out.begin() + begins[g]);
      at += count;
    }
  }
  return out;
}

}  // namespace

std::vector<float> per_token(const Batch& batch, const Division& division, const Forward& forward) {
  return gather_rows(
      batch, division, forward, [](const Sequence& sequence) { return sequence.learned(); },
      [](const Sequence& sequence, std::span<const float> values) { return sequence.learned_of(values); });
}

std::vector<float> per_sequence(const Batch& batch, const Division& division, const Forward& forward) {
  return gather_rows(
      batch, division, forward, [](const Sequence&) { return std::int64_t{1}; },
      [](const Sequence&, std::span<const float> values) { return values.last(1); });
}

std::vector<float> token_logprobs(const Batch& batch, const Division& division, Engine& policy, float temperature) {
  return per_token(batch, division, [&](auto grains, const EachValued& each) {
    policy.score(grains, temperature, [&](std::size_t i, auto logprob, auto) { each(i, logprob); });
  });
}

}  // namespace collimate::rlhf
