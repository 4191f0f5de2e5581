#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "collimate/base/dtype.hpp"
#include "collimate/base/shape.hpp"

namespace collimate {

// A checkpoint is a folder: manifest.json (parts, tensors, where each element lies, checksums, meta) and one HDF5 file per rank.
// It holds logical tensors, each element once; who wrote which range or box does not matter to who reads it.

/// A logical tensor of a checkpoint.
struct CheckpointTensor {
  std::string name;
  Shape shape;  ///< global
  DType dtype;  ///< f32, f64 or i64
  bool operator==(const CheckpointTensor&) const = default;
};

/// Rows [row_begin, row_begin + rows) by columns [column_begin, column_begin + columns) of a tensor with two axes.
struct Box {
  std::int64_t row_begin, rows, column_begin, columns;
};

/// Writes one rank's part of a checkpoint into `folder`.partial/, which publish() renames to `folder`:
///   every rank: write(...) as often as needed, close_part();   then all agree that all succeeded;   rank 0: publish(meta).
/// If anything fails on any rank, every rank calls abandon(); what was published before under the same name stays valid until the rename.
class CheckpointWriter {
 public:
  CheckpointWriter(const std::string& folder, int rank, int ranks);
  ~CheckpointWriter();
  /// Elements [begin, begin + values.size()) of the flattened tensor `name`. All ranges and boxes of all ranks must cover it exactly.
  /// An empty one only makes the tensor known (every tensor must be made known by some rank).
  void write(const std::string& name, const Shape& shape, std::int64_t begin, std::span<const float> values);
  void write(const std::string& name, const Shape& shape, std::int64_t begin, std::span<const double> values);
  void write(const std::string& name, const Shape& shape, std::int64_t begin, std::span<const std::int64_t> values);
  /// A box of a tensor with two axes; `values` are its elements row by row.
  void write_box(const std::string& name, const Shape& shape, const Box& box, std::span<const float> values);
  void attribute(const std::string& json);  ///< something to remember of this rank (host, processor); shown by inspect
  void close_part();                        ///< returns when this rank's part is on the disk
  /// Rank 0, after every rank's close_part(): checks that the parts fit together, writes the manifest and renames. `meta` is JSON.
  void publish(const std::string& meta);
  /// Removes this rank's part. The ranks must meet (a barrier) before the next checkpoint of the same name.
  void abandon() noexcept;

 private:
  struct Part;
  void write_range(const std::string& name, const Shape& shape, DType dtype, std::int64_t begin, const void* values, std::int64_t count);
  std::string folder_, partial_;
  int rank_, ranks_;
  std::unique_ptr<Part> part_;
};

/// Reads a published checkpoint. Every block that is read is compared with its checksum; an error names file and tensor.
/// Not for use by two threads at once.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::string& folder);
  CheckpointReader(CheckpointReader&&) noexcept;
  ~CheckpointReader();
  const std::string& folder() const;
  const std::string& meta() const;                      ///< the JSON text given to publish()
  const std::vector<CheckpointTensor>& tensors() const;  ///< sorted by name
  bool has(const std::string& name) const;
  const CheckpointTensor& find(const std::string& name) const;
  std::vector<std::string> attributes() const;  ///< one per part
  std::int64_t bytes() const;                   ///< of all parts
  void check_parts() const;                     ///< throws where a part is missing or has another size than it had when published
  void verify() const;                          ///< reads everything; throws where a checksum does not fit
  /// Elements [begin, begin + count) of the flattened tensor, which must be of that type.
  void read(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const;
  void read(const std::string& name, std::int64_t begin, std::int64_t count, double* out) const;
  void read(const std::string& name, std::int64_t begin, std::int64_t count, std::int64_t* out) const;

 private:
  struct Content;
  void read_range(const std::string& name, DType dtype, std::int64_t begin, std::int64_t count, void* out) const;
  std::unique_ptr<Content> content_;
};

/// The last complete checkpoint of a folder of checkpoints in the order of publishing, among those whose name is `prefix` and a number (all,
/// where there is no prefix); "" if there is none. Incomplete or damaged ones are passed over and, where `passed_over` is given, described there.
std::string latest_checkpoint(const std::string& checkpoints, const std::string& prefix = "",
                              std::vector<std::string>* passed_over = nullptr);

/// Removes all but the last `keep` complete checkpoints of such names and those whose number stays, and what crashed runs left of them. To be
/// called by one rank, while none is being written.
void remove_old_checkpoints(const std::string& checkpoints, int keep, const std::string& prefix = "",
                            const std::function<bool(std::int64_t)>& stays = {});

/// The checkpoints that a stage of a run has written, NAME and NAME-NUMBER, and what crashed runs left of them. Throws where one holds a file
/// that is no checkpoint's.
std::vector<std::string> checkpoints_of_stage(const std::string& checkpoints, const std::string& stage);
/// Gives a checkpoint another name beside its own; one that has this name already is removed first.
void rename_checkpoint(const std::string& folder, const std::string& name);
/// Removes a checkpoint so that a crash at any moment leaves nothing that looks complete.
void remove_checkpoint(const std::string& folder);

}  // namespace collimate
