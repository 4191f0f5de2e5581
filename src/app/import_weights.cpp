#include "app/import_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/file_kind.hpp"

namespace collimate {

ModelFolder open_model_folder(const std::string& folder) {
  require(std::filesystem::exists(folder) || folder.starts_with('/') || folder.starts_with('.'),
          "there is no folder '{}'; if it is a name on the Hugging Face Hub: no command of this program uses the network, so first do "
          "`huggingface-cli download {} --local-dir FOLDER` where there is one, then name that folder",
          folder, folder);
  if (std::filesystem::is_regular_file(folder)) require_file_kind(folder, {FileKind::text, FileKind::json}, "the folder of a Hugging Face model");
  require(std::filesystem::is_directory(folder), "'{}' is not a folder; --model takes one with config.json and model.safetensors", folder);
  ModelFolder source{folder, (std::filesystem::path(folder) / "config.json").string(), "", {}};
  require(std::filesystem::is_regular_file(source.config_path), "'{}' holds no config.json; is it a Hugging Face model?", folder);
  source.config_text = read_file(source.config_path);
  source.config = config_from_hugging_face(source.config_text, source.config_path);
  return source;
}

/// A file with both heads holds a language model that has learned values beside (TRL's PPO); one with a value head alone is a reward model.
WeightFiles::WeightFiles(const ModelFolder& source) : reader_(source.folder) {
  FoundTensors found;
  for (const SafetensorsEntry& entry : reader_.tensors()) found.emplace_back(entry.name, entry.shape);
  if (!has_language_head(found)) value_ = value_head_in(found);
  tensors_ = hugging_face_tensors(source.config, head(), value_.value_or(ValueHeadName{}));
  HuggingFaceMatch match = match_hugging_face(tensors_, found, reader_.path());
  places_ = std::move(match.places);
  notes_ = std::move(match.notes);
  if (match.tied_head) check_tied_head(source, *match.tied_head);
}

/// A head that config.json ties to the embedding is the embedding, so a file that holds another one contradicts it.
void WeightFiles::check_tied_head(const ModelFolder& source, std::size_t head_place) const {
  const SafetensorsEntry& head = reader_.tensors()[head_place];
  const auto tensor = std::ranges::find(tensors_, std::vector<std::string>{"embedding.weight"}, &HuggingFaceTensor::parts);
  const SafetensorsEntry& embedding = reader_.tensors()[places_[static_cast<std::size_t>(tensor - tensors_.begin())]];
  bool equal = head.shape == embedding.shape;
  constexpr std::int64_t slice = 1 << 22;
  std::vector<float> a, b;
  for (std::int64_t begin = 0; equal && begin < head.shape.count(); begin += slice) {
    a.resize(static_cast<std::size_t>(std::min(slice, head.shape.count() - begin)));
    b.resize(a.size());
    reader_.read(head.name, begin, std::ssize(a), a.data());
    reader_.read(embedding.name, begin, std::ssize(b), b.data());
    equal = std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }
  require(
      equal,
      "{} holds a {} that differs from {}, but {} ties the two: set \"tie_word_embeddings\": false there to import this head, or take it "
      "out of the file",
      reader_.path(), head.name, embedding.name, source.config_path);
}

std::string WeightFiles::stored() const {
  const auto all = [&](const char* type) {
    return std::ranges::all_of(places_, [&](std::size_t place) { return reader_.tensors()[place].dtype == type; });
  };
  return all("BF16") ? "bf16" : all("F16") ? "f16" : "f32";
}

void WeightFiles::read(ParameterStore& store) const {
  std::vector<float> stored, ours;
  if (value_ && !value_->bias) store.write(Kind::value, "value_head.bias", 0, std::vector<float>{0});
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const HuggingFaceTensor& tensor = tensors_[i];
    const std::string& name = reader_.tensors()[places_[i]].name;
    stored.resize(static_cast<std::size_t>(tensor.shape.count()));
    reader_.read(name, 0, tensor.shape.count(), stored.data());
    const auto broken = std::find_if(stored.begin(), stored.end(), [](float x) { return !std::isfinite(x); });
    require(broken == stored.end(), "element {} of the tensor {} in '{}' is {}: the file is damaged, or its training went wrong",
            broken - stored.begin(), name, reader_.path(), *broken);
    for (std::size_t part = 0; part < tensor.parts.size(); ++part) {
      ours.resize(static_cast<std::size_t>(tensor.part_shape().count()));
      unpack(tensor, static_cast<int>(part), stored, ours);
      store.write(Kind::value, tensor.parts[part], 0, ours);
    }
  }
}

}  // namespace collimate
