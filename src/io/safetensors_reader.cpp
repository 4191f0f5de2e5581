#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/bf16.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/file_kind.hpp"
#include "collimate/io/safetensors.hpp"
#include "io/file.hpp"
#include "io/half.hpp"

namespace collimate {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::uint64_t longest_header = 100'000'000;  // the limit of the safetensors library itself

/// Bytes per element, 0 for a type that the format does not know.
std::uint64_t bytes_of(const std::string& dtype) {
  static const std::map<std::string, std::uint64_t> bytes{{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
                                                          {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                                                          {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
  const auto found = bytes.find(dtype);
  return found == bytes.end() ? 0 : found->second;
}

/// Parses JSON and refuses an object that has a key twice (nlohmann would keep the last one).
Json parse_strictly(const std::string& text, const std::string& what) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key)
      require(keys.back().insert(value.get<std::string>()).second, "{} names {} twice", what, value.dump());
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::exception&) {
    fail("{} is not valid JSON: the file is damaged or not what its name says", what);
  }
}

Shape shape_of(const std::vector<std::int64_t>& extents) {
  switch (extents.size()) {
    case 0: return {};
    case 1: return {extents[0]};
    case 2: return {extents[0], extents[1]};
    case 3: return {extents[0], extents[1], extents[2]};
    default: return {extents[0], extents[1], extents[2], extents[3]};
  }
}

/// An entry and where its bytes lie in the file.
struct Listed {
  SafetensorsEntry entry;
  std::uint64_t begin = 0, end = 0;
};

Listed read_entry(const std::string& name, const Json& json, const std::string& path) {
  require(json.is_object() && json.contains("dtype") && json["dtype"].is_string() && json.contains("shape") && json["shape"].is_array() &&
              json.contains("data_offsets") && json["data_offsets"].is_array() && json["data_offsets"].size() == 2,
          "'{}': the header describes the tensor {} by {}, not by dtype, shape and two data_offsets", path, name, json.dump());
  Listed listed{{name, json["dtype"].get<std::string>(), {}, path}};
  std::uint64_t bytes = bytes_of(listed.entry.dtype);
  require(bytes > 0, "'{}': the tensor {} has the unknown type {}", path, name, listed.entry.dtype);
  require(json["shape"].size() <= 4, "'{}': the tensor {} has {} axes; at most 4 are supported", path, name, json["shape"].size());
  std::vector<std::int64_t> extents;
  for (const Json& extent : json["shape"]) {
    const std::uint64_t size = extent.is_number_unsigned() ? extent.get<std::uint64_t>() : ~std::uint64_t{0};
    require(size >> 62 == 0 && !__builtin_mul_overflow(bytes, size, &bytes) && bytes >> 62 == 0,
            "'{}': the shape {} of the tensor {} is not a possible one", path, json["shape"].dump(), name);
    extents.push_back(static_cast<std::int64_t>(size));
  }
  listed.entry.shape = shape_of(extents);
  const Json& offsets = json["data_offsets"];
  require(offsets[0].is_number_unsigned() && offsets[1].is_number_unsigned(), "'{}': the tensor {} has the data_offsets {}", path, name,
          offsets.dump());
  listed.begin = offsets[0].get<std::uint64_t>();
  listed.end = offsets[1].get<std::uint64_t>();
  require(listed.begin <= listed.end && listed.end - listed.begin == bytes,
          "'{}': the tensor {} of type {} and shape {} needs {} bytes, but its data_offsets are {}", path, name, listed.entry.dtype,
          listed.entry.shape.text(), bytes, offsets.dump());
  return listed;
}

std::string file_of(const std::string& path) {
  if (!fs::is_directory(path)) return path;
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"})
    if (fs::exists(fs::path(path) / name)) return (fs::path(path) / name).string();
  require(!fs::exists(fs::path(path) / "pytorch_model.bin") && !fs::exists(fs::path(path) / "pytorch_model.bin.index.json"),
          "the folder '{0}' holds its weights as pytorch_model*.bin, which are Python pickles and can run programs when they are read. Write them "
          "as model.safetensors first: python3 -c \"import glob, torch, safetensors.torch as s; s.save_file({{k: v.contiguous().clone() for f in "
          "glob.glob('{0}/pytorch_model*.bin') for k, v in torch.load(f, weights_only=True).items()}}, '{0}/model.safetensors')\"",
          path);
  fail("the folder '{}' holds neither model.safetensors nor model.safetensors.index.json", path);
}

}  // namespace

struct SafetensorsReader::Content {
  struct Place {
    std::size_t file, entry;
    std::uint64_t offset;  ///< of the first byte in the file
  };
  std::string path;
  std::vector<File> files;
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, Place> places;
  std::map<std::string, std::string> metadata;

  std::vector<std::string> add_file(const std::string& file_path);
  void add_shards(const std::string& index_path);
};

/// Opens one file, checks its header and takes up its tensors; returns their names.
std::vector<std::string> SafetensorsReader::Content::add_file(const std::string& file_path) {
  require(fs::exists(file_path), "the file '{}' does not exist; check the path", file_path);
  require_file_kind(file_path, {FileKind::safetensors, FileKind::other_encoding}, "a safetensors file");
  files.emplace_back(file_path, File::Mode::read);
  const File& file = files.back();
  const std::uint64_t size = file.size();
  require(size >= 8, "'{}' has {} bytes, too few for a safetensors file", file_path, size);
  std::uint64_t header_bytes = 0;
  file.read_at(0, &header_bytes, 8);
  require(header_bytes >= 2 && header_bytes <= longest_header,
          "'{}' claims a header of {} bytes, so it is damaged or not a safetensors file", file_path, header_bytes);
  require(header_bytes <= size - 8, "'{}' claims a header of {} bytes but has only {} in all: it was cut off", file_path,
          header_bytes, size);
  std::string text(header_bytes, '\0');
  file.read_at(8, text.data(), text.size());
  require(text.front() == '{', "'{}' has no JSON header, so it is damaged or not a safetensors file", file_path);
  const Json header = parse_strictly(text, fmt::format("the header of '{}'", file_path));

  std::vector<Listed> list;
  for (const auto& [name, json] : header.items()) {
    if (name != "__metadata__") {
      list.push_back(read_entry(name, json, file_path));
      continue;
    }
    require(json.is_object(), "'{}': __metadata__ is {}, not an object", file_path, json.dump());
    for (const auto& [key, value] : json.items()) {
      require(value.is_string(), "'{}': __metadata__ holds {}, which is not a text", file_path, value.dump());
      metadata.emplace(key, value.get<std::string>());
    }
  }
  std::sort(list.begin(), list.end(),
            [](const Listed& a, const Listed& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  const std::uint64_t data = 8 + header_bytes;
  std::uint64_t end = 0;
  std::vector<std::string> names;
  for (const Listed& listed : list) {
    require(listed.end <= size - data, "'{}': the tensor {} ends at byte {} of the data, but the file has only {}: it was cut off",
            file_path, listed.entry.name, listed.end, size - data);
    require(listed.begin >= end, "'{}': the tensor {} overlaps the one before it", file_path, listed.entry.name);
    require(listed.begin == end, "'{}': {} bytes before the tensor {} belong to no tensor, so the header is damaged", file_path,
            listed.begin - end, listed.entry.name);
    end = listed.end;
    const auto [place, is_new] = places.emplace(listed.entry.name, Place{files.size() - 1, entries.size(), data + listed.begin});
    require(is_new, "both '{}' and '{}' hold the tensor {}", entries[place->second.entry].file, file_path, listed.entry.name);
    entries.push_back(listed.entry);
    names.push_back(listed.entry.name);
  }
  require(end == size - data, "'{}' has {} bytes after its last tensor, so the header or the file is damaged", file_path,
          size - data - end);
  return names;
}

void SafetensorsReader::Content::add_shards(const std::string& index_path) {
  const Json index = parse_strictly(read_file(index_path), fmt::format("'{}'", index_path));
  require(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object() && !index["weight_map"].empty(),
          "'{}' has no weight_map, so it is not the index of a sharded model", index_path);
  std::set<std::string> shards;
  for (const auto& [name, shard] : index["weight_map"].items()) {
    require(shard.is_string() && !shard.get<std::string>().empty() && shard.get<std::string>().find('/') == std::string::npos,
            "'{}': the tensor {} is said to lie in {}, which is not a file name of the same folder", index_path, name, shard.dump());
    shards.insert(shard.get<std::string>());
  }
  for (const std::string& shard : shards)
    for (const std::string& name : add_file((fs::path(index_path).parent_path() / shard).string()))
      require(index["weight_map"].contains(name) && index["weight_map"][name] == shard,
              "'{}' does not list the tensor {}, which lies in {}", index_path, name, shard);
  for (const auto& [name, shard] : index["weight_map"].items())
    require(places.contains(name), "'{}' says that the tensor {} lies in {}, but it does not", index_path, name, shard.get<std::string>());
}

SafetensorsReader::SafetensorsReader(const std::string& path) : content_(std::make_unique<Content>()) {
  content_->path = file_of(path);
  require(fs::exists(content_->path), "the file '{}' does not exist; check the path", content_->path);
  if (content_->path.ends_with(".json"))
    content_->add_shards(content_->path);
  else
    content_->add_file(content_->path);
}

SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;
SafetensorsReader::~SafetensorsReader() = default;
const std::string& SafetensorsReader::path() const { return content_->path; }
const std::vector<SafetensorsEntry>& SafetensorsReader::tensors() const { return content_->entries; }
const std::map<std::string, std::string>& SafetensorsReader::metadata() const { return content_->metadata; }

void SafetensorsReader::read(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const {
  const auto found = content_->places.find(name);
  require(found != content_->places.end(), "'{}' holds no tensor {}", content_->path, name);
  const Content::Place& place = found->second;
  const SafetensorsEntry& entry = content_->entries[place.entry];
  const File& file = content_->files[place.file];
  ensure(begin >= 0 && count >= 0 && begin <= entry.shape.count() - count, "elements [{}, {}) of {} {} were asked for", begin,
         begin + count, name, entry.shape.text());
  if (entry.dtype == "F32") {
    file.read_at(place.offset + 4 * static_cast<std::uint64_t>(begin), out, 4 * static_cast<std::size_t>(count));
    return;
  }
  require(entry.dtype == "F16" || entry.dtype == "BF16", "'{}': the tensor {} is of type {}; F32, F16 or BF16 is needed", entry.file, name,
          entry.dtype);
  const auto convert = entry.dtype == "F16" ? from_half : [](std::uint16_t bits) { return to_float(BFloat16{bits}); };
  std::array<std::uint16_t, 1 << 15> buffer;
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t now = std::min<std::int64_t>(count - done, buffer.size());
    file.read_at(place.offset + 2 * static_cast<std::uint64_t>(begin + done), buffer.data(), 2 * static_cast<std::size_t>(now));
    for (std::int64_t i = 0; i < now; ++i) out[done + i] = convert(buffer[i]);
    done += now;
  }
}

}  // namespace collimate
