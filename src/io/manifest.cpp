#include "io/manifest.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/checksum.hpp"
#include "collimate/base/error.hpp"

namespace collimate {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* format_name = "collimate checkpoint 1";

Json to_json(const Shape& shape) {
  Json json = Json::array();
  for (int axis = 0; axis < shape.rank(); ++axis) json.push_back(shape[axis]);
  return json;
}

Shape shape_of(const Json& json) {
  const auto at = [&](std::size_t axis) { return json.at(axis).get<std::int64_t>(); };
  switch (json.size()) {
    case 0: return {};
    case 1: return {at(0)};
    case 2: return {at(0), at(1)};
    case 3: return {at(0), at(1), at(2)};
    case 4: return {at(0), at(1), at(2), at(3)};
  }
  fail("a shape with {} axes", json.size());
}

DType dtype_of(const std::string& name) {
  for (const DType dtype : {DType::f32, DType::f64, DType::i64})
    if (name == name_of(dtype)) return dtype;
  fail("the unknown type {}", name);
}

Json to_json(const CheckpointTensor& tensor) {
  return {{"name", tensor.name}, {"shape", to_json(tensor.shape)}, {"dtype", std::string(name_of(tensor.dtype))}};
}

CheckpointTensor tensor_of(const Json& json) {
  return {json.at("name").get<std::string>(), shape_of(json.at("shape")), dtype_of(json.at("dtype").get<std::string>())};
}

std::vector<CheckpointTensor> tensors_of(const Json& json) {
  std::vector<CheckpointTensor> tensors;
  for (const Json& tensor : json) tensors.push_back(tensor_of(tensor));
  return tensors;
}

Json to_json(const std::vector<CheckpointTensor>& tensors) {
  Json json = Json::array();
  for (const CheckpointTensor& tensor : tensors) json.push_back(to_json(tensor));
  return json;
}

Json to_json(const StoredPart& part) {
  Json ranges = Json::array();
  for (const StoredRange& range : part.ranges)
    ranges.push_back({{"tensor", range.tensor}, {"begin", range.begin}, {"count", range.count}, {"checksums", range.checksums}});
  return {{"file", part.file}, {"bytes", part.bytes}, {"attribute", part.attribute}, {"ranges", ranges}};
}

StoredPart part_of(const Json& json) {
  StoredPart part;
  part.file = json.at("file").get<std::string>();
  part.bytes = json.at("bytes").get<std::int64_t>();
  part.attribute = json.at("attribute").get<std::string>();
  for (const Json& entry : json.at("ranges")) {
    StoredRange range{entry.at("tensor").get<std::string>(), entry.at("begin").get<std::int64_t>(), entry.at("count").get<std::int64_t>(),
                      entry.at("checksums").get<std::vector<std::string>>()};
    require(range.begin >= 0 && range.count > 0 && std::ssize(range.checksums) == (range.count + checksum_block - 1) / checksum_block,
            "an impossible range of the tensor {}", range.tensor);
    part.ranges.push_back(std::move(range));
  }
  return part;
}

/// The JSON text with its own checksum as the last key.
std::string seal(Json json) {
  json["checksum"] = checksum_text(checksum(json.dump()));
  return json.dump() + "\n";
}

/// Calls read(json) for a sealed text, and turns every failure into a sentence that names the file.
template <class Read>
auto unseal(const std::string& text, const std::string& path, Read read) {
  try {
    Json json = Json::parse(text);
    const std::string stated = json.at("checksum").get<std::string>();
    json.erase("checksum");
    require(stated == checksum_text(checksum(json.dump())), "its checksum is wrong");
    return read(json);
  } catch (const nlohmann::json::exception& error) {
    fail("'{}' is damaged ({}): use an older checkpoint", path, error.what());
  } catch (const Error& error) {
    fail("'{}' is damaged ({}): use an older checkpoint", path, error.what());
  }
}

}  // namespace

std::string part_name(int rank) { return fmt::format("part-{:05}.h5", rank); }
std::string table_name(int rank) { return fmt::format("part-{:05}.json", rank); }
std::string dataset_name(const StoredRange& range) { return fmt::format("/tensors/{}/elements_{}", range.tensor, range.begin); }

std::string part_to_json(const StoredPart& part) {
  Json json = to_json(part);
  json["tensors"] = to_json(part.tensors);
  return seal(std::move(json));
}

StoredPart part_from_json(const std::string& text, const std::string& path) {
  return unseal(text, path, [](const Json& json) {
    StoredPart part = part_of(json);
    part.tensors = tensors_of(json.at("tensors"));
    return part;
  });
}

std::string manifest_to_json(const Manifest& manifest) {
  Json json{{"format", format_name}, {"sequence", manifest.sequence}, {"meta", Json::parse(manifest.meta)}};
  json["tensors"] = to_json(manifest.tensors);
  json["parts"] = Json::array();
  for (const StoredPart& part : manifest.parts) json["parts"].push_back(to_json(part));
  return seal(std::move(json));
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = (fs::path(folder) / "manifest.json").string();
  require(!fs::is_regular_file(folder), "'{}' is a file, but a checkpoint is a folder with a manifest.json: name that", folder);
  require(fs::is_directory(folder), "the checkpoint folder '{}' does not exist; check the path", folder);
  require(fs::exists(path), "'{}' is not a complete checkpoint: it has no manifest.json", folder);
  return unseal(read_file(path), path, [](const Json& json) {
    require(json.at("format") == format_name, "its format is {}, not \"{}\"", json.at("format").dump(), format_name);
    Manifest manifest;
    manifest.sequence = json.at("sequence").get<std::int64_t>();
    manifest.meta = json.at("meta").dump();
    manifest.tensors = tensors_of(json.at("tensors"));
    for (const Json& part : json.at("parts")) manifest.parts.push_back(part_of(part));
    return manifest;
  });
}

std::vector<CheckpointTensor> check_ranges(const std::vector<StoredPart>& parts, const std::string& where) {
  std::map<std::string, CheckpointTensor> tensors;
  std::map<std::string, std::vector<const StoredRange*>> ranges;
  for (const StoredPart& part : parts) {
    for (const CheckpointTensor& tensor : part.tensors) {
      const CheckpointTensor& known = tensors.emplace(tensor.name, tensor).first->second;
      require(known == tensor, "the checkpoint '{}' holds the tensor {} both as {} {} and as {} {}", where, tensor.name,
              name_of(known.dtype), known.shape.text(), name_of(tensor.dtype), tensor.shape.text());
    }
    for (const StoredRange& range : part.ranges) ranges[range.tensor].push_back(&range);
  }
  std::vector<CheckpointTensor> merged;
  for (const auto& [name, tensor] : tensors) {
    auto& list = ranges[name];
    std::sort(list.begin(), list.end(), [](const StoredRange* a, const StoredRange* b) { return a->begin < b->begin; });
    std::int64_t end = 0;
    for (const StoredRange* range : list) {
      require(range->begin >= end, "the checkpoint '{}' holds elements {} to {} of the tensor {} twice", where, range->begin,
              std::min(end, range->end()) - 1, name);
      require(range->begin == end, "the checkpoint '{}' lacks elements {} to {} of the tensor {}", where, end, range->begin - 1, name);
      end = range->end();
    }
    require(end >= tensor.shape.count(), "the checkpoint '{}' lacks elements {} to {} of the tensor {}", where, end,
            tensor.shape.count() - 1, name);
    merged.push_back(tensor);
  }
  return merged;
}

void check_file(const StoredPart& part, const std::string& folder) {
  const fs::path path = fs::path(folder) / part.file;
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  require(!error, "the checkpoint '{}' is incomplete: its part {} cannot be found ({})", folder, part.file, error.message());
  require(static_cast<std::int64_t>(bytes) == part.bytes, "'{}' has {} bytes instead of {}: it is damaged, so use an older checkpoint",
          path.string(), bytes, part.bytes);
}

}  // namespace collimate
