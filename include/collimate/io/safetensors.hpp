#pragma once
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "collimate/base/shape.hpp"

namespace collimate {

// safetensors: 8 bytes length N (little-endian), N bytes JSON header (name -> dtype, shape, data_offsets), then the data.
// Format: https://github.com/huggingface/safetensors, section "Format".

/// A tensor that a safetensors file lists.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  ///< as written: "F32", "BF16", "I64", ...
  Shape shape;
  std::string file;   ///< the file that holds it
};

/// Reads the tensors of a .safetensors file, of a model.safetensors.index.json with its shards, or of a folder that holds either.
/// The whole header is checked when it is opened: sizes, types, ranges, overlaps, duplicates. Errors name the file.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& path);
  SafetensorsReader(SafetensorsReader&&) noexcept;
  ~SafetensorsReader();
  const std::string& path() const;                             ///< of the file or index that was opened
  const std::vector<SafetensorsEntry>& tensors() const;        ///< in the order of the data
  const std::map<std::string, std::string>& metadata() const;  ///< "__metadata__" of the (first) file
  /// Elements [begin, begin + count) of the flattened tensor as fp32; it must be F32, F16 or BF16.
  void read(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const;

 private:
  struct Content;
  std::unique_ptr<Content> content_;
};

/// A tensor to write.
struct SafetensorsSpec {
  std::string name;
  Shape shape;
  std::string dtype = "F32";  ///< or F16, BF16: rounded to nearest even, and a number that becomes infinite is an error
};

/// The number that is read again after `value` was written as F32, F16 or BF16.
float stored_as(const std::string& dtype, float value);

/// Fills the values of tensors[index], in fp32; called once for each tensor, in the order of the names.
using FillTensor = std::function<void(std::size_t index, std::span<float> values)>;

/// Writes one file with the same bytes that the safetensors library writes (tensors sorted by name, metadata {"format": "pt"}).
/// It appears whole or not at all. Holds one tensor in memory at a time.
void write_safetensors(const std::string& path, const std::vector<SafetensorsSpec>& tensors, const FillTensor& fill);

/// Writes folder/model.safetensors, or above `largest` bytes of data per file model-0000i-of-0000n.safetensors and their index.
void write_safetensors_folder(const std::string& folder, const std::vector<SafetensorsSpec>& tensors, const FillTensor& fill,
                              std::int64_t largest = std::int64_t{5'000'000'000});

}  // namespace collimate
