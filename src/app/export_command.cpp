#include <algorithm>
#include <filesystem>
#include <functional>

#include "app/chat_rules.hpp"
#include "app/command_line.hpp"
#include "app/export_weights.hpp"
#include "app/peft.hpp"
#include "app/stored_model.hpp"
#include "app/text_files.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/model_files.hpp"
#include "collimate/model/hugging_face.hpp"
#include "collimate/rlhf/saved_models.hpp"
#include "collimate/rlhf/weights.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;

constexpr const char* usage =
    "collimate export --checkpoint CHECKPOINT --output FOLDER [OPTIONS]: writes a model as a Hugging Face folder (config.json,\n"
    "model.safetensors, tokenizer files), which other programs load. Adapters are merged into their base, or with\n"
    "--adapters written alone, as PEFT stores them. The files are read again and compared before the folder gets its name.";

void write_folder(const std::string& folder, const ExportedModel& model, const rlhf::TextRules& text) {
  const auto tokenizer = text.has_tokenizer() ? text.make_tokenizer() : nullptr;
  if (tokenizer) save_tokenizer(*tokenizer, folder, text.rules.starts_with_bos(true));
  write_model(folder, model, {}, {});
  write_text_files(folder, text, tokenizer.get());
  write_chat_template(folder, text);
}

/// Reads a folder that was just written and compares it with the model: configuration, tokenizer, names, shapes and every bit.
void check_folder(const std::string& folder, const ExportedModel& model, const rlhf::TextRules& text) {
  check_model(folder, model);
  if (!text.has_tokenizer()) return;
  const auto tokenizer = text.make_tokenizer(), again = load_tokenizer(folder);
  const std::string sample = "Once upon a time, 12 caf\xc3\xa9s.\n";
  ensure(again->vocabulary() == tokenizer->vocabulary() && again->special_ids() == tokenizer->special_ids() &&
             again->encode(sample) == tokenizer->encode(sample),
         "the tokenizer written to '{}' does not read back as the checkpoint's", folder);
}

/// A reward model's scores as its head alone gives them: the gain of the normalisation goes into the head. Returns the constant that a head
/// without a bias cannot give.
float fold_normalisation(ParameterStore& store, const rlhf::ScoreNormalisation& normalisation) {
  rlhf::scale_value_head(store, normalisation.gain, normalisation.bias);
  std::vector<float> constant(1);
  store.read(Kind::value, "value_head.bias", 0, constant);
  return constant[0];
}

/// Writes a folder under another name, and gives it its own when it is complete.
void make_folder(const std::string& output, const std::function<void(const std::string& partial)>& write) {
  const std::string partial = (fs::absolute(output) / "").parent_path().string() + ".partial";
  try {
    fs::remove_all(partial);
    fs::create_directories(partial);
    write(partial);
    fs::rename(partial, output);  // an empty folder is replaced
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    const auto* file_error = dynamic_cast<const fs::filesystem_error*>(&error);
    if (file_error != nullptr) fail("cannot write the folder '{}': {}", output, file_error->code().message());
    throw;
  }
}

int export_adapters(const rlhf::SavedModels& saved, const std::string& model, const rlhf::ModelCard& card, const std::string& output) {
  const LoraConfig& lora = card.adapters.lora;
  require(lora.on(), "the model '{}' of '{}' has no adapters: leave --adapters out", model, saved.reader().folder());
  std::size_t tensors = 0;
  make_folder(output, [&](const std::string& partial) { tensors = write_peft(partial, saved, model); });
  fmt::print("{}: the adapters of model '{}' of '{}' for PEFT, rank {}, {} tensors; their base is {}, to be exported without --adapters\n",
             output, model, saved.reader().folder(), lora.rank, tensors,
             card.adapters.base.empty() ? "what seed " + std::to_string(card.adapters.seed) + " gives" : "'" + card.adapters.base + "'");
  return 0;
}

}  // namespace

int export_command(const std::vector<std::string>& arguments) {
  std::string checkpoint, base, model, output, dtype = "imported", shard_size = "5GB";
  bool adapters = false;
  OptionTable table;
  table.add("checkpoint", checkpoint, "the checkpoint, a folder");
  table.add("base", base, "the base of a checkpoint with adapters, where it is not where the checkpoint says; empty: it is");
  table.add("model", model, "which of its models; empty: its language model, or else its reward model");
  table.add("output", output, "the folder to write; must be new or empty", path_to_write());
  table.add("dtype", dtype,
            "the type of the numbers in the files; imported: that of the files that the model came from, f32 if it came from none",
            one_of({"imported", "f32", "bf16", "f16"}));
  table.add("shard-size", shard_size, "most bytes of a file of weights, like 500MB or 2GiB; more become several files and an index");
  table.add("adapters", adapters, "write the adapters alone, as PEFT stores them");
  CapWords memory;
  memory.declare(table);
  table.words_are_for("checkpoint");
  if (!read_command_line(table, usage, arguments)) return 0;
  require_option(table, "checkpoint");
  require_option(table, "output");
  require_new_folder(output);
  const std::int64_t largest = bytes_from(shard_size, "--shard-size");

  require_one_checkpoint(checkpoint);
  const rlhf::SavedModels saved(checkpoint, base);
  if (model.empty()) {
    const bool values = std::ranges::all_of(saved.models(), [&](const std::string& name) { return saved.card(name).head == Head::value; });
    model = rlhf::main_model_of(saved, values ? Head::value : Head::policy);
  }
  rlhf::ModelCard card = saved.card(model);
  if (adapters) return export_adapters(saved, model, card, output);
  StoredModel stored(card.config, card.head, card.shards, memory.caps());
  saved.load(model, stored.store());
  const rlhf::TextRules text = saved.text_rules();
  const float constant = card.head == Head::value ? fold_normalisation(stored.store(), card.normalisation) : 0;
  if (dtype != "imported") card.config.stored = dtype;
  const ExportedModel exported{card.config, card.head, stored.store(), largest};

  std::string told;
  make_folder(output, [&](const std::string& partial) {
    write_folder(partial, exported, text);
    told = class_told(partial);
    check_folder(partial, exported, text);
  });
  fmt::print("{}: model '{}' of '{}' with {} tensors, {} parameters in {}{}{}; read again and found equal, bit by bit\n", output, model,
             checkpoint, exported.tensors().size(), stored.store().layout().parameter_count(), card.config.stored,
             card.adapters.lora.on() ? " (adapters merged)" : "", text.has_tokenizer() ? " and its tokenizer" : ", no tokenizer");
  if (card.config.stored != "f32")
    fmt::print("its numbers were rounded to the nearest of {}{}\n", card.config.stored,
               dtype == "imported" ? ", the type that it came in; --dtype f32 keeps all digits" : "");
  if (constant != 0)
    fmt::print(
        "a score is the head's number, with the gain of the normalisation in it; the constant {} is left out, which transformers' head has no "
        "place for: differences and rankings stay the same\n",
        constant);
  fmt::print("{}{}", told, tell_of_template(text));
  return 0;
}

}  // namespace collimate
