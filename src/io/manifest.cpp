#include "io/manifest.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/checksum.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/file_kind.hpp"

namespace collimate {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* format_name = "collimate checkpoint 1";
constexpr const char* format_with_boxes = "collimate checkpoint 2";  // so that versions without boxes refuse it by name

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

bool in_checkpoints(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::f64:
    case DType::i64: return true;
    case DType::bf16:
    case DType::i32:
    case DType::u8:
    case DType::u64: return false;
  }
  return false;
}

DType dtype_of(const std::string& name) {
  for (const DType dtype : dtypes)
    if (in_checkpoints(dtype) && name == name_of(dtype)) return dtype;
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

Json to_json(const StoredPiece& piece) {
  Json json{{"tensor", piece.tensor}, {"begin", piece.begin}, {"count", piece.count}};
  if (piece.is_box()) json.update({{"columns", piece.columns}, {"stride", piece.stride}});
  json["checksums"] = piece.checksums;
  return json;
}

StoredPiece stored_piece(const Json& json) {
  StoredPiece piece;
  piece.tensor = json.at("tensor").get<std::string>();
  piece.begin = json.at("begin").get<std::int64_t>();
  piece.count = json.at("count").get<std::int64_t>();
  piece.columns = json.value("columns", piece.count);
  piece.stride = json.value("stride", piece.count);
  piece.checksums = json.at("checksums").get<std::vector<std::string>>();
  require(piece.begin >= 0 && piece.count > 0 && std::ssize(piece.checksums) == (piece.count + checksum_block - 1) / checksum_block &&
              piece.columns > 0 && piece.columns <= piece.stride && piece.count % piece.columns == 0 &&
              (!piece.is_box() || piece.begin % piece.stride + piece.columns <= piece.stride),
          "an impossible piece of the tensor {}", piece.tensor);
  return piece;
}

Json to_json(const StoredPart& part) {
  Json ranges = Json::array();
  for (const StoredPiece& piece : part.pieces) ranges.push_back(to_json(piece));
  return {{"file", part.file}, {"bytes", part.bytes}, {"attribute", part.attribute}, {"ranges", ranges}};
}

StoredPart stored_part(const Json& json) {
  StoredPart part;
  part.file = json.at("file").get<std::string>();
  part.bytes = json.at("bytes").get<std::int64_t>();
  part.attribute = json.at("attribute").get<std::string>();
  for (const Json& piece : json.at("ranges")) part.pieces.push_back(stored_piece(piece));
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
  } catch (const nlohmann::json::exception&) {
    fail("'{}' is damaged (it is not the JSON that a checkpoint has): use an older checkpoint (in a run folder: remove this one, then --restart auto)", path);
  } catch (const Error& error) {
    fail("'{}' is damaged ({}): use an older checkpoint (in a run folder: remove this one, then --restart auto)", path, error.what());
  }
}

}  // namespace

std::string part_name(int rank) { return fmt::format("part-{:05}.h5", rank); }
std::string table_name(int rank) { return fmt::format("part-{:05}.json", rank); }

std::string dataset_name(const StoredPiece& piece) {
  return fmt::format("/tensors/{}/{}_{}", piece.tensor, piece.is_box() ? "box" : "elements", piece.begin);
}

std::int64_t StoredPiece::count_before(std::int64_t element) const {
  const std::int64_t after = std::max<std::int64_t>(element - begin, 0);
  return std::min(count, after / stride * columns + std::min(after % stride, columns));
}

std::string part_to_json(const StoredPart& part) {
  Json json = to_json(part);
  json["tensors"] = to_json(part.tensors);
  return seal(std::move(json));
}

StoredPart part_from_json(const std::string& text, const std::string& path) {
  return unseal(text, path, [](const Json& json) {
    StoredPart part = stored_part(json);
    part.tensors = tensors_of(json.at("tensors"));
    return part;
  });
}

std::string manifest_to_json(const Manifest& manifest) {
  const bool boxes = std::any_of(manifest.parts.begin(), manifest.parts.end(), [](const StoredPart& part) {
    return std::any_of(part.pieces.begin(), part.pieces.end(), [](const StoredPiece& piece) { return piece.is_box(); });
  });
  Json json{{"format", boxes ? format_with_boxes : format_name}, {"sequence", manifest.sequence}, {"meta", Json::parse(manifest.meta)}};
  json["tensors"] = to_json(manifest.tensors);
  json["parts"] = Json::array();
  for (const StoredPart& part : manifest.parts) json["parts"].push_back(to_json(part));
  return seal(std::move(json));
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = (fs::path(folder) / "manifest.json").string();
  require_file_kind(folder, {FileKind::empty, FileKind::text, FileKind::json, FileKind::other_encoding}, "a checkpoint, which is a folder,");
  require(!fs::is_regular_file(folder), "'{}' is a file, but a checkpoint is a folder with a manifest.json: name that", folder);
  require(fs::is_directory(folder), "the checkpoint folder '{}' does not exist; check the path", folder);
  require(fs::exists(path), "'{}' is not a complete checkpoint: it has no manifest.json; name another folder{}", folder,
          fs::exists(fs::path(folder) / "config.json") ? ", such as one that `collimate import` makes of this Hugging Face model" : "");
  return unseal(read_file(path), path, [](const Json& json) {
    const Json& format = json.at("format");
    require(format == format_name || format == format_with_boxes, "its format is {}, not \"{}\" or \"{}\"", format.dump(), format_name,
            format_with_boxes);
    Manifest manifest;
    manifest.sequence = json.at("sequence").get<std::int64_t>();
    manifest.meta = json.at("meta").dump();
    manifest.tensors = tensors_of(json.at("tensors"));
    for (const Json& part : json.at("parts")) manifest.parts.push_back(stored_part(part));
    return manifest;
  });
}

void check_file(const StoredPart& part, const std::string& folder) {
  const fs::path path = fs::path(folder) / part.file;
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  require(!error, "the checkpoint '{}' is incomplete: its part {} cannot be found ({})", folder, part.file, error.message());
  require(static_cast<std::int64_t>(bytes) == part.bytes, "'{}' has {} bytes instead of {}: it is damaged, so use an older checkpoint (in a run folder: remove this one, then --restart auto)",
          path.string(), bytes, part.bytes);
}

}  // namespace collimate
