#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/base/dtype.hpp"
#include "collimate/base/shape.hpp"

namespace collimate {

/// What a dataset in an HDF5 file holds.
struct Hdf5Info {
  DType dtype = DType::u8;
  Shape shape;              ///< axis 0 counts rows
  bool extendible = false;  ///< rows can be appended
};

/// One open HDF5 file: the only place that calls the HDF5 library (serial C API). Names are paths such as "/tokens/ids";
/// parent groups are made as needed. Every call is checked; an error is a sentence with file, object and a hint; the
/// library's own words are in it only where a file is written.
/// Not for use by two threads at once: the library is not thread-safe.
class Hdf5File {
 public:
  static Hdf5File open(const std::string& path);    ///< for reading
  static Hdf5File create(const std::string& path);  ///< replaces what is there
  Hdf5File(Hdf5File&& other) noexcept;
  Hdf5File& operator=(Hdf5File&& other) noexcept;
  ~Hdf5File();  ///< closes, but cannot report a failed write: call close() after writing
  const std::string& path() const { return path_; }

  bool exists(const std::string& name) const;
  bool is_group(const std::string& name) const;
  std::vector<std::string> children(const std::string& group = "/") const;  ///< names in the group, sorted

  /// Contiguous, or with chunk_rows > 0 in chunks of that many rows and extendible along axis 0 (shape[0] may then be 0).
  void create_dataset(const std::string& name, DType dtype, Shape shape, std::int64_t chunk_rows = 0);
  Hdf5Info info(const std::string& name) const;

  /// Rows [first_row, first_row + rows); `values` holds them all. T must be the dataset's type.
  template <class T>
  void write(const std::string& name, std::int64_t first_row, std::span<const T> values) {
    write_rows(name, dtype_of<T>(), first_row, values.data(), static_cast<std::int64_t>(values.size()));
  }
  /// Creates a contiguous one-axis dataset that holds `values`.
  template <class T>
  void write(const std::string& name, std::span<const T> values) {
    create_dataset(name, dtype_of<T>(), {static_cast<std::int64_t>(values.size())});
    write(name, 0, values);
  }
  template <class T>
  void append(const std::string& name, std::span<const T> values) {
    append_rows(name, dtype_of<T>(), values.data(), static_cast<std::int64_t>(values.size()));
  }
  template <class T>
  void read(const std::string& name, std::int64_t first_row, std::span<T> values) const {
    read_rows(name, dtype_of<T>(), first_row, values.data(), static_cast<std::int64_t>(values.size()));
  }
  template <class T>
  std::vector<T> read(const std::string& name) const {
    std::vector<T> values(static_cast<std::size_t>(info(name).shape.count()));
    read(name, 0, std::span<T>(values));
    return values;
  }
  // The same with the type at run time; `count` is in elements and must be whole rows.
  void write_rows(const std::string& name, DType dtype, std::int64_t first_row, const void* data, std::int64_t count);
  void append_rows(const std::string& name, DType dtype, const void* data, std::int64_t count);
  void read_rows(const std::string& name, DType dtype, std::int64_t first_row, void* data, std::int64_t count) const;

  /// A text of any length (JSON, a tokenizer) as a scalar UTF-8 string dataset. It must not end in a zero byte.
  void write_text(const std::string& name, std::string_view text);
  std::string read_text(const std::string& name) const;

  /// Attributes of a group or dataset ("/" is the file). Texts up to 60,000 bytes; longer ones belong in write_text.
  void set_attribute(const std::string& object, const std::string& key, std::string_view text);
  void set_attribute(const std::string& object, const std::string& key, std::int64_t value);
  std::vector<std::string> attributes(const std::string& object) const;  ///< their names, sorted
  bool has_attribute(const std::string& object, const std::string& key) const;
  std::string text_attribute(const std::string& object, const std::string& key) const;
  std::int64_t integer_attribute(const std::string& object, const std::string& key) const;

  void close();  ///< throws if the last bytes cannot be written; the object is then unusable

 private:
  using Handle = std::int64_t;
  Hdf5File(std::string path, bool reads) : path_(std::move(path)), reads_(reads) {}
  Handle dataset(const std::string& name) const;
  void close_datasets() const noexcept;
  void transfer(const std::string& name, DType dtype, std::int64_t first_row, void* data, std::int64_t count, bool to_file) const;
  template <class T>
  [[nodiscard]] T check(T result, std::string_view action, std::string_view object = "") const;

  std::string path_;
  bool reads_;  ///< a file that was there before: what fails without a word of the operating system is damage
  Handle file_ = -1;
  mutable std::map<std::string, Handle> datasets_;  ///< open datasets, so that their chunk caches live
};

}  // namespace collimate
