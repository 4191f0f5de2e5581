#pragma once
#include <string>
#include <vector>

#include "collimate/io/checkpoint.hpp"

namespace collimate {

/// Checksums are taken of blocks of this many elements, counted from the beginning of a piece.
inline constexpr std::int64_t checksum_block = std::int64_t{1} << 20;

/// What one dataset of a part holds of a tensor: rows of `columns` elements, of which the first begins at element `begin` and each
/// further one `stride` elements after the one before. A range is a single row, with stride = columns = count.
struct StoredPiece {
  std::string tensor;
  std::int64_t begin = 0, count = 0, columns = 0, stride = 0;
  std::vector<std::string> checksums;  ///< one per block
  bool is_box() const { return columns < count; }
  std::int64_t place(std::int64_t i) const { return begin + i / columns * stride + i % columns; }  ///< in the tensor, of the i-th element
  std::int64_t end() const { return place(count - 1) + 1; }
  std::int64_t count_before(std::int64_t element) const;  ///< how many of its elements lie before that element of the tensor
};

/// One rank's file.
struct StoredPart {
  std::string file;
  std::int64_t bytes = 0;
  std::string attribute;
  std::vector<StoredPiece> pieces;
  std::vector<CheckpointTensor> tensors;  ///< those that this rank made known
};

/// What manifest.json says.
struct Manifest {
  std::int64_t sequence = 0;  ///< later checkpoints of a folder have larger ones
  std::string meta;
  std::vector<StoredPart> parts;
  std::vector<CheckpointTensor> tensors;  ///< sorted by name
};

std::string part_name(int rank);                     ///< "part-00003.h5"
std::string table_name(int rank);                    ///< "part-00003.json", which lives until the checkpoint is published
std::string dataset_name(const StoredPiece& piece);  ///< of a piece in its part
std::string part_to_json(const StoredPart& part);
StoredPart part_from_json(const std::string& text, const std::string& path);
std::string manifest_to_json(const Manifest& manifest);
Manifest read_manifest(const std::string& folder);  ///< throws in a sentence if it is missing or damaged

/// Merges the tensors of all parts, and throws unless their pieces cover every tensor exactly once. `where` is named in errors.
std::vector<CheckpointTensor> check_pieces(const std::vector<StoredPart>& parts, const std::string& where);

/// Throws unless the file of the part is in `folder` with the size that it was published with.
void check_file(const StoredPart& part, const std::string& folder);

}  // namespace collimate
