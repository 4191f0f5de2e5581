#include "collimate/params/division.hpp"

#include <algorithm>

#include "collimate/kernels/optimizer.hpp"

namespace collimate {

Communicator& Division::along(Axis axis) const {
  if (grid) return grid->along(axis);
  static const std::unique_ptr<Communicator> alone = make_single_communicator();
  return *alone;
}

std::vector<std::int64_t> Division::grains_of(int rank, std::int64_t total) const {
  std::vector<std::int64_t> mine;
  const int ranks = this->ranks(Axis::data);
  if (!placement().gradients) {
    const Part run = part_of(total, rank, ranks);
    for (std::int64_t g = run.begin; g < run.begin + run.count; ++g) mine.push_back(g);
    return mine;
  }
  for (std::int64_t first = 0; first < total; first += ranks) mine.push_back(first + rank < total ? first + rank : -1);
  return mine;
}

Part owned_part(std::int64_t elements, int rank, int ranks) {
  const std::int64_t block = kernels::chunk_block;
  const Part blocks = part_of((elements + block - 1) / block, rank, ranks);
  const std::int64_t begin = std::min(elements, blocks.begin * block);
  return {begin, std::min(elements, (blocks.begin + blocks.count) * block) - begin};
}

void gather_shares(Communicator& data, Tensor whole, Stream& stream) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < data.size(); ++rank) counts.push_back(owned_part(whole.count(), rank, data.size()).count);
  const Part mine = owned_part(whole.count(), data.rank(), data.size());
  data.all_gather(whole, whole.slice(mine.begin, mine.count), counts, stream);
}

}  // namespace collimate
