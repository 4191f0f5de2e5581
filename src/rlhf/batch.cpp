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

}  // namespace collimate::rlhf
