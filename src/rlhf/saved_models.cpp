#include "collimate/rlhf/saved_models.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/data/tokenizer.hpp"
#include "collimate/model/transformer.hpp"
#include "collimate/rlhf/weights.hpp"
#include "rlhf/checkpoint_form.hpp"

namespace collimate::rlhf {

using nlohmann::json;

namespace {

constexpr std::int64_t slice = 1 << 22;  // elements copied at a time

}  // namespace

/// Parsed once: it has the tokenizer's text, which may be megabytes.
struct SavedModels::Meta {
  json root;
};

SavedModels::SavedModels(const std::string& folder, std::string base)
    : name_(folder), base_(std::move(base)), reader_(folder), meta_(new Meta{json::parse(reader_.meta(), nullptr, false)}) {
  require(meta_->root.is_object() && meta_->root.contains("models"),
          "'{}' is a checkpoint without models: it was not written by a stage or by `collimate import`", folder);
}

SavedModels::~SavedModels() = default;

std::vector<std::string> SavedModels::models() const {
  std::vector<std::string> names;
  for (const auto& [name, card] : meta_->root["models"].items()) names.push_back(name);
  return names;
}

bool SavedModels::has(const std::string& model) const { return meta_->root["models"].contains(model); }

ModelCard SavedModels::card(const std::string& model) const {
  require(has(model), "the checkpoint '{}' holds no model '{}', but {}", name_, model, fmt::join(models(), ", "));
  return card_from_json(meta_->root["models"][model]);
}

TextRules SavedModels::text_rules() const { return text_rules_of(meta_->root); }
std::string SavedModels::stage() const { return meta_->root.value("stage", ""); }
bool SavedModels::complete() const { return meta_->root.value("complete", false); }
std::string SavedModels::progress() const { return meta_->root.value("progress", json::object()).dump(); }
std::string SavedModels::deck() const { return meta_->root.value("deck", ""); }
std::string SavedModels::instruction_set() const { return meta_->root.value("build", json::object()).value("instruction_set", ""); }

bool SavedModels::can_go_on() const {
  const auto& all = reader_.tensors();
  const auto is_moment = [](const CheckpointTensor& one) { return one.name.find("/first_moment/") != std::string::npos; };
  return std::any_of(all.begin(), all.end(), is_moment);
}

void SavedModels::check_shape(const std::string& tensor, const Shape& wanted) const {
  const Shape& shape = reader_.find(tensor).shape;
  require(shape == wanted, "'{}' in the checkpoint '{}' has the shape {}, and the model needs {}", tensor, name_, shape.text(),
          wanted.text());
}

void SavedModels::verify() const {
  const auto device = make_device();
  for (const std::string& model : models()) {
    const ModelCard own = card(model);
    MemoryPlan plan(*device);
    const LoraConfig& lora = own.adapters.lora;
    const Transformer transformer(own.config, own.head, Division{.shards = own.shards}, plan, {}, lora);
    for (const Parameter& parameter : (lora.on() ? transformer.adapter_layout() : transformer.layout()).parameters())
      check_shape(tensor_of(model, Kind::value, parameter.name), parameter.shape);
    if (lora.on() && !own.adapters.base.empty()) SavedModels(base_folder(own.adapters), base_).verify();
  }
  reader_.verify();
}

void SavedModels::fill(const std::string& model, ParameterStore& store, Kind kind) const {
  for (const Parameter& parameter : store.layout().parameters()) {
    const std::string name = tensor_of(model, kind, parameter.name);
    if (is_head(parameter) && !reader_.has(name)) continue;
    check_shape(name, parameter.shape);
    std::vector<float> values;
    for (std::int64_t begin = 0; begin < parameter.shape.count(); begin += slice) {
      values.resize(std::min(slice, parameter.shape.count() - begin));
      bool held = false;
      store.for_each_run(kind, parameter, begin, std::ssize(values), Extent::held, [&](auto, auto) { held = true; });
      if (!held) continue;
      reader_.read(name, begin, static_cast<std::int64_t>(values.size()), values.data());
      store.write(kind, parameter.name, begin, values);
    }
  }
}

std::string SavedModels::base_folder(const AdapterNote& note) const {
  namespace fs = std::filesystem;
  const std::string noted = (fs::path(name_) / "" / note.base).lexically_normal().string();
  if (fs::exists(noted)) return noted;
  require(!base_.empty(),
          "the checkpoint '{}' holds adapters, and their base is not at '{}': name its folder (lora.base in a deck, --base)", name_, noted);
  return base_;
}

void SavedModels::check_base(const AdapterNote& note, const ParameterStore& base) const {
  const std::string hash = base_hash(base);
  require(hash == note.base_hash || note.base_values == name_of(DType::bf16) || base.values_type() == DType::f32,
          "the checkpoint '{}' holds adapters that learned beside fp32 parameters, and here they are bf16: set numerics.values = f32", name_);
  require(hash == note.base_hash,
          "the checkpoint '{}' holds adapters that belong to other weights: their base has the hash {}, and {} has {}; name the right base",
          name_, note.base_hash, note.base.empty() ? fmt::format("what seed {} gives", note.seed) : fmt::format("'{}'", base_folder(note)),
          hash);
}

void SavedModels::load_base(const std::string& model, ParameterStore& base) const {
  const AdapterNote note = card(model).adapters;
  if (note.base.empty())
    random_weights(base, card(model), static_cast<std::uint64_t>(note.seed));
  else
    SavedModels(base_folder(note), base_).load(note.base_model, base);
  if (note.base_values == name_of(DType::bf16))  // as they were where the adapters learned
    for (const Parameter& parameter : base.layout().parameters())
      base.change(parameter, [](std::int64_t, std::span<float> values) {
        std::ranges::transform(values, values.begin(), [](float value) { return to_float(to_bf16(value)); });
      });
  check_base(note, base);
}

void SavedModels::load(const std::string& model, ParameterStore& store, bool moments) const {
  if (const LoraConfig lora = card(model).adapters.lora; lora.on()) {
    load_base(model, store);
    merge(model, lora, store);
    return load_head(model, store);
  }
  fill(model, store, Kind::value);
  if (!moments) return;
  fill(model, store, Kind::first_moment);
  fill(model, store, Kind::second_moment);
}

void SavedModels::load_adapters(const std::string& model, ParameterStore& adapters, const ParameterStore& base, bool moments) const {
  check_base(card(model).adapters, base);
  fill(model, adapters, Kind::value);
  if (!moments) return;
  fill(model, adapters, Kind::first_moment);
  fill(model, adapters, Kind::second_moment);
}

void SavedModels::load_head(const std::string& model, ParameterStore& store) const {
  for (const Parameter& parameter : store.layout().parameters()) {
    const std::string name = tensor_of(model, Kind::value, parameter.name);
    if (!is_value_head(parameter) || !reader_.has(name)) continue;
    check_shape(name, parameter.shape);
    std::vector<float> values(parameter.shape.count());
    reader_.read(name, 0, std::ssize(values), values.data());
    store.write(Kind::value, parameter.name, 0, values);
  }
}

/// W += scale (B A) for every matrix with an adapter.
void SavedModels::merge(const std::string& model, const LoraConfig& lora, ParameterStore& store) const {
  for (const Parameter& w : store.layout().parameters()) {
    const std::string name = tensor_of(model, Kind::value, w.name.substr(0, w.name.rfind('.')));
    if (!w.name.ends_with(".weight") || !reader_.has(name + ".lora_a")) continue;
    const std::int64_t width = w.shape[1];
    check_shape(name + ".lora_a", {lora.rank, width});
    check_shape(name + ".lora_b", {w.shape[0], lora.rank});
    std::vector<float> a(lora.rank * width), b(w.shape[0] * lora.rank);
    reader_.read(name + ".lora_a", 0, std::ssize(a), a.data());
    reader_.read(name + ".lora_b", 0, std::ssize(b), b.data());
    std::vector<float> product(width);
    store.change(w, [&](std::int64_t element, std::span<float> values) {
      while (!values.empty()) {  // a row after the other
        const std::int64_t row = element / width, first = element % width;
        const std::int64_t count = std::min<std::int64_t>(width - first, std::ssize(values));
        std::fill_n(product.begin(), count, 0.0f);
        for (std::int64_t k = 0; k < lora.rank; ++k)
          for (std::int64_t c = 0; c < count; ++c) product[c] = std::fma(b[row * lora.rank + k], a[k * width + first + c], product[c]);
        for (std::int64_t c = 0; c < count; ++c) values[c] = std::fma(lora.scale(), product[c], values[c]);
        element += count;
        values = values.subspan(static_cast<std::size_t>(count));
      }
    });
  }
}

std::string main_model_of(const SavedModels& saved, Head head) {
  const std::vector<std::string> order =
      head == Head::policy ? std::vector<std::string>{"policy", "actor"} : std::vector<std::string>{"reward", "critic"};
  for (const std::string& name : order)
    if (saved.has(name)) return name;
  for (const std::string& name : saved.models())
    if (saved.card(name).head == head) return name;
  fail("the checkpoint '{}' holds no model with a {} head, but {}; name another checkpoint", saved.reader().folder(),
       head == Head::policy ? "language model's" : "value", fmt::join(saved.models(), ", "));
}


namespace {

json summary_of(const std::string& serialized) {
  if (serialized.empty()) return "none";
  json summary{{"bytes", serialized.size()}};
  try {
    const auto tokenizer = deserialize_tokenizer(serialized);
    summary["kind"] = tokenizer->kind();
    summary["tokens"] = tokenizer->vocabulary();
    summary["fingerprint"] = fmt::format("{:016x}", tokenizer->fingerprint());
    for (const auto& [name, id] : {std::pair("bos", tokenizer->bos()), std::pair("eos", tokenizer->eos())})
      summary[name] = id ? json(*id) : json();
  } catch (const Error& error) {
    summary["unreadable"] = error.what();
  }
  return summary;
}

}  // namespace

Sections describe_meta(const std::string& meta) {
  json rest = json::parse(meta);
  if (!rest.contains("models")) return {{"meta", rest.dump(2)}};
  const std::string deck = rest.value("deck", "");
  for (const char* key : {"deck", "build"}) rest.erase(key);
  rest["tokenizer"] = summary_of(tokenizer_of(rest));
  for (json& model : rest["models"]) model["parameters"] = ModelConfig::from_json(model["config"].dump()).parameters();
  Sections sections{{"meta", rest.dump(2)}};
  if (!deck.empty()) sections.emplace_back("deck", deck);
  return sections;
}

}  // namespace collimate::rlhf
