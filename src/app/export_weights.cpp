#include "app/export_weights.hpp"

#include <charconv>
#include <cstring>
#include <filesystem>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/io/safetensors.hpp"

namespace collimate {
namespace {

/// A tensor as Hugging Face stores it.
void pack_all(const HuggingFaceTensor& tensor, const ParameterStore& store, std::span<float> stored) {
  std::vector<float> ours(static_cast<std::size_t>(tensor.part_shape().count()));
  for (std::size_t part = 0; part < tensor.parts.size(); ++part) {
    store.read(Kind::value, tensor.parts[part], 0, ours);
    pack(tensor, static_cast<int>(part), ours, stored);
  }
}

std::string type_of(const ExportedModel& model) {
  return model.config.stored == "bf16" ? "BF16" : model.config.stored == "f16" ? "F16" : "F32";
}

}  // namespace

void write_model(const std::string& folder, const ExportedModel& model, std::optional<std::int64_t> bos, std::optional<std::int64_t> eos) {
  write_file((std::filesystem::path(folder) / "config.json").string(), config_to_hugging_face(model.config, bos, eos, model.head));
  const std::vector<HuggingFaceTensor> tensors = model.tensors();
  std::vector<SafetensorsSpec> specs;
  for (const HuggingFaceTensor& tensor : tensors) specs.push_back({tensor.name, tensor.shape, type_of(model)});
  write_safetensors_folder(
      folder, specs, [&](std::size_t i, std::span<float> values) { pack_all(tensors[i], model.store, values); }, model.largest);
}

void check_model(const std::string& folder, const ExportedModel& model) {
  const std::string config_path = (std::filesystem::path(folder) / "config.json").string();
  ensure(config_from_hugging_face(read_file(config_path), config_path) == model.config,
         "{} does not read back as the model it was written from", config_path);
  const SafetensorsReader reader(folder);
  FoundTensors found;
  for (const SafetensorsEntry& entry : reader.tensors()) found.emplace_back(entry.name, entry.shape);
  const std::vector<HuggingFaceTensor> tensors = model.tensors();
  const std::vector<std::size_t> places = match_hugging_face(tensors, found, reader.path()).places;
  ensure(found.size() == tensors.size(), "{} holds {} tensors instead of {}", reader.path(), found.size(), tensors.size());
  std::vector<float> wanted, read;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    wanted.resize(static_cast<std::size_t>(tensors[i].shape.count()));
    read.resize(wanted.size());
    pack_all(tensors[i], model.store, wanted);
    for (float& value : wanted) value = stored_as(type_of(model), value);
    reader.read(found[places[i]].first, 0, tensors[i].shape.count(), read.data());
    ensure(std::memcmp(wanted.data(), read.data(), wanted.size() * sizeof(float)) == 0,
           "{}: the tensor {} does not read back as written; is the disk sound?", reader.path(), tensors[i].name);
  }
}

std::int64_t bytes_from(const std::string& size, const std::string& option) {
  constexpr std::pair<const char*, double> units[] = {
      {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"KiB", 1024}, {"MiB", 1024 * 1024.0}, {"GiB", 1 << 30}, {"B", 1}};
  double number = 0;
  const auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), number);
  std::string unit(end, size.data() + size.size());
  if (unit.starts_with(" ")) unit.erase(0, 1);
  double bytes = 0;
  for (const auto& [name, times] : units)
    if (error == std::errc() && unit == name) bytes = number * times;
  require(bytes >= 1 && bytes < 9e18, "command line: {} is '{}'; it must be a size like 5GB, 500MB or 2GiB", option, size);
  return static_cast<std::int64_t>(bytes);
}

}  // namespace collimate
