#pragma once
#include <array>
#include <memory>
#include <string>

#include "collimate/comm/world.hpp"

namespace collimate {

/// The three directions of parallelism.
enum class Axis { tensor, data, pipeline };

/// How many ranks lie along each axis.
struct GridShape {
  int tensor = 1, data = 1, pipeline = 1;
  int along(Axis axis) const;
  long long ranks() const { return 1LL * tensor * data * pipeline; }
  std::string text() const;  ///< "2 x 3 x 1 (tensor x data x pipeline)"
  bool operator==(const GridShape&) const = default;
};

/// A rank's place in the grid.
struct GridCoord {
  int tensor = 0, data = 0, pipeline = 0;
  int along(Axis axis) const;
  bool operator==(const GridCoord&) const = default;
};

/// Tensor varies fastest, so that it stays inside a node; pipeline slowest.
GridCoord coord_of(int rank, const GridShape& shape);
int rank_of(const GridCoord& coord, const GridShape& shape);

/// The shape with each 0 replaced: data takes the ranks that are left (1 where no rank count fits), the other axes 1.
/// Throws a sentence naming the nearest legal shapes if the product is not `ranks`.
GridShape complete(GridShape shape, int ranks);

/// Who this rank is among tensor x data x pipeline, and with whom it shares each axis.
class ProcessGrid {
 public:
  ProcessGrid(World& world, GridShape shape);
  const GridShape& shape() const { return shape_; }
  const GridCoord& coord() const { return coord_; }
  Communicator& along(Axis axis) const { return *along_[static_cast<int>(axis)]; }
  Communicator& world() const { return *world_; }
  double waited() const;  ///< seconds in which this rank waited for others, in the communicators above

 private:
  GridShape shape_;
  GridCoord coord_;
  Communicator* world_;
  std::array<std::unique_ptr<Communicator>, 3> along_;
};

}  // namespace collimate
