#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

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
  void set(Axis axis, int place) { (axis == Axis::tensor ? tensor : axis == Axis::data ? data : pipeline) = place; }
  bool operator==(const GridCoord&) const = default;
};

/// Which axis varies fastest from rank to rank: by default tensor, so that it stays inside a node; pipeline slowest.
using AxisOrder = std::array<Axis, 3>;
constexpr AxisOrder usual_order = {Axis::tensor, Axis::data, Axis::pipeline};
AxisOrder axis_order(const std::vector<std::string>& names);  ///< of the three names, each once
GridCoord coord_of(int rank, const GridShape& shape, const AxisOrder& order = usual_order);
int rank_of(const GridCoord& coord, const GridShape& shape, const AxisOrder& order = usual_order);

/// The shape with each 0 replaced: data takes the ranks that are left (1 where no rank count fits), the other axes 1.
/// Throws a sentence naming the nearest legal shapes if the product is not `ranks`.
/// shards: tensor must divide it (0: any). most_stages: blocks of the models, which pipeline must not exceed (0: not known yet).
GridShape complete(GridShape shape, int ranks, int shards = 0, std::int64_t most_stages = 0);

/// The two legal shapes of exactly `ranks` ranks closest to the request: "1 x 4 x 1 (tensor x data x pipeline) or ...". Where most_stages
/// is not known, none has more stages than the request.
std::string nearest_shapes(const GridShape& wish, int ranks, int shards, std::int64_t most_stages);

/// Who this rank is among tensor x data x pipeline, and with whom it shares each axis.
class ProcessGrid {
 public:
  ProcessGrid();  ///< one rank; needs no MPI
  ProcessGrid(World& world, GridShape shape, const AxisOrder& order = usual_order);
  const GridShape& shape() const { return shape_; }
  const GridCoord& coord() const { return coord_; }
  Communicator& along(Axis axis) const { return *along_[static_cast<int>(axis)]; }
  Communicator& world() const { return *world_; }
  GridCoord coord_of(int rank) const { return collimate::coord_of(rank, shape_, order_); }
  int rank_of(const GridCoord& coord) const { return collimate::rank_of(coord, shape_, order_); }
  /// Whether this rank speaks for its replica: it holds the last layers, and the first of the ranks that share them.
  bool speaks() const { return coord_.tensor == 0 && coord_.pipeline == shape_.pipeline - 1; }
  /// Puts something between this rank and the others of an axis, such as a test that harms messages. `wrapper` makes it of what was there.
  void wrap(Axis axis, const std::function<std::unique_ptr<Communicator>(std::unique_ptr<Communicator>)>& wrapper);
  double waited() const;  ///< seconds in which this rank waited for others, in the communicators above

 private:
  std::unique_ptr<Communicator> alone_;
  GridShape shape_;
  AxisOrder order_ = usual_order;
  GridCoord coord_;
  Communicator* world_;
  std::array<std::unique_ptr<Communicator>, 3> along_;
};

}  // namespace collimate
