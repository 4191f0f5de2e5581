#include "collimate/comm/process_grid.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace collimate {
namespace {

int pick(Axis axis, int tensor, int data, int pipeline) {
  switch (axis) {
    case Axis::tensor: return tensor;
    case Axis::data: return data;
    case Axis::pipeline: return pipeline;
  }
  return 0;
}

}  // namespace

int GridShape::along(Axis axis) const { return pick(axis, tensor, data, pipeline); }
int GridCoord::along(Axis axis) const { return pick(axis, tensor, data, pipeline); }

std::string GridShape::text() const { return fmt::format("{} x {} x {} (tensor x data x pipeline)", tensor, data, pipeline); }

AxisOrder axis_order(const std::vector<std::string>& names) {
  AxisOrder order{};
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  require(sorted == std::vector<std::string>{"data", "pipeline", "tensor"},
          "grid.order must name tensor, data and pipeline once each, the one that varies fastest from rank to rank first");
  for (std::size_t i = 0; i < names.size(); ++i)
    order[i] = names[i] == "tensor" ? Axis::tensor : names[i] == "data" ? Axis::data : Axis::pipeline;
  return order;
}

GridCoord coord_of(int rank, const GridShape& shape, const AxisOrder& order) {
  GridCoord coord;
  for (const Axis axis : order) {
    coord.set(axis, rank % shape.along(axis));
    rank /= shape.along(axis);
  }
  return coord;
}

int rank_of(const GridCoord& coord, const GridShape& shape, const AxisOrder& order) {
  int rank = 0, stride = 1;
  for (const Axis axis : order) {
    rank += stride * coord.along(axis);
    stride *= shape.along(axis);
  }
  return rank;
}

std::string nearest_shapes(const GridShape& wish, int ranks, int shards, std::int64_t most_stages) {
  const std::int64_t stages = most_stages > 0 ? most_stages : std::max(1, wish.pipeline);
  std::vector<GridShape> legal;
  for (int tensor = 1; tensor <= ranks; ++tensor)
    for (int data = 1; ranks % tensor == 0 && (shards == 0 || shards % tensor == 0) && data <= ranks / tensor; ++data)
      if (ranks / tensor % data == 0 && ranks / tensor / data <= stages) legal.push_back({tensor, data, ranks / tensor / data});
  // Changing data costs least: it changes no model's layout.
  const auto distance = [&](const GridShape& shape) {
    const auto ratio = [](int a, int b) { return std::abs(std::log2(static_cast<double>(a) / b)); };
    return ratio(shape.data, wish.data) + 4.0 * ratio(shape.tensor, wish.tensor) + 4.0 * ratio(shape.pipeline, wish.pipeline);
  };
  std::stable_sort(legal.begin(), legal.end(), [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
  std::string names = legal[0].text();
  if (legal.size() > 1) names += " or " + legal[1].text();
  return names;
}

GridShape complete(GridShape shape, int ranks, int shards, std::int64_t most_stages) {
  require(shape.tensor >= 0 && shape.data >= 0 && shape.pipeline >= 0, "a grid cannot have the shape {}", shape.text());
  shape.tensor = std::max(1, shape.tensor);
  shape.pipeline = std::max(1, shape.pipeline);
  if (shape.data == 0) shape.data = static_cast<int>(std::max(1LL, ranks / (1LL * shape.tensor * shape.pipeline)));
  const auto nearest = [&] { return nearest_shapes(shape, ranks, shards, most_stages); };
  const bool divides = shards == 0 || shards % shape.tensor == 0, has_blocks = most_stages == 0 || shape.pipeline <= most_stages;
  if (shape.ranks() != ranks)
    fail("the grid {} needs {} ranks, but the job has {}: {}set grid.* to {}", shape.text(), shape.ranks(), ranks,
         divides && has_blocks ? fmt::format("start {} (mpirun -np {}), or ", shape.ranks(), shape.ranks()) : "", nearest());
  if (!divides)
    fail("grid.tensor = {} does not divide numerics.tensor_shards = {}, and a rank computes whole shards: legal with {} ranks are {}; or set "
         "numerics.tensor_shards (changing it changes results in the last bits) to a multiple",
         shape.tensor, shards, ranks, nearest());
  if (!has_blocks)
    fail("grid.pipeline = {}, and a model has {} blocks: a stage needs at least one; use at most {} stages, with {} ranks {}", shape.pipeline,
         most_stages, most_stages, ranks, nearest());
  return shape;
}

ProcessGrid::ProcessGrid() : alone_(make_single_communicator()), world_(alone_.get()) {
  for (auto& line : along_) line = make_single_communicator();
}

ProcessGrid::ProcessGrid(World& world, GridShape shape, const AxisOrder& order)
    : shape_(complete(shape, world.size())), order_(order), coord_(coord_of(world.rank())), world_(&world.ranks()) {
  for (const Axis axis : {Axis::tensor, Axis::data, Axis::pipeline}) {
    // The ranks of one line along an axis share the coordinates of the other two: the line's first rank names it.
    GridCoord first = coord_;
    first.set(axis, 0);
    along_[static_cast<int>(axis)] = world.split(rank_of(first), coord_.along(axis));
  }
}

void ProcessGrid::wrap(Axis axis, const std::function<std::unique_ptr<Communicator>(std::unique_ptr<Communicator>)>& wrapper) {
  std::unique_ptr<Communicator>& line = along_[static_cast<int>(axis)];
  line = wrapper(std::move(line));
}

double ProcessGrid::waited() const {
  double seconds = world_->waited();
  for (const auto& line : along_) seconds += line->waited();
  return seconds;
}

}  // namespace collimate
