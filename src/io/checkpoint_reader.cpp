#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <list>
#include <map>

#include "collimate/base/checksum.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/hdf5_file.hpp"
#include "collimate/io/checkpoint.hpp"
#include "io/manifest.hpp"

namespace collimate {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t most_open_parts = 16;
constexpr std::size_t most_cached_bytes = std::size_t{1} << 28;

/// A piece and the part that holds it.
struct Location {
  std::size_t part;
  const StoredPiece* piece;
  std::int64_t reach = 0;  ///< the largest end() of this piece and those before it
};

/// A checksum block of a piece.
struct CheckedBlock {
  const StoredPiece* piece;
  std::int64_t first;
  std::vector<std::byte> bytes;
};

/// A step that reads from a part. What fails there fails because the part is damaged, unless it cannot be read at all.
template <class Step>
auto reading(const std::string& path, const std::string& what, const Step& step) {
  try {
    return step();
  } catch (const Error&) {
    if (!std::ifstream(path)) throw;
  }
  fail("'{}' is damaged: {} cannot be read from it, so use an older checkpoint (in a run folder: remove this one, then --restart auto)", path, what);
}

}  // namespace

struct CheckpointReader::Content {
  std::string folder;
  Manifest manifest;
  std::map<std::string, std::vector<Location>> pieces;  ///< of each tensor, by begin
  std::map<std::size_t, Hdf5File> files;
  std::list<CheckedBlock> blocks;  ///< for each piece the last one that was needed in part, so that small reads in order check it once
  std::map<const StoredPiece*, std::list<CheckedBlock>::iterator> block_of;
  std::size_t cached_bytes = 0;  ///< of `blocks`, whose first was used last

  Hdf5File& file(std::size_t part);
  void read_block(const Location& location, DType dtype, std::int64_t first, std::int64_t count, void* out);
  const std::byte* cached_block(const Location& location, DType dtype, std::int64_t first, std::int64_t count);
  void drop(const StoredPiece* piece);
  void copy(const Location& location, DType dtype, std::int64_t begin, std::int64_t end, std::byte* out);
};

CheckpointReader::CheckpointReader(const std::string& folder) : content_(std::make_unique<Content>()) {
  content_->folder = folder;
  content_->manifest = read_manifest(folder);
  Manifest& manifest = content_->manifest;
  require(!manifest.parts.empty(), "the checkpoint '{}' has no parts", folder);
  manifest.parts[0].tensors = manifest.tensors;
  manifest.tensors = check_pieces(manifest.parts, folder);
  for (std::size_t part = 0; part < manifest.parts.size(); ++part)
    for (const StoredPiece& piece : manifest.parts[part].pieces) content_->pieces[piece.tensor].push_back({part, &piece});
  for (auto& [name, list] : content_->pieces) {
    std::sort(list.begin(), list.end(), [](const Location& a, const Location& b) { return a.piece->begin < b.piece->begin; });
    std::int64_t reach = 0;
    for (Location& location : list) reach = location.reach = std::max(reach, location.piece->end());
  }
}

CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;
CheckpointReader::~CheckpointReader() = default;
const std::string& CheckpointReader::folder() const { return content_->folder; }
const std::string& CheckpointReader::meta() const { return content_->manifest.meta; }
const std::vector<CheckpointTensor>& CheckpointReader::tensors() const { return content_->manifest.tensors; }

bool CheckpointReader::has(const std::string& name) const {
  return std::binary_search(tensors().begin(), tensors().end(), CheckpointTensor{name, {}, {}},
                            [](const CheckpointTensor& a, const CheckpointTensor& b) { return a.name < b.name; });
}

const CheckpointTensor& CheckpointReader::find(const std::string& name) const {
  const auto found = std::lower_bound(tensors().begin(), tensors().end(), name,
                                      [](const CheckpointTensor& tensor, const std::string& key) { return tensor.name < key; });
  require(found != tensors().end() && found->name == name, "the checkpoint '{}' holds no tensor {}", content_->folder, name);
  return *found;
}

std::vector<std::string> CheckpointReader::attributes() const {
  std::vector<std::string> texts;
  for (const StoredPart& part : content_->manifest.parts) texts.push_back(part.attribute);
  return texts;
}

std::int64_t CheckpointReader::bytes() const {
  std::int64_t sum = 0;
  for (const StoredPart& part : content_->manifest.parts) sum += part.bytes;
  return sum;
}

void CheckpointReader::check_parts() const {
  for (const StoredPart& part : content_->manifest.parts) check_file(part, content_->folder);
}

void CheckpointReader::verify() const {
  std::vector<std::byte> block;
  for (const CheckpointTensor& tensor : tensors())
    for (const Location& location : content_->pieces[tensor.name])
      for (std::int64_t first = 0; first < location.piece->count; first += checksum_block) {
        const std::int64_t count = std::min(checksum_block, location.piece->count - first);
        block.resize(static_cast<std::size_t>(count) * size_of(tensor.dtype));
        content_->read_block(location, tensor.dtype, first, count, block.data());
      }
}

Hdf5File& CheckpointReader::Content::file(std::size_t part) {
  if (const auto found = files.find(part); found != files.end()) return found->second;
  if (files.size() >= most_open_parts) files.clear();
  check_file(manifest.parts[part], folder);
  const std::string path = (fs::path(folder) / manifest.parts[part].file).string();
  return files.emplace(part, reading(path, "the HDF5 file", [&] { return Hdf5File::open(path); })).first->second;
}

/// Reads one whole checksum block: elements [first, first + count) of the piece.
void CheckpointReader::Content::read_block(const Location& location, DType dtype, std::int64_t first, std::int64_t count, void* out) {
  const StoredPiece& piece = *location.piece;
  Hdf5File& source = file(location.part);
  reading(source.path(), "the tensor " + piece.tensor, [&] { source.read_rows(dataset_name(piece), dtype, first, out, count); });
  if (checksum_text(checksum(out, static_cast<std::size_t>(count) * size_of(dtype))) ==
      piece.checksums[static_cast<std::size_t>(first / checksum_block)])
    return;
  const std::int64_t column = piece.begin % piece.stride;
  fail("'{}' is damaged: elements {} to {}{} of the tensor {} do not have their checksum, so use an older checkpoint (in a run folder: remove this one, then --restart auto)", source.path(),
       piece.place(first), piece.place(first + count - 1),
       piece.is_box() ? fmt::format(" (in columns {} to {})", column, column + piece.columns - 1) : "", piece.tensor);
}

void CheckpointReader::Content::drop(const StoredPiece* piece) {
  const auto found = block_of.find(piece);
  if (found == block_of.end()) return;
  cached_bytes -= found->second->bytes.size();
  blocks.erase(found->second);
  block_of.erase(found);
}

const std::byte* CheckpointReader::Content::cached_block(const Location& location, DType dtype, std::int64_t first, std::int64_t count) {
  const auto found = block_of.find(location.piece);
  if (found != block_of.end() && found->second->first == first) {
    blocks.splice(blocks.begin(), blocks, found->second);
    return blocks.front().bytes.data();
  }
  drop(location.piece);
  CheckedBlock block{location.piece, first, std::vector<std::byte>(static_cast<std::size_t>(count) * size_of(dtype))};
  read_block(location, dtype, first, count, block.bytes.data());
  cached_bytes += block.bytes.size();
  blocks.push_front(std::move(block));
  block_of[location.piece] = blocks.begin();
  while (cached_bytes > most_cached_bytes && blocks.size() > 1) drop(blocks.back().piece);
  return blocks.front().bytes.data();
}

/// Copies what lies in elements [begin, end) of the tensor, of which `out` is the first. Goes through the piece block by block, so that
/// each is read once, however many rows of a box the elements touch.
void CheckpointReader::Content::copy(const Location& location, DType dtype, std::int64_t begin, std::int64_t end, std::byte* out) {
  const StoredPiece& piece = *location.piece;
  const auto bytes = [&](std::int64_t elements) { return static_cast<std::size_t>(elements) * size_of(dtype); };
  const std::int64_t last = piece.count_before(end);
  for (std::int64_t at = piece.count_before(begin); at < last;) {
    const std::int64_t first = at / checksum_block * checksum_block, size = std::min(checksum_block, piece.count - first);
    const std::int64_t taken_end = std::min(last, first + size);
    if (!piece.is_box() && taken_end - at == size) {
      read_block(location, dtype, first, size, out + bytes(piece.place(at) - begin));
      at = taken_end;
      continue;
    }
    const std::byte* block = cached_block(location, dtype, first, size);
    while (at < taken_end) {
      const std::int64_t run = std::min(piece.columns - at % piece.columns, taken_end - at);
      std::memcpy(out + bytes(piece.place(at) - begin), block + bytes(at - first), bytes(run));
      at += run;
    }
  }
  if (last == piece.count) drop(&piece);  // who reads in order does not come back
}

void CheckpointReader::read_range(const std::string& name, DType dtype, std::int64_t begin, std::int64_t count, void* out) const {
  const CheckpointTensor& tensor = find(name);
  require(tensor.dtype == dtype, "the checkpoint '{}' holds the tensor {} as {}, not as {}", content_->folder, name, name_of(tensor.dtype),
          name_of(dtype));
  require(begin >= 0 && count >= 0 && begin <= tensor.shape.count() - count,
          "elements {} to {} were asked for, but the checkpoint '{}' holds the tensor {} with the shape {}", begin, begin + count - 1,
          content_->folder, name, tensor.shape.text());
  const std::vector<Location>& list = content_->pieces[name];
  auto location = std::partition_point(list.begin(), list.end(), [&](const Location& each) { return each.reach <= begin; });
  for (; location != list.end() && location->piece->begin < begin + count; ++location)
    content_->copy(*location, dtype, begin, begin + count, static_cast<std::byte*>(out));
}

void CheckpointReader::read(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const {
  read_range(name, DType::f32, begin, count, out);
}

void CheckpointReader::read(const std::string& name, std::int64_t begin, std::int64_t count, double* out) const {
  read_range(name, DType::f64, begin, count, out);
}

void CheckpointReader::read(const std::string& name, std::int64_t begin, std::int64_t count, std::int64_t* out) const {
  read_range(name, DType::i64, begin, count, out);
}

}  // namespace collimate
