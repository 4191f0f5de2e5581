#include "collimate/params/division.hpp"

namespace collimate {

Communicator& Division::along(Axis axis) const {
  if (grid) return grid->along(axis);
  static const std::unique_ptr<Communicator> alone = make_single_communicator();
  return *alone;
}

void Division::agree(const std::function<void()>& step) const { grid ? agree_on(grid->world(), step) : step(); }

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

}  // namespace collimate
