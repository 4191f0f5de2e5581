#include <algorithm>
#include <cstring>
#include <filesystem>
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

/// A range and the part that holds it.
struct Location {
  std::size_t part;
  const StoredRange* range;
};

}  // namespace

struct CheckpointReader::Content {
  std::string folder;
  Manifest manifest;
  std::map<std::string, std::vector<Location>> ranges;  ///< of each tensor, by begin
  std::map<std::size_t, Hdf5File> files;
  std::vector<std::byte> block;  ///< the last one that was needed in part, so that small reads in order check it once
  const StoredRange* block_range = nullptr;
  std::int64_t block_first = -1;

  Hdf5File& file(std::size_t part);
  void read_block(const Location& place, DType dtype, std::int64_t first, std::int64_t count, void* out);
  const std::byte* cached_block(const Location& place, DType dtype, std::int64_t first, std::int64_t count);
};

CheckpointReader::CheckpointReader(const std::string& folder) : content_(std::make_unique<Content>()) {
  content_->folder = folder;
  content_->manifest = read_manifest(folder);
  Manifest& manifest = content_->manifest;
  require(!manifest.parts.empty(), "the checkpoint '{}' has no parts", folder);
  manifest.parts[0].tensors = manifest.tensors;
  manifest.tensors = check_ranges(manifest.parts, folder);
  for (std::size_t part = 0; part < manifest.parts.size(); ++part)
    for (const StoredRange& range : manifest.parts[part].ranges) content_->ranges[range.tensor].push_back({part, &range});
  for (auto& [name, list] : content_->ranges)
    std::sort(list.begin(), list.end(), [](const Location& a, const Location& b) { return a.range->begin < b.range->begin; });
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
    for (const Location& location : content_->ranges[tensor.name])
      for (std::int64_t first = 0; first < location.range->count; first += checksum_block) {
        const std::int64_t count = std::min(checksum_block, location.range->count - first);
        block.resize(static_cast<std::size_t>(count) * size_of(tensor.dtype));
        content_->read_block(location, tensor.dtype, first, count, block.data());
      }
}

Hdf5File& CheckpointReader::Content::file(std::size_t part) {
  if (const auto found = files.find(part); found != files.end()) return found->second;
  if (files.size() >= most_open_parts) files.clear();
  check_file(manifest.parts[part], folder);
  return files.emplace(part, Hdf5File::open((fs::path(folder) / manifest.parts[part].file).string())).first->second;
}

/// Reads one whole checksum block: elements [first, first + count) of the range.
void CheckpointReader::Content::read_block(const Location& place, DType dtype, std::int64_t first, std::int64_t count, void* out) {
  Hdf5File& source = file(place.part);
  source.read_rows(dataset_name(*place.range), dtype, first, out, count);
  const std::string found = checksum_text(checksum(out, static_cast<std::size_t>(count) * size_of(dtype)));
  require(found == place.range->checksums[static_cast<std::size_t>(first / checksum_block)],
          "'{}' is damaged: elements {} to {} of the tensor {} do not have their checksum, so use an older checkpoint", source.path(),
          place.range->begin + first, place.range->begin + first + count - 1, place.range->tensor);
}

const std::byte* CheckpointReader::Content::cached_block(const Location& place, DType dtype, std::int64_t first, std::int64_t count) {
  if (block_range != place.range || block_first != first) {
    block_range = nullptr;
    block.resize(static_cast<std::size_t>(count) * size_of(dtype));
    read_block(place, dtype, first, count, block.data());
    block_range = place.range;
    block_first = first;
  }
  return block.data();
}

void CheckpointReader::read_range(const std::string& name, DType dtype, std::int64_t begin, std::int64_t count, void* out) const {
  const CheckpointTensor& tensor = find(name);
  require(tensor.dtype == dtype, "the checkpoint '{}' holds the tensor {} as {}, not as {}", content_->folder, name, name_of(tensor.dtype),
          name_of(dtype));
  require(begin >= 0 && count >= 0 && begin <= tensor.shape.count() - count,
          "elements {} to {} were asked for, but the checkpoint '{}' holds the tensor {} with the shape {}", begin, begin + count - 1,
          content_->folder, name, tensor.shape.text());
  const std::size_t element = size_of(dtype);
  auto* place = static_cast<std::byte*>(out);
  for (const Location& location : content_->ranges[name]) {
    const StoredRange& range = *location.range;
    const std::int64_t last = std::min(range.end(), begin + count) - range.begin;  // relative to the range
    for (std::int64_t at = std::max(range.begin, begin) - range.begin; at < last;) {
      const std::int64_t first = at / checksum_block * checksum_block, size = std::min(checksum_block, range.count - first);
      const std::int64_t taken = std::min(last, first + size) - at;
      if (taken == size)
        content_->read_block(location, dtype, first, size, place);
      else
        std::memcpy(place, content_->cached_block(location, dtype, first, size) + static_cast<std::size_t>(at - first) * element,
                    static_cast<std::size_t>(taken) * element);
      place += static_cast<std::size_t>(taken) * element;
      at += taken;
    }
  }
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
