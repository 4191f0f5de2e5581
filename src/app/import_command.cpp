#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/build_info.hpp"
#include "app/chat_rules.hpp"
#include "app/command_line.hpp"
#include "app/import_weights.hpp"
#include "app/peft.hpp"
#include "app/stored_model.hpp"
#include "app/text_files.hpp"
#include "app/tokens_without_rows.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/model_files.hpp"
#include "collimate/io/checkpoint.hpp"
#include "collimate/model/hugging_face.hpp"
#include "collimate/rlhf/save_models.hpp"

namespace collimate {
namespace {

constexpr const char* usage =
    "collimate import --model FOLDER --output CHECKPOINT [OPTIONS]: reads a model as Hugging Face stores it (config.json,\n"
    "model.safetensors, sharded or not) with the tokenizer found beside it into a checkpoint with one model, 'policy', or\n"
    "'reward' where the files hold a value head. Adapters of PEFT become a checkpoint beside that of their base (--base). The prompt\n"
    "template is stored with it: `prepare --like CHECKPOINT` and `generate` use it. An earlier import is replaced, what a run has learned is not.";

/// The tokenizer that is named, or found beside the model, or none. What its own files do not say of BOS and EOS, config.json may.
std::unique_ptr<Tokenizer> tokenizer_of(const ModelFolder& source, const std::string& named, const std::string& pattern) {
  if (named == "none" || (named == "auto" && !holds_tokenizer(source.folder))) return nullptr;
  const std::string& found = named == "auto" ? source.folder : named;
  auto tokenizer = load_tokenizer(found, pattern);
  const HuggingFaceIds named_ids = ids_from_hugging_face(source.config_text, source.config_path);
  SpecialIds ids = tokenizer->special_ids();
  const auto complete = [&](std::optional<std::int32_t>& id, const std::optional<std::int64_t>& other) {
    if (!id && other && *other >= 0 && *other < tokenizer->vocabulary()) id = static_cast<std::int32_t>(*other);
  };
  if (!denies_bos(found)) complete(ids.bos, named_ids.bos);
  complete(ids.eos, named_ids.eos);
  return with_special_ids(std::move(tokenizer), ids);
}

/// Reads the weights and publishes the checkpoint; says what it holds.
std::string save_model(const std::string& output, const ModelConfig& config, const WeightFiles& weights, const rlhf::CheckpointNotes& notes,
                       const MemoryCaps& caps) {
  StoredModel stored(config, weights.head(), 1, caps);
  weights.read(stored.store());
  rlhf::ModelCard card;
  card.config = config;
  card.head = weights.head();
  const std::string name = card.head == Head::policy ? "policy" : "reward";
  rlhf::save_models(output, {{.name = name, .card = card, .store = &stored.store()}}, notes, *make_single_communicator());
  const ParameterLayout& layout = stored.store().layout();
  return fmt::format("model '{}' ({}, {}) of {} parameters, {} tensors", name, config.family, config.stored, layout.parameter_count(),
                     layout.parameters().size());
}

/// Only what import made can be made again.
void require_import(const std::string& output) {
  if (!std::filesystem::exists(output + "/manifest.json")) return;
  const std::string stage = nlohmann::json::parse(CheckpointReader(output).meta()).value("stage", "");
  require(stage == "import", "'{}' holds what the stage {} has learned; name another folder, or remove it", output, stage);
}

void tell_of_dropout(const ModelFolder& source) {
  if (const double dropout = attention_dropout_from_hugging_face(source.config_text, source.config_path); dropout != 0)
    fmt::print(
        "{} asks for a dropout of {} on attention probabilities, which is not applied; in training {} is, on embedding and residual "
        "branches\n",
        source.config_path, dropout, source.config.dropout);
}

int import_adapters(const std::string& folder, const std::string& base, const std::string& output) {
  const PeftAdapters adapters = read_peft(folder, base, output);
  rlhf::CheckpointNotes notes;
  notes.stage = "import";
  notes.complete = true;
  notes.build = to_json(build_info());
  notes.text = adapters.text;
  const std::string name = adapters.card.head == Head::policy ? "policy" : "reward";
  rlhf::save_models(output, {{.name = name, .card = adapters.card, .store = &adapters.store()}}, notes, *make_single_communicator());
  const LoraConfig& lora = adapters.card.adapters.lora;
  fmt::print("{}: adapters of rank {} for the {} of model '{}', beside the base '{}', whose tokenizer and template they take over\n", output, lora.rank,
             join(lora.targets, ", "), name, base);
  return 0;
}

}  // namespace

int import_command(const std::vector<std::string>& arguments) {
  std::string model, output, base, tokenizer_name = "auto", pattern;
  Template defaults;
  defaults.prompt = "{prompt}[[\n{input}]]";
  TemplateOptions text(defaults);
  OptionTable table;
  table.add("model", model, "the Hugging Face folder");
  table.add("base", base, "for a folder with adapters of PEFT: the checkpoint with their base");
  table.add("output", output, "the checkpoint to write, a folder", path_to_write());
  table.add("tokenizer", tokenizer_name, "'auto': the one in the folder, if there is one; 'none'; or a tokenizer file or folder");
  table.add("tokenizer-pattern", pattern, "how a tiktoken file cuts texts into words, where it does not show it; empty: it does",
            one_of({"", "r50k", "p50k", "cl100k", "o200k", "llama3", "qwen"}));
  CapWords memory;
  memory.declare(table);
  text.declare(table);
  ChatOptions chat;
  chat.declare(table);
  table.words_are_for("model");
  if (!read_command_line(table, usage, arguments)) return 0;
  require_option(table, "model");
  require_option(table, "output");
  require_checkpoint_place(output);
  require_import(output);

  if (is_peft_folder(model)) return import_adapters(model, base, output);
  require(base.empty(), "command line: --base is for a folder with adapters of PEFT, and '{}' holds none", model);
  ModelFolder source = open_model_folder(model);
  const auto tokenizer = tokenizer_of(source, tokenizer_name, pattern);
  const ModelFiles of_model = read_model_files(model);
  rlhf::CheckpointNotes notes;
  notes.stage = "import";
  notes.complete = true;
  notes.build = to_json(build_info());
  const ModelFiles files = tokenizer_name == "auto" || tokenizer_name == "none" ? of_model : read_model_files(tokenizer_name);
  const std::string chat_line = chat.choose(notes.text, text, table, files, tokenizer.get());
  for (const auto& [name, add, id] : {std::tuple("bos", &notes.text.rules.add_bos, tokenizer ? tokenizer->bos() : std::nullopt),
                                      std::tuple("eos", &notes.text.rules.add_eos, tokenizer ? tokenizer->eos() : std::nullopt)}) {
    require(id || !*add || !table.given(std::string("add-") + name), "command line: --add-{} needs a tokenizer with such a token", name);
    *add = *add && id;
  }
  ChatForm& form = notes.text.rules.chat;
  form.text_bos = !form.name.empty() && notes.text.rules.add_bos;
  form.text_eos = !form.name.empty() && (table.given("add-eos") ? notes.text.rules.add_eos : tokenizer->eos().has_value());
  std::string bos;
  if (tokenizer && !table.given("add-bos")) {
    bool& of_texts = form.name.empty() ? notes.text.rules.add_bos : form.text_bos;
    of_texts = adds_bos(*tokenizer, files);
    bos = bos_told(*tokenizer, files, of_texts);
  }
  std::string letters;
  if (tokenizer) {
    letters = notes.text.rules.look_for_special(*tokenizer);
    const auto unfed = tokens_without_rows(*tokenizer, notes.text.rules, source.config.vocabulary, tokenizer_name == "auto" ? model : tokenizer_name);
    if (!unfed.empty())
      letters += fmt::format("the model has no row for {}, which only pads: it is never fed here\n", join(unfed, ", "));
    notes.text.tokenizer = tokenizer->serialize();
  }
  std::string ends = take_text_files(notes.text, tokenizer.get(), of_model, source.config.vocabulary);
  ends += add_end_of_answer(notes.text, tokenizer.get());
  const WeightFiles weights(source);
  source.config.stored = weights.stored();
  fmt::print("{}: {}; {}\n", output, save_model(output, source.config, weights, notes, memory.caps()),
             tokenizer ? fmt::format("tokenizer {} with {} tokens", tokenizer->kind(), tokenizer->vocabulary())
                       : "no tokenizer, so prompts are given as --prompt-ids");
  if (tokenizer && tokenizer->vocabulary() < source.config.vocabulary)
    fmt::print(
        "the model has {} rows for {} tokens, which is usual as padding that a trained model does not draw; if the {} more are tokens, name the "
        "model's own tokenizer with --tokenizer\n",
        source.config.vocabulary, tokenizer->vocabulary(), source.config.vocabulary - tokenizer->vocabulary());
  Notes said = tokenizer ? tokenizer->notes() : of_model.notes;
  if (tokenizer && tokenizer_name != "auto") said.insert(said.end(), of_model.notes.begin(), of_model.notes.end());
  for (const std::string& note : said) fmt::print("{}\n", note);
  for (const std::string& note : weights.notes()) fmt::print("{}\n", note);
  fmt::print("{}{}{}{}", chat_line, bos, ends, letters);
  tell_of_dropout(source);
  return 0;
}

}  // namespace collimate
