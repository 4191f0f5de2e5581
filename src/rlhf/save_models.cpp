#include "collimate/rlhf/save_models.hpp"

#include "collimate/io/checkpoint.hpp"
#include "rlhf/checkpoint_form.hpp"

namespace collimate::rlhf {
namespace {

std::string meta_of(const std::vector<ModelToSave>& models, const CheckpointNotes& notes) {
  nlohmann::json meta;
  for (const ModelToSave& model : models) meta["models"][model.name] = card_to_json(model.card);
  meta["stage"] = notes.stage;
  meta["complete"] = notes.complete;
  meta["progress"] = nlohmann::json::parse(notes.progress);
  meta["deck"] = notes.deck;
  meta["build"] = nlohmann::json::parse(notes.build);
  add_text_rules(meta, notes.text);
  return meta.dump();
}

/// A run of memory where the host reads it: in place where the device is the host, else copied into `room`.
std::span<const float> on_the_host(const Tensor& run, const ParameterStore& store, std::vector<float>& room) {
  if (run.device().is_host() && run.dtype() == DType::f32) return {run.as<float>(), static_cast<std::size_t>(run.count())};
  room.resize(static_cast<std::size_t>(run.count()));
  store.get(room, run);
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

}  // namespace collimate::rlhf
