#include "collimate/collectives/shares.hpp"

#include <algorithm>

#include "collimate/kernels/optimizer.hpp"

namespace collimate {

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
