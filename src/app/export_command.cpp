#include <algorithm>
#include <cstring>
#include <filesystem>

#include "app/command_line.hpp"
#include "app/stored_model.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/io/safetensors.hpp"
#include "collimate/model/hugging_face.hpp"
#include "collimate/rlhf/model_card.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;

constexpr const char* usage =
    "collimate export --checkpoint CHECKPOINT --output FOLDER [OPTIONS]: writes a model as a Hugging Face folder (config.json,\n"
    "model.safetensors, tokenizer files), which other programs load. Adapters are merged into their base. The files are read again and\n"
    "compared before the folder gets its name.";

/// A tensor as Hugging Face stores it.
void pack_all(const HuggingFaceTensor& tensor, const ParameterStore& store, std::span<float> stored) {
  std::vector<float> ours(static_cast<std::size_t>(tensor.part_shape().count()));
  for (std::size_t part = 0; part < tensor.parts.size(); ++part) {
    store.read(Kind::value, tensor.parts[part], 0, ours);
    pack(tensor, static_cast<int>(part), ours, stored);
  }
}

void write_folder(const std::string& folder, const ModelConfig& config, const std::vector<HuggingFaceTensor>& tensors,
                  const ParameterStore& store, const rlhf::TextRules& text) {
  std::optional<std::int64_t> bos, eos;
  if (text.has_tokenizer()) {
    const auto tokenizer = text.make_tokenizer();
    bos = tokenizer->bos(), eos = tokenizer->eos();
    save_tokenizer(*tokenizer, folder);
  }
  write_file((fs::path(folder) / "config.json").string(), config_to_hugging_face(config, bos, eos));
  std::vector<SafetensorsSpec> specs;
  for (const HuggingFaceTensor& tensor : tensors) specs.push_back({tensor.name, tensor.shape});
  write_safetensors_folder(folder, specs, [&](std::size_t i, std::span<float> values) { pack_all(tensors[i], store, values); });
}

/// Reads a folder that was just written and compares it with the model: configuration, tokenizer, names, shapes and every bit.
void check_folder(const std::string& folder, const ModelConfig& config, const std::vector<HuggingFaceTensor>& tensors,
                  const ParameterStore& store, const rlhf::TextRules& text) {
  const std::string config_path = (fs::path(folder) / "config.json").string();
  ensure(config_from_hugging_face(read_file(config_path), config_path) == config, "{} does not read back as the model it was written from",
         config_path);
  const SafetensorsReader reader(folder);
  std::vector<std::pair<std::string, Shape>> found;
  for (const SafetensorsEntry& entry : reader.tensors()) found.emplace_back(entry.name, entry.shape);
  const std::vector<std::size_t> places = match_hugging_face(tensors, found, reader.path());
  ensure(found.size() == tensors.size(), "{} holds {} tensors instead of {}", reader.path(), found.size(), tensors.size());
  std::vector<float> wanted, read;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    wanted.resize(static_cast<std::size_t>(tensors[i].shape.count()));
    read.resize(wanted.size());
    pack_all(tensors[i], store, wanted);
    reader.read(found[places[i]].first, 0, tensors[i].shape.count(), read.data());
    ensure(std::memcmp(wanted.data(), read.data(), wanted.size() * sizeof(float)) == 0,
           "{}: the tensor {} does not read back as written; is the disk sound?", reader.path(), tensors[i].name);
  }
  if (!text.has_tokenizer()) return;
  const auto tokenizer = text.make_tokenizer(), again = load_tokenizer(folder);
  const std::string sample = "Once upon a time, 12 caf\xc3\xa9s.\n";
  ensure(again->vocabulary() == tokenizer->vocabulary() && again->special_ids() == tokenizer->special_ids() &&
             again->encode(sample) == tokenizer->encode(sample),
         "the tokenizer written to '{}' does not read back as the checkpoint's", folder);
}

}  // namespace

int export_command(const std::vector<std::string>& arguments) {
  std::string checkpoint, base, model, output;
  OptionTable table;
  table.add("checkpoint", checkpoint, "the checkpoint, a folder");
  table.add("base", base, "the base of a checkpoint with adapters, where it is not where the checkpoint says; empty: it is");
  table.add("model", model, "which of its models; empty: its language model");
  table.add("output", output, "the folder to write; must be new or empty");
  table.words_are_for("checkpoint");
  if (!read_command_line(table, usage, arguments)) return 0;
  require_option(table, "checkpoint");
  require_option(table, "output");
  require_new_folder(output);

  require_one_checkpoint(checkpoint);
  const rlhf::SavedModels saved(checkpoint, base);
  if (model.empty()) model = rlhf::main_model_of(saved, Head::policy);
  const rlhf::ModelCard card = saved.card(model);
  require(card.head == Head::policy,
          "the model '{}' of '{}' has a value head with a normalisation, for which there is no common format; export a language model",
          model, checkpoint);
  StoredModel stored(card.config, card.head, card.shards);
  saved.load(model, stored.store());
  const rlhf::TextRules text = saved.text_rules();
  const std::vector<HuggingFaceTensor> tensors = hugging_face_tensors(card.config);

  const std::string partial = (fs::absolute(output) / "").parent_path().string() + ".partial";
  try {
    fs::remove_all(partial);
    fs::create_directories(partial);
    write_folder(partial, card.config, tensors, stored.store(), text);
    check_folder(partial, card.config, tensors, stored.store(), text);
    fs::rename(partial, output);  // an empty folder is replaced
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    const auto* file_error = dynamic_cast<const fs::filesystem_error*>(&error);
    if (file_error != nullptr) fail("cannot write the folder '{}': {}", output, file_error->code().message());
    throw;
  }
  fmt::print("{}: model '{}' of '{}' with {} tensors, {} parameters{}{}; read again and found equal, bit by bit\n", output, model,
             checkpoint, tensors.size(), card.config.parameters(), card.adapters.lora.on() ? " (adapters merged)" : "",
             text.has_tokenizer() ? " and its tokenizer" : ", no tokenizer");
  Example example;
  example.prompt = "x";
  if (text.has_tokenizer() && text.rules.prompt_text(example).text != example.prompt)
    fmt::print("its prompts were made with the template {:?}, which is no part of such a folder: who uses it must do the same\n", text.rules.prompt);
  return 0;
}

}  // namespace collimate
