#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/bf16.hpp"
#include "collimate/base/error.hpp"
#include "collimate/io/safetensors.hpp"
#include "io/file.hpp"
#include "io/half.hpp"

namespace collimate {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Order = std::vector<std::size_t>;  // indices of tensors, sorted by name

static_assert(std::endian::native == std::endian::little, "the data of a safetensors file are little-endian");

std::int64_t bytes_of(const SafetensorsSpec& tensor) { return (tensor.dtype == "F32" ? 4 : 2) * tensor.shape.count(); }

Order sorted(const std::vector<SafetensorsSpec>& tensors) {
  Order order(tensors.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return tensors[a].name < tensors[b].name; });
  for (std::size_t i = 1; i < order.size(); ++i)
    ensure(tensors[order[i - 1]].name != tensors[order[i]].name, "the tensor {} would be written twice", tensors[order[i]].name);
  return order;
}

std::string header(const std::vector<SafetensorsSpec>& tensors, const Order& order) {
  Json json{{"__metadata__", {{"format", "pt"}}}};
  std::int64_t offset = 0;
  for (const std::size_t index : order) {
    Json shape = Json::array();
    for (int axis = 0; axis < tensors[index].shape.rank(); ++axis) shape.push_back(tensors[index].shape[axis]);
    const std::int64_t end = offset + bytes_of(tensors[index]);
    json[tensors[index].name] = {{"dtype", tensors[index].dtype}, {"shape", shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

void write_values(File& file, const SafetensorsSpec& tensor, const std::vector<float>& values) {
  if (tensor.dtype == "F32") return file.write({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  ensure(tensor.dtype == "F16" || tensor.dtype == "BF16", "the type {} cannot be written", tensor.dtype);
  const auto convert = tensor.dtype == "F16" ? to_half : [](float value) { return to_bf16(value).bits; };
  const std::uint16_t infinite = tensor.dtype == "F16" ? 0x7c00 : 0x7f80;
  std::vector<std::uint16_t> words(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    words[i] = convert(values[i]);
    require((words[i] & 0x7fff) != infinite || std::isinf(values[i]),
            "element {} of the tensor {} is {}, which is too large for {}: write a wider type (--dtype f32)", i, tensor.name, values[i],
            tensor.dtype);
  }
  file.write({reinterpret_cast<const char*>(words.data()), words.size() * sizeof(std::uint16_t)});
}

void write_tensors(const std::string& path, const std::vector<SafetensorsSpec>& tensors, const Order& order, const FillTensor& fill) {
  AtomicFile target(path);
  {
    File file(target.temporary(), File::Mode::write);
    const std::string text = header(tensors, order);
    const std::uint64_t length = text.size();
    file.write({reinterpret_cast<const char*>(&length), sizeof length});
    file.write(text);
    std::vector<float> values;
    for (const std::size_t index : order) {
      values.assign(static_cast<std::size_t>(tensors[index].shape.count()), 0);
      fill(index, values);
      write_values(file, tensors[index], values);
    }
  }
  target.commit();
}

std::vector<Order> cut(const std::vector<SafetensorsSpec>& tensors, std::int64_t largest) {
  std::vector<Order> shards(1);
  std::int64_t held = 0;
  for (const std::size_t index : sorted(tensors)) {
    const std::int64_t bytes = bytes_of(tensors[index]);
    if (held > 0 && held + bytes > largest) {
      shards.emplace_back();
      held = 0;
    }
    shards.back().push_back(index);
    held += bytes;
  }
  return shards;
}

}  // namespace

float stored_as(const std::string& dtype, float value) {
  return dtype == "F32" ? value : dtype == "F16" ? from_half(to_half(value)) : to_float(to_bf16(value));
}

void write_safetensors(const std::string& path, const std::vector<SafetensorsSpec>& tensors, const FillTensor& fill) {
  write_tensors(path, tensors, sorted(tensors), fill);
}

void write_safetensors_folder(const std::string& folder, const std::vector<SafetensorsSpec>& tensors, const FillTensor& fill,
                              std::int64_t largest) {
  const fs::path whole = fs::path(folder) / "model.safetensors", index = fs::path(folder) / "model.safetensors.index.json";
  const std::vector<Order> shards = cut(tensors, largest);
  if (shards.size() == 1) {
    write_tensors(whole.string(), tensors, shards[0], fill);
    fs::remove(index);  // of an earlier, larger model: a reader that prefers it would load the wrong one
    return;
  }
  Json map = Json::object();
  std::int64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_tensors((fs::path(folder) / name).string(), tensors, shards[i], fill);
    for (const std::size_t tensor : shards[i]) {
      map[tensors[tensor].name] = name;
      total += bytes_of(tensors[tensor]);
    }
  }
  write_file(index.string(), Json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2) + "\n");
  fs::remove(whole);
}

}  // namespace collimate
