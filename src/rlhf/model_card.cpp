#include "collimate/rlhf/model_card.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace collimate::rlhf {
namespace {

using nlohmann::json;

// A serialised tokenizer may hold any byte; JSON holds text. Each byte becomes the code point of its number.
std::string bytes_to_text(const std::string& bytes) {
  std::string text;
  for (const unsigned char c : bytes) {
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else {
      text += static_cast<char>(0xc0 | c >> 6);
      text += static_cast<char>(0x80 | (c & 0x3f));
    }
  }
  return text;
}

std::string text_to_bytes(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    bytes += c < 0x80 || i + 1 == text.size() ? static_cast<char>(c)
                                              : static_cast<char>((c & 0x3) << 6 | (static_cast<unsigned char>(text[++i]) & 0x3f));
  }
  return bytes;
}

constexpr std::int64_t slice = 1 << 22;  // elements copied at a time

bool is_value_head(const Parameter& parameter) { return parameter.name.starts_with("value_head."); }
bool is_head(const Parameter& parameter) { return is_value_head(parameter) || parameter.name == "head.weight"; }

std::string tensor_of(const std::string& model, Kind kind, const std::string& parameter) {
  return model + (kind == Kind::value ? "/value/" : kind == Kind::first_moment ? "/first_moment/" : "/second_moment/") + parameter;
}

json to_json(const AdapterNote& note) {
  return {{"rank", note.lora.rank}, {"alpha", note.lora.alpha}, {"dropout", note.lora.dropout},  {"targets", note.lora.targets},
          {"base", note.base},      {"seed", note.seed},        {"base_model", note.base_model}, {"base_hash", note.base_hash}};
}

AdapterNote adapter_note_from(const json& found) {
  const LoraConfig lora{found["rank"], found["alpha"], found["dropout"], found["targets"]};
  return {lora, found["base"], found["base_model"], found["seed"], found["base_hash"]};
}

}  // namespace

SavedModels::SavedModels(const std::string& folder, std::string base)
    : name_(folder), base_(std::move(base)), reader_(folder), meta_(reader_.meta()) {
  const json meta = json::parse(meta_, nullptr, false);
  require(meta.is_object() && meta.contains("models"),
          "'{}' is a checkpoint without models: it was not written by a stage or by `collimate import`", folder);
}

std::vector<std::string> SavedModels::models() const {
  std::vector<std::string> names;
  const json meta = json::parse(meta_);
  for (const auto& [name, card] : meta["models"].items()) names.push_back(name);
  return names;
}

bool SavedModels::has(const std::string& model) const { return json::parse(meta_)["models"].contains(model); }

ModelCard SavedModels::card(const std::string& model) const {
  const json models = json::parse(meta_)["models"];
  require(models.contains(model), "the checkpoint '{}' holds no model '{}', but {}", name_, model, fmt::join(this->models(), ", "));
  const json& found = models[model];
  return {ModelConfig::from_json(found["config"].dump()),
          found["head"] == "value" ? Head::value : Head::policy,
          found["shards"],
          {found["gain"], found["bias"]},
          found.value("scorer", ""),
          found.contains("adapters") ? adapter_note_from(found["adapters"]) : AdapterNote{},
          found.value("init_std", 0.0)};
}

TextRules SavedModels::text_rules() const {
  const json meta = json::parse(meta_);
  TextRules text;
  text.tokenizer = text_to_bytes(meta.value("tokenizer", ""));
  if (meta.contains("template")) text.rules = Template::from_json(meta["template"].dump());
  text.settled = meta.value("settled", stage() != "import");
  text.ends = meta.value("ends", std::vector<std::int32_t>());
  if (meta.contains("bos")) text.bos = meta["bos"].get<std::int32_t>();
  if (meta.contains("generation")) text.generation = meta["generation"].dump();
  text.chat_template = meta.value("chat_template", "");
  return text;
}

std::vector<std::int32_t> TextRules::stops(const Tokenizer* tokenizer) const {
  std::vector<std::int32_t> all = ends;
  if (tokenizer != nullptr && tokenizer->eos() && std::find(all.begin(), all.end(), *tokenizer->eos()) == all.end())
    all.insert(all.begin(), *tokenizer->eos());
  return all;
}

std::string SavedModels::stage() const { return json::parse(meta_).value("stage", ""); }
bool SavedModels::complete() const { return json::parse(meta_).value("complete", false); }
bool SavedModels::can_go_on() const {
  const auto& all = reader_.tensors();
  return std::any_of(all.begin(), all.end(), [](const CheckpointTensor& one) { return one.name.find("/first_moment/") != std::string::npos; });
}
std::string SavedModels::progress() const { return json::parse(meta_).value("progress", json::object()).dump(); }
std::string SavedModels::deck() const { return json::parse(meta_).value("deck", ""); }
std::string SavedModels::instruction_set() const { return json::parse(meta_).value("build", json::object()).value("instruction_set", ""); }

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
        const std::int64_t row = element / width, first = element % width, count = std::min<std::int64_t>(width - first, std::ssize(values));
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

std::string base_hash(const ParameterStore& store) {
  std::vector<std::uint64_t> hashes = store.hashes(Kind::value);
  const auto& parameters = store.layout().parameters();
  hashes.resize(std::find_if(parameters.begin(), parameters.end(), is_head) - parameters.begin());  // a head comes last
  return fmt::format("{:016x}", combine(store.layout(), hashes));
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
  rest["tokenizer"] = summary_of(text_to_bytes(rest.value("tokenizer", "")));
  for (json& model : rest["models"]) model["parameters"] = ModelConfig::from_json(model["config"].dump()).parameters();
  Sections sections{{"meta", rest.dump(2)}};
  if (!deck.empty()) sections.emplace_back("deck", deck);
  return sections;
}

namespace {

std::string meta_of(const std::vector<ModelToSave>& models, const CheckpointNotes& notes) {
  json meta;
  for (const ModelToSave& model : models) {
    meta["models"][model.name] = {{"config", json::parse(model.card.config.to_json())},
                                  {"head", model.card.head == Head::value ? "value" : "policy"},
                                  {"shards", model.card.shards},
                                  {"gain", model.card.normalisation.gain},
                                  {"bias", model.card.normalisation.bias}};
    if (!model.card.scorer.empty()) meta["models"][model.name]["scorer"] = model.card.scorer;
    if (model.card.init_std > 0) meta["models"][model.name]["init_std"] = model.card.init_std;
    if (model.card.adapters.lora.on()) meta["models"][model.name]["adapters"] = to_json(model.card.adapters);
  }
  meta["stage"] = notes.stage;
  meta["complete"] = notes.complete;
  meta["progress"] = json::parse(notes.progress);
  meta["deck"] = notes.deck;
  meta["build"] = json::parse(notes.build);
  meta["tokenizer"] = bytes_to_text(notes.text.tokenizer);
  meta["template"] = json::parse(notes.text.rules.to_json());
  meta["settled"] = notes.text.settled;
  if (!notes.text.ends.empty()) meta["ends"] = notes.text.ends;
  if (notes.text.bos) meta["bos"] = *notes.text.bos;
  if (!notes.text.generation.empty()) meta["generation"] = json::parse(notes.text.generation);
  if (!notes.text.chat_template.empty()) meta["chat_template"] = notes.text.chat_template;
  return meta.dump();
}

/// A run of memory where the host reads it: in place where the device is the host, else copied into `room`.
std::span<const float> on_the_host(const Tensor& run, const ParameterStore& store, std::vector<float>& room) {
  if (run.device().is_host()) return {run.as<float>(), static_cast<std::size_t>(run.count())};
  room.resize(static_cast<std::size_t>(run.count()));
  store.staging().get(room, run, run.device().stream());
  return room;
}

/// Writes what this rank counts of every parameter: runs of memory, those that lie in the same columns of consecutive rows as boxes.
void write_share(CheckpointWriter& writer, const ModelToSave& model, Kind kind) {
  std::vector<float> host;
  for (const Parameter& parameter : model.store->layout().parameters()) {
    const std::string name = tensor_of(model.name, kind, parameter.name);
    const std::int64_t width = parameter.shape.rank() == 2 ? parameter.shape[1] : 1;
    std::int64_t first = 0, length = 0, rows = 0;
    Tensor begin;
    const auto flush = [&] {
      if (rows == 0) return;
      const Tensor run(begin.data(), begin.dtype(), {rows * length}, begin.device());
      const std::span<const float> values = on_the_host(run, *model.store, host);
      if (rows > 1)
        writer.write_box(name, parameter.shape, {first / width, rows, first % width, length}, values);
      else
        writer.write(name, parameter.shape, first, values);
      rows = 0;
    };
    model.store->for_each_run(kind, parameter, 0, parameter.shape.count(), Extent::counted, [&](std::int64_t element, Tensor run) {
      const bool follows = rows > 0 && run.data() == static_cast<std::byte*>(begin.data()) + static_cast<std::size_t>(rows) * run.bytes();
      if (rows > 0 && length < width && run.count() == length && element == first + rows * width && follows) {
        ++rows;
        return;
      }
      flush();
      first = element;
      length = run.count();
      rows = 1;
      begin = run;
    });
    flush();
  }
}

}  // namespace

void save_models(const std::string& folder, const std::vector<ModelToSave>& models, const CheckpointNotes& notes, Communicator& ranks) {
  std::unique_ptr<CheckpointWriter> writer;
  try {
    agree_on(ranks, [&] {
      writer = std::make_unique<CheckpointWriter>(folder, ranks.rank(), ranks.size());
      for (const ModelToSave& model : models) {
        write_share(*writer, model, Kind::value);
        if (!model.moments) continue;
        write_share(*writer, model, Kind::first_moment);
        write_share(*writer, model, Kind::second_moment);
      }
      writer->attribute(notes.build);
      writer->close_part();
    });
    agree_on(ranks, [&] {
      if (ranks.rank() == 0) writer->publish(meta_of(models, notes));
    });
  } catch (const AgreedError&) {
    if (writer) writer->abandon();
    throw;
  }
}

void random_weights(ParameterStore& store, const ModelCard& card, std::uint64_t seed) {
  store.initialise(seed);
  if (card.init_std == 0) return;
  for (const Parameter& parameter : store.layout().parameters()) {
    const std::string& name = parameter.name;
    if (parameter.initial.deviation == 0 || name.ends_with(".lora_a")) continue;
    const bool residual = name.ends_with(".output.weight") || name.ends_with(".down.weight");
    const double deviation = residual ? card.init_std / std::sqrt(2.0 * static_cast<double>(card.config.layers)) : card.init_std;
    const double factor = deviation / parameter.initial.deviation;
    store.change(parameter, [&](std::int64_t, std::span<float> values) {
      for (float& value : values) value = static_cast<float>(factor * value);
    });
  }
}

void scale_value_head(ParameterStore& store, double gain, double bias) {
  for (const char* name : {"value_head.weight", "value_head.bias"}) {
    const Parameter& parameter = store.layout().parameter(name);
    const double shift = parameter.shape.rank() == 1 ? bias : 0;
    store.change(parameter, [&](std::int64_t, std::span<float> values) {
      for (float& value : values) value = static_cast<float>(gain * value + shift);
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

}  // namespace collimate::rlhf
