#pragma once
#include <functional>
#include <string>
#include <vector>

#include "collimate/base/shape.hpp"
#include "collimate/comm/communicator.hpp"
#include "collimate/kernels/optimizer.hpp"

namespace collimate {

/// How a parameter is divided over the virtual shards (numerics contract R2): not at all (it lies in the chunk's shared section), by rows
/// (the first axis) or by columns (the second).
enum class Split { none, rows, columns };

/// Where a parameter, or one shard's part of it, lies in its chunk, and the part's own shape.
struct View {
  std::int64_t offset = 0;  ///< -1: another rank holds it
  Shape shape;
  std::int64_t count() const { return shape.count(); }
  bool held() const { return offset >= 0; }
};

/// How a parameter starts: normal numbers of this standard deviation, or (0) a constant.
struct Initial {
  double deviation = 0, constant = 0;
};

/// A named tensor of a model.
struct Parameter {
  std::string name;
  Shape shape;  ///< global
  Split split = Split::none;
  bool decays = false;  ///< weight decay applies
  Initial initial;
  int chunk = 0;
  std::vector<std::int64_t> bounds;  ///< V+1 borders along the split axis; {} where not split
  std::vector<View> parts;           ///< one per shard, or one
};

/// All parameters of one block (or the embedding, the head ...) in one flat range: a shared section, then one section per virtual
/// shard, each padded with zeros to whole blocks of 1,024 elements. Elements are fp32. A rank holds the shared section and its own
/// shards' sections of the chunks of its pipeline stage; sections that it does not hold have no length there.
struct Chunk {
  std::string name;
  std::int64_t offset = 0;  ///< in the store's flat range
  std::int64_t size = 0;    ///< as held
  std::vector<std::int64_t> sections;  ///< V+2 borders within the chunk, as held
  bool held = true;
  bool copy = false;  ///< held here to be used once more; another stage counts it
};

/// What streams: whole blocks of a chunk, as held. A function of the model and its shards alone, never of where they rest; so neither is an
/// operation's order. All of a chunk, or of a table of the vocabulary a run of rows of one shard that begins at a multiple of 1,024 rows.
struct Unit {
  int chunk = 0;                       ///< whose values
  int values = 0;                      ///< the unit that has them: itself but for the second place of a tied chunk
  std::int64_t begin = 0, count = 0;   ///< in the chunk
  std::int64_t gradient = 0;           ///< offset in the flat gradient: of a chunk's unit, also in the flat values
};

/// Rows of a table of the vocabulary that one unit holds.
struct TableRows {
  int unit = 0;
  int shard = 0;           ///< of all
  std::int64_t first = 0;  ///< the id of the first row
  View view;               ///< [rows, columns], in the chunk
};

/// The borders n*v/V, in units of `unit` elements, that divide n things over V virtual shards.
std::vector<std::int64_t> shard_bounds(std::int64_t n, int shards, std::int64_t unit = 1);

/// Which of a chunk's places a rank has.
enum class Presence {
  yes,
  no,
  copy  ///< values and state are held, but another pipeline stage counts them (a tied embedding beside its head)
};

/// The order of all parameters of a model, and the place of those that a rank holds: the shards `held` of each layer (all of them on one
/// rank), in the chunks of its pipeline stage.
class ParameterLayout {
 public:
  explicit ParameterLayout(int shards) : ParameterLayout(shards, {0, shards}) {}
  ParameterLayout(int shards, Part held) : shards_(shards), held_(held) {}

  /// Starts a chunk; its parameters follow, then close_chunk(), which returns the chunk's index. unit: elements, whole blocks, after which a
  /// section is cut into units; 0: the chunk is one.
  void open_chunk(std::string name, Presence presence = Presence::yes, std::int64_t unit = 0);
  void add(std::string name, Shape shape, bool decays, Initial initial);  ///< into the shared section
  void add(std::string name, Shape shape, Split split, std::vector<std::int64_t> bounds, bool decays, Initial initial);
  int close_chunk();
  /// Declares that a chunk is used in a second place whose gradient is summed apart; the two sums are added once, at the end of a
  /// step (numerics contract R3). Returns the index of that place, which only gradients have. All chunks come before all ties.
  /// Where the two places are on different pipeline stages, each has its gradient in the chunk's own range. here: the second place is
  /// on this stage.
  int tie(int chunk, bool here = true);

  int shards() const { return shards_; }
  const Part& held() const { return held_; }  ///< the shards of this rank
  bool held(int shard) const { return shard >= held_.begin && shard < held_.begin + held_.count; }
  const std::vector<Chunk>& chunks() const { return chunks_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter& parameter(const std::string& name) const;
  bool has(const std::string& name) const;
  std::int64_t size() const { return size_; }                    ///< elements of all chunks, padding included
  std::int64_t gradient_size() const { return gradient_size_; }  ///< size() and the tied gradients
  struct Tie {
    int chunk;
    std::int64_t offset;  ///< in the flat gradient
    bool apart;           ///< both places are on this stage
  };
  const std::vector<Tie>& ties() const { return ties_; }
  /// Whether the gradient of a unit has a sum of its own: not a tie's whose chunk's first place is on another stage.
  bool summed_apart(const Unit& unit) const { return &unit == &units_[unit.values] || unit.gradient >= size_; }
  /// Which units of the chunks are the last ones in the order of use that hold at least this share of all bytes.
  std::vector<bool> last_units(double share) const;
  int chunk_units() const { return chunk_units_; }  ///< those of chunks; behind them come those of ties
  /// Of all chunks in order, one at least of each, then of the ties.
  const std::vector<Unit>& units() const { return units_; }
  Part units_of(int chunk_or_tie) const { return places_[chunk_or_tie]; }
  std::int64_t largest_unit() const;     ///< elements
  std::int64_t parameter_count() const;  ///< of the whole model, without padding
  /// The rows that are held of a table [rows, columns] that is split by rows and alone in its chunk; place: the chunk or its tie.
  std::vector<TableRows> table_rows(const std::string& name, int place) const;

  View view(const std::string& name, int shard = 0) const { return parameter(name).parts[shard]; }
  /// Parameters that lie one after the other in a shard, seen as one matrix (or vector) with the rows of all.
  View fused(const std::vector<std::string>& names, int shard) const;
  /// Visits those of the elements [begin, begin + count) of the flattened global parameter that are held, as runs of consecutive memory.
  using Run = std::function<void(std::int64_t element, std::int64_t offset_in_store, std::int64_t length)>;
  void for_each_run(const Parameter& parameter, std::int64_t begin, std::int64_t count, const Run& run) const;

 private:
  int shards_;
  Part held_;
  std::vector<Chunk> chunks_;
  std::vector<Parameter> parameters_;
  std::vector<Tie> ties_;
  std::vector<Unit> units_;
  int chunk_units_ = 0;
  std::vector<Part> places_;        // units of each chunk and tie
  std::vector<std::int64_t> fill_;  // elements so far in each section of the open chunk
  std::int64_t unit_ = 0;           // of the open chunk
  std::size_t first_open_ = 0;
  std::int64_t size_ = 0, gradient_size_ = 0;
  bool open_ = false;
};

}  // namespace collimate
