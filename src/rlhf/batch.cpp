#include "collimate/rlhf/batch.hpp"

#include <algorithm>
#include <numeric>

namespace collimate::rlhf {

std::int64_t Sequence::learned() const {
  const auto n = static_cast<std::int64_t>(tokens.size());
  return prompt ? n - prompt : std::max<std::int64_t>(0, n - 1);
}

Batch::Batch(std::vector<Sequence> sequences, std::int64_t grain_tokens, const Communicator& data, std::span<const std::int64_t> groups)
    : sequences_(std::move(sequences)) {
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
  mine_ = part_of(grains(), data.rank(), data.size());
}

PackedGrain Batch::pack(std::int64_t grain) const {
  std::vector<std::vector<std::uint8_t>> masks;
  std::vector<PackedSample> samples;
  masks.reserve(grains_[grain].size());
  for (const std::int64_t i : grains_[grain]) {
    const Sequence& sequence = sequences_[i];
    auto& mask = masks.emplace_back(sequence.tokens.size(), std::uint8_t{1});
    std::fill_n(mask.begin(), std::max<std::int64_t>(sequence.prompt, 1), std::uint8_t{0});
    samples.push_back({sequence.id, sequence.tokens, mask});
  }
  return pack_grain(samples);
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

Grain view_of(const PackedGrain& grain) { return {grain.tokens, grain.positions, grain.targets, grain.offsets, grain.samples}; }

namespace {

// Grains hold consecutive sequences and ranks consecutive grains, so what the ranks found, one after the other, is in sequence order.
template <class Pick>
std::vector<float> gather_rows(const Batch& batch, Communicator& data, const std::function<void(const Grain&, std::span<float>)>& rows,
                               const Pick& pick) {
  std::vector<float> mine;
  agree_on(data, [&] {
    for (std::int64_t g = batch.first(); g < batch.last(); ++g) {
      const PackedGrain grain = batch.pack(g);
      std::vector<float> values(grain.tokens.size());
      rows(view_of(grain), values);
      for (std::size_t s = 0; s < batch.members(g).size(); ++s)
        pick(mine, batch.sequences()[batch.members(g)[s]],
             std::span(values).subspan(grain.offsets[s], grain.offsets[s + 1] - grain.offsets[s]));
    }
  });
  std::vector<float> all;
  for (const auto& rank : gather_all(data, mine)) all.insert(all.end(), rank.begin(), rank.end());
  return all;
}

}  // namespace

std::vector<float> per_token(const Batch& batch, Communicator& data, const std::function<void(const Grain&, std::span<float>)>& rows) {
  return gather_rows(batch, data, rows, [](std::vector<float>& out, const Sequence& sequence, std::span<const float> values) {
    const auto part = values.subspan(sequence.first_row(), sequence.learned());
    out.insert(out.end(), part.begin(), part.end());
  });
}

std::vector<float> per_sequence(const Batch& batch, Communicator& data, const std::function<void(const Grain&, std::span<float>)>& rows) {
  return gather_rows(batch, data, rows,
                     [](std::vector<float>& out, const Sequence&, std::span<const float> values) { out.push_back(values.back()); });
}

}  // namespace collimate::rlhf
