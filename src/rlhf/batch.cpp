#include "collimate/rlhf/batch.hpp"

#include <algorithm>
#include <numeric>

#include "collimate/kernels/rows.hpp"

namespace collimate::rlhf {

std::int64_t Sequence::learned() const {
  const auto n = static_cast<std::int64_t>(tokens.size());
  if (!mask.empty()) return std::count(mask.begin() + 1, mask.end(), 1);
  return prompt ? n - prompt : std::max<std::int64_t>(0, n - 1);
}

std::vector<float> Sequence::learned_of(std::span<const float> rows) const {
  if (mask.empty()) return {rows.begin() + first_row(), rows.begin() + first_row() + learned()};
  std::vector<float> out;
  for (std::size_t t = 1; t < mask.size(); ++t)
    if (mask[t]) out.push_back(rows[t - 1]);
  return out;
}

Batch::Batch(std::vector<Sequence> sequences, std::int64_t grain_tokens, const Division& division, std::span<const std::int64_t> groups)
    : division_(division), sequences_(std::move(sequences)) {
  std::vector<std::int64_t> ones;
  if (groups.empty()) {
    ones.assign(sequences_.size(), 1);
    groups = ones;
  }
  std::vector<std::int64_t> lengths, starts{0}, ids;
  for (const std::int64_t size : groups) {
    std::int64_t tokens = 0;
    for (std::int64_t i = starts.back(); i < starts.back() + size; ++i) tokens += static_cast<std::int64_t>(sequences_[i].tokens.size());
    lengths.push_back(tokens);
    ids.push_back(sequences_[starts.back()].id);
    starts.push_back(starts.back() + size);
  }
  for (const auto& packed : collimate::pack(lengths, grain_tokens, ids)) {
    std::vector<std::int64_t> members;
    for (const std::int64_t group : packed)
      for (std::int64_t i = starts[group]; i < starts[group + 1]; ++i) members.push_back(i);
    grains_.push_back(std::move(members));
  }
  mine_ = division.grains(grains());
}

PackedGrain Batch::pack(std::int64_t grain) const {
  std::vector<std::vector<std::uint8_t>> masks;
  std::vector<PackedSample> samples;
  masks.reserve(grains_[grain].size());
  std::int64_t tokens = 0;
  for (const std::int64_t i : grains_[grain]) {
    const Sequence& sequence = sequences_[i];
    auto& mask = masks.emplace_back(sequence.mask.empty() ? std::vector<std::uint8_t>(sequence.tokens.size(), 1) : sequence.mask);
    if (sequence.mask.empty()) std::fill_n(mask.begin(), std::max<std::int64_t>(sequence.prompt, 1), std::uint8_t{0});
    samples.push_back({sequence.id, sequence.tokens, mask});
    tokens += std::ssize(sequence.tokens);
  }
  return pack_grain(samples, kernels::padded_rows(tokens));
}

std::int64_t Batch::tokens() const {
  return std::accumulate(sequences_.begin(), sequences_.end(), std::int64_t{0},
                         [](std::int64_t sum, const Sequence& s) { return sum + static_cast<std::int64_t>(s.tokens.size()); });
}

std::vector<std::int64_t> Batch::learned_lengths() const {
  std::vector<std::int64_t> lengths;
  for (const Sequence& sequence : sequences_) lengths.push_back(sequence.learned());
  return lengths;
}

std::vector<PackedGrain> Batch::pack_mine() const {
  std::vector<PackedGrain> out;
  for (const std::int64_t g : mine_) out.push_back(g < 0 ? PackedGrain{} : pack(g));
  return out;
}

void Batch::leave_out(std::int64_t count, std::int64_t grain, const PackedGrain& packed, std::int64_t first,
                      std::span<float> gradient) const {
  if (grain < 0 || count >= std::ssize(sequences_)) return;
  const std::int64_t end = first + std::ssize(gradient);
  for (std::size_t s = 0; s < grains_[grain].size(); ++s)
    if (grains_[grain][s] >= count)
      for (std::int64_t row = std::max<std::int64_t>(first, packed.offsets[s]); row < std::min<std::int64_t>(end, packed.offsets[s + 1]);
           ++row)
        gradient[row - first] = 0;
}

void Batch::gather_bytes(std::span<const std::byte> mine, std::size_t each, const Put& put) const {
  if (!division_.grid) {
    for (std::size_t i = 0; i < mine_.size(); ++i) put(mine_[i], mine.subspan(i * each, each));
    return;
  }
  const auto all = division_.grid->world().gather_bytes(division_.grid->speaks() ? mine : std::span<const std::byte>());
  for (int rank = 0; rank < static_cast<int>(all.size()); ++rank) {
    if (all[rank].empty()) continue;
    const std::vector<std::int64_t> theirs = division_.grains_of(division_.grid->coord_of(rank).data, grains());
    ensure(all[rank].size() == theirs.size() * each, "rank {} found {} bytes for {} grains", rank, all[rank].size(), theirs.size());
    for (std::size_t i = 0; i < theirs.size(); ++i)
      if (theirs[i] >= 0) put(theirs[i], std::span(all[rank]).subspan(i * each, each));
  }
}

std::vector<Grain> views_of(const std::vector<PackedGrain>& grains) {
  std::vector<Grain> views;
  for (const PackedGrain& grain : grains) views.push_back({grain.tokens, grain.positions, grain.targets, grain.offsets, grain.samples});
  return views;
}

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

}  // namespace collimate::rlhf
