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

/// The two shapes of exactly `ranks` ranks that change the wish least, by the ratios of their sizes.
std::string nearest_shapes(const GridShape& wish, int ranks) {
  std::vector<GridShape> legal;
  for (int tensor = 1; tensor <= ranks; ++tensor)
    for (int data = 1; ranks % tensor == 0 && data <= ranks / tensor; ++data)
      if (ranks / tensor % data == 0) legal.push_back({tensor, data, ranks / tensor / data});
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

}  // namespace

int GridShape::along(Axis axis) const { return pick(axis, tensor, data, pipeline); }
int GridCoord::along(Axis axis) const { return pick(axis, tensor, data, pipeline); }

std::string GridShape::text() const { return fmt::format("{} x {} x {} (tensor x data x pipeline)", tensor, data, pipeline); }

GridCoord coord_of(int rank, const GridShape& shape) {
  return {rank % shape.tensor, rank / shape.tensor % shape.data, rank / shape.tensor / shape.data};
}

int rank_of(const GridCoord& coord, const GridShape& shape) {
  return coord.tensor + shape.tensor * (coord.data + shape.data * coord.pipeline);
}

GridShape complete(GridShape shape, int ranks) {
  require(shape.tensor >= 0 && shape.data >= 0 && shape.pipeline >= 0, "a grid cannot have the shape {}", shape.text());
  shape.tensor = std::max(1, shape.tensor);
  shape.pipeline = std::max(1, shape.pipeline);
  if (shape.data == 0) shape.data = static_cast<int>(std::max(1LL, ranks / (1LL * shape.tensor * shape.pipeline)));
  require(shape.ranks() == ranks, "the grid {} needs {} ranks, but {} run: start {} (mpirun -np {}), or set grid.* to {}", shape.text(),
          shape.ranks(), ranks, shape.ranks(), shape.ranks(), nearest_shapes(shape, ranks));
  return shape;
}

ProcessGrid::ProcessGrid(World& world, GridShape shape)
    : shape_(complete(shape, world.size())), coord_(coord_of(world.rank(), shape_)), world_(&world.ranks()) {
  for (const Axis axis : {Axis::tensor, Axis::data, Axis::pipeline}) {
    // The ranks of one line along an axis share the coordinates of the other two: the line's first rank names it.
    GridCoord first = coord_;
    (axis == Axis::tensor ? first.tensor : axis == Axis::data ? first.data : first.pipeline) = 0;
    along_[static_cast<int>(axis)] = world.split(rank_of(first, shape_), coord_.along(axis));
  }
}

double ProcessGrid::waited() const {
  double seconds = world_->waited();
  for (const auto& line : along_) seconds += line->waited();
  return seconds;
}

}  // namespace collimate
