#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/checksum.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/hdf5_file.hpp"
#include "collimate/io/checkpoint.hpp"
#include "io/file.hpp"
#include "io/manifest.hpp"

namespace collimate {

namespace {

namespace fs = std::filesystem;

/// One more than the largest sequence number of the other checkpoints beside `folder`.
std::int64_t next_sequence(const fs::path& folder) {
  std::int64_t last = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder.parent_path(), error)) {
    if (!fs::exists(entry.path() / "manifest.json", error)) continue;
    try {
      last = std::max(last, read_manifest(entry.path().string()).sequence);
    } catch (const Error&) {
      continue;  // a damaged one will be passed over when it is read, too
    }
  }
  return last + 1;
}

/// Adds the manifest to the finished parts and renames, in an order in which a crash at any moment leaves a complete checkpoint.
void put_in_place(const std::string& partial, const std::string& folder, const Manifest& manifest) {
  std::set<std::string> wanted;
  for (const StoredPart& part : manifest.parts) wanted.insert(part.file);
  std::vector<fs::path> others;  // tables, and parts of a larger run that crashed here
  for (const auto& entry : fs::directory_iterator(partial))
    if (!wanted.contains(entry.path().filename().string())) others.push_back(entry.path());
  for (const fs::path& other : others) fs::remove_all(other);
  write_file((fs::path(partial) / "manifest.json").string(), manifest_to_json(manifest));
  sync_folder(partial);

  // Between the two renames the old checkpoint is found under its second name (latest_checkpoint knows it).
  const std::string replaced = folder + ".replaced";
  if (fs::exists(folder)) {
    fs::remove_all(replaced);
    fs::rename(folder, replaced);
  }
  fs::rename(partial, folder);
  sync_folder(fs::path(folder).parent_path().string());
  fs::remove_all(replaced);
}

}  // namespace

struct CheckpointWriter::Part {
  std::string path;
  Hdf5File file;
  StoredPart table;
  std::set<std::string> known;

  void write(StoredPiece piece, const Shape& shape, DType dtype, const void* values);
};

void CheckpointWriter::Part::write(StoredPiece piece, const Shape& shape, DType dtype, const void* values) {
  if (known.insert(piece.tensor).second) table.tensors.push_back({piece.tensor, shape, dtype});
  if (piece.count == 0) return;
  for (std::int64_t first = 0; first < piece.count; first += checksum_block) {
    const std::int64_t size = std::min(checksum_block, piece.count - first);
    const auto* block = static_cast<const std::byte*>(values) + static_cast<std::size_t>(first) * size_of(dtype);
    piece.checksums.push_back(checksum_text(checksum(block, static_cast<std::size_t>(size) * size_of(dtype))));
  }
  const std::string dataset = dataset_name(piece);
  file.create_dataset(dataset, dtype, {piece.count});
  file.write_rows(dataset, dtype, 0, values, piece.count);
  file.set_attribute(dataset, "tensor_shape", shape.text());
  if (piece.is_box()) file.set_attribute(dataset, "columns", piece.columns);
  table.pieces.push_back(std::move(piece));
}

CheckpointWriter::CheckpointWriter(const std::string& folder, int rank, int ranks)
    : folder_(fs::absolute(folder).lexically_normal().string()), rank_(rank), ranks_(ranks) {
  ensure(rank >= 0 && rank < ranks, "rank {} of {}", rank, ranks);
  if (folder_.ends_with('/')) folder_.pop_back();
  partial_ = folder_ + ".partial";
  std::error_code error;
  fs::create_directories(partial_, error);
  require(!error, "cannot create the folder '{}': {}; name one that you may write to", partial_, error.message());
  fs::remove(fs::path(partial_) / table_name(rank), error);  // of a run that crashed here
  const std::string path = (fs::path(partial_) / part_name(rank)).string();
  part_ = std::make_unique<Part>(Part{path, Hdf5File::create(path), {}, {}});
  part_->table.file = part_name(rank);
  part_->file.set_attribute("/", "format", "collimate checkpoint part");
  part_->file.set_attribute("/", "rank", rank);
  part_->file.set_attribute("/", "ranks", ranks);
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::write(const std::string& name, const Shape& shape, std::int64_t begin, std::span<const float> values) {
  write_range(name, shape, DType::f32, begin, values.data(), std::ssize(values));
}

void CheckpointWriter::write(const std::string& name, const Shape& shape, std::int64_t begin, std::span<const double> values) {
  write_range(name, shape, DType::f64, begin, values.data(), std::ssize(values));
}

void CheckpointWriter::write(const std::string& name, const Shape& shape, std::int64_t begin, std::span<const std::int64_t> values) {
  write_range(name, shape, DType::i64, begin, values.data(), std::ssize(values));
}

void CheckpointWriter::write_box(const std::string& name, const Shape& shape, const Box& box, std::span<const float> values) {
  ensure(part_ != nullptr, "the part of rank {} of '{}' is closed already", rank_, folder_);
  const auto lies_in = [](std::int64_t begin, std::int64_t count, std::int64_t extent) {
    return begin >= 0 && count >= 0 && begin <= extent - count;
  };
  ensure(shape.rank() == 2, "a box of the tensor {}, whose shape {} does not have two axes", name, shape.text());
  ensure(lies_in(box.row_begin, box.rows, shape[0]) && lies_in(box.column_begin, box.columns, shape[1]),
         "{} rows from {} and {} columns from {} do not lie in the tensor {} {}", box.rows, box.row_begin, box.columns, box.column_begin,
         name, shape.text());
  ensure(std::ssize(values) == box.rows * box.columns, "{} values for {} rows of {} columns of the tensor {}", values.size(), box.rows,
         box.columns, name);
  const std::int64_t begin = box.row_begin * shape[1] + box.column_begin;
  if (values.empty() || box.rows == 1 || box.columns == shape[1]) return write(name, shape, values.empty() ? 0 : begin, values);
  part_->write({name, begin, std::ssize(values), box.columns, shape[1], {}}, shape, DType::f32, values.data());
}

void CheckpointWriter::write_range(const std::string& name, const Shape& shape, DType dtype, std::int64_t begin, const void* values,
                                   std::int64_t count) {
  ensure(part_ != nullptr, "the part of rank {} of '{}' is closed already", rank_, folder_);
  ensure(begin >= 0 && begin + count <= shape.count(), "elements {} to {} do not lie in the tensor {} {}", begin, begin + count, name,
         shape.text());
  part_->write({name, begin, count, count, count, {}}, shape, dtype, values);
}

void CheckpointWriter::attribute(const std::string& json) {
  ensure(part_ != nullptr, "the part of rank {} of '{}' is closed already", rank_, folder_);
  part_->table.attribute = json;
}

void CheckpointWriter::close_part() {
  ensure(part_ != nullptr, "the part of rank {} of '{}' is closed already", rank_, folder_);
  part_->file.close();
  File(part_->path, File::Mode::read).sync();
  part_->table.bytes = static_cast<std::int64_t>(fs::file_size(part_->path));
  write_file((fs::path(partial_) / table_name(rank_)).string(), part_to_json(part_->table));
  part_.reset();
}

void CheckpointWriter::publish(const std::string& meta) {
  ensure(rank_ == 0 && part_ == nullptr, "publish() is for rank 0, after close_part()");
  require(nlohmann::json::accept(meta), "the description of the checkpoint '{}' is not valid JSON: {}", folder_, meta);
  Manifest manifest;
  manifest.meta = meta;
  manifest.sequence = next_sequence(folder_);
  for (int rank = 0; rank < ranks_; ++rank) {
    const std::string path = (fs::path(partial_) / table_name(rank)).string();
    require(fs::exists(path), "the checkpoint '{}' is not published: rank {} has not finished its part", folder_, rank);
    manifest.parts.push_back(part_from_json(read_file(path), path));
    check_file(manifest.parts.back(), partial_);
  }
  manifest.tensors = check_pieces(manifest.parts, folder_);
  try {
    put_in_place(partial_, folder_, manifest);
  } catch (const fs::filesystem_error& error) {
    fail("the checkpoint '{}' cannot be published: {}", folder_, error.code().message());
  }
}

void CheckpointWriter::abandon() noexcept {
  part_.reset();
  std::error_code error;
  for (const std::string& name : {part_name(rank_), table_name(rank_)}) fs::remove(fs::path(partial_) / name, error);
  fs::remove(partial_, error);  // succeeds for the last rank, when the folder is empty
}

}  // namespace collimate
