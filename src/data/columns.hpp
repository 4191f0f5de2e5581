#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/base/checksum.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/hdf5_file.hpp"

namespace collimate {

constexpr std::int64_t chunk_bytes = 32 << 10;
constexpr std::size_t column_buffer_bytes = 128 << 10;

/// Appends to one extendible dataset of an HDF5 file through a bounded buffer, with a checksum of all its bytes.
template <class T>
class ColumnWriter {
 public:
  ColumnWriter(Hdf5File& file, std::string name) : file_(&file), name_(std::move(name)) {
    file.create_dataset(name_, dtype_of<T>(), {0}, chunk_bytes / static_cast<std::int64_t>(sizeof(T)));
  }
  void add(std::span<const T> values) {
    size_ += static_cast<std::int64_t>(values.size());
    sum_.add(values);
    while (!values.empty()) {
      const std::size_t count = std::min(values.size(), capacity - buffer_.size());
      buffer_.insert(buffer_.end(), values.begin(), values.begin() + count);
      values = values.subspan(count);
      if (buffer_.size() == capacity) flush();
    }
  }
  void add(T value) { add(std::span<const T>(&value, 1)); }
  void flush() {
    if (!buffer_.empty()) file_->append(name_, std::span<const T>(buffer_));
    buffer_.clear();
  }
  /// Writes the rest and the checksum, and adds both names to the checksum of the whole.
  void finish(Checksum& whole) {
    flush();
    const std::string text = checksum_text(sum_.value());
    file_->set_attribute(name_, "checksum", text);
    whole.add(name_ + " " + text + "\n");
  }
  std::int64_t size() const { return size_; }
  std::size_t buffered_bytes() const { return buffer_.capacity() * sizeof(T); }

 private:
  static constexpr std::size_t capacity = column_buffer_bytes / sizeof(T);
  Hdf5File* file_;
  std::string name_;
  std::vector<T> buffer_;
  Checksum sum_;
  std::int64_t size_ = 0;
};

/// Rows of different lengths: NAME/values holds them back to back, NAME/offsets[n+1] where each starts.
template <class T>
class RaggedWriter {
 public:
  RaggedWriter(Hdf5File& file, const std::string& name) : values_(file, name + "/values"), offsets_(file, name + "/offsets") {
    offsets_.add(0);
  }
  void add(std::span<const T> row) {
    values_.add(row);
    offsets_.add(values_.size());
  }
  void add(std::string_view text) requires std::same_as<T, std::uint8_t> {
    add(std::span<const T>(reinterpret_cast<const T*>(text.data()), text.size()));
  }
  void finish(Checksum& whole) {
    values_.finish(whole);
    offsets_.finish(whole);
  }
  std::int64_t elements() const { return values_.size(); }
  std::size_t buffered_bytes() const { return values_.buffered_bytes() + offsets_.buffered_bytes(); }

 private:
  ColumnWriter<T> values_;
  ColumnWriter<std::int64_t> offsets_;
};

/// Reads what RaggedWriter wrote; the offsets are in memory, the values stay in the file.
template <class T>
class RaggedReader {
 public:
  /// Throws unless the offsets start at 0, never fall and end with the values.
  RaggedReader(const Hdf5File& file, std::string name)
      : file_(&file), name_(std::move(name)), offsets_(file.read<std::int64_t>(name_ + "/offsets")) {
    const std::int64_t elements = file.info(name_ + "/values").shape[0];
    require(!offsets_.empty() && offsets_.front() == 0 && offsets_.back() == elements && std::is_sorted(offsets_.begin(), offsets_.end()),
            "the dataset file '{}' is damaged: the offsets of '{}' do not fit its {} values; prepare it again", file.path(), name_,
            elements);
  }
  std::int64_t size() const { return static_cast<std::int64_t>(offsets_.size()) - 1; }
  std::int64_t elements() const { return offsets_.back(); }
  std::int64_t start(std::int64_t row) const { return offsets_[row]; }
  std::int64_t length(std::int64_t row) const { return offsets_[row + 1] - offsets_[row]; }
  std::vector<T> row(std::int64_t row) const {
    std::vector<T> values(static_cast<std::size_t>(length(row)));
    file_->read(name_ + "/values", offsets_[row], std::span<T>(values));
    return values;
  }
  std::string text(std::int64_t row) const requires std::same_as<T, std::uint8_t> {
    std::string text(static_cast<std::size_t>(length(row)), '\0');
    file_->read(name_ + "/values", offsets_[row], std::span<T>(reinterpret_cast<T*>(text.data()), text.size()));
    return text;
  }
  /// The row that an element belongs to.
  std::int64_t row_of(std::int64_t element) const {
    return std::upper_bound(offsets_.begin(), offsets_.end(), element) - offsets_.begin() - 1;
  }
  const std::string& name() const { return name_; }

 private:
  const Hdf5File* file_;
  std::string name_;
  std::vector<std::int64_t> offsets_;
};

/// Calls visit(first, values) for a whole dataset, block by block.
template <class T, class Visit>
void for_each_block(const Hdf5File& file, const std::string& name, Visit&& visit) {
  const std::int64_t size = file.info(name).shape[0], block = (1 << 20) / static_cast<std::int64_t>(sizeof(T));
  std::vector<T> values;
  for (std::int64_t first = 0; first < size; first += block) {
    values.resize(static_cast<std::size_t>(std::min(block, size - first)));
    file.read(name, first, std::span<T>(values));
    visit(first, std::span<const T>(values));
  }
}

}  // namespace collimate
