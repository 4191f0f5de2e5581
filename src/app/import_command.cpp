#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/build_info.hpp"
#include "app/command_line.hpp"
#include "app/stored_model.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/io/checkpoint.hpp"
#include "collimate/io/safetensors.hpp"
#include "collimate/model/hugging_face.hpp"
#include "collimate/rlhf/model_card.hpp"

namespace collimate {
namespace {

constexpr const char* usage =
    "collimate import --model FOLDER --output CHECKPOINT [OPTIONS]: reads a GPT-2 or LLaMA model as Hugging Face stores it (config.json,\n"
    "model.safetensors, sharded or not) with the tokenizer found beside it into a checkpoint with one model, 'policy'. The prompt\n"
    "template is stored with it: `prepare --like CHECKPOINT` and `generate` use it. An earlier import is replaced, what a run has learned is not.";

struct Source {
  std::string folder, config_path, config_text;
  ModelConfig config;
};

/// The file or files of the weights, in which every tensor of the model was found with its shape.
struct WeightFiles {
  SafetensorsReader reader;
  std::vector<HuggingFaceTensor> tensors;
  std::vector<std::string> names;  ///< in the file, of each tensor
};

Source open_source(const std::string& folder) {
  require(std::filesystem::is_directory(folder), "'{}' is no folder; --model takes one with config.json and model.safetensors", folder);
  Source source{folder, (std::filesystem::path(folder) / "config.json").string(), "", {}};
  require(std::filesystem::is_regular_file(source.config_path), "'{}' holds no config.json; is it a Hugging Face model?", folder);
  source.config_text = read_file(source.config_path);
  source.config = config_from_hugging_face(source.config_text, source.config_path);
  return source;
}

/// The tokenizer that is named, or found beside the model, or none. What its own files do not say of BOS and EOS, config.json may.
std::unique_ptr<Tokenizer> tokenizer_of(const Source& source, const std::string& named) {
  if (named == "none" || (named == "auto" && !holds_tokenizer(source.folder))) return nullptr;
  const std::string& found = named == "auto" ? source.folder : named;
  auto tokenizer = load_tokenizer(found);
  require(tokenizer->vocabulary() <= source.config.vocabulary,
          "the tokenizer of '{}' has {} tokens, but the model's vocabulary (vocab_size of {}) is {}; name the right one with --tokenizer",
          found, tokenizer->vocabulary(), source.config_path, source.config.vocabulary);
  const HuggingFaceIds named_ids = ids_from_hugging_face(source.config_text, source.config_path);
  SpecialIds ids = tokenizer->special_ids();
  const auto complete = [&](std::optional<std::int32_t>& id, const std::optional<std::int64_t>& other) {
    if (!id && other && *other >= 0 && *other < tokenizer->vocabulary()) id = static_cast<std::int32_t>(*other);
  };
  if (!denies_bos(found)) complete(ids.bos, named_ids.bos);
  complete(ids.eos, named_ids.eos);
  return with_special_ids(std::move(tokenizer), ids);
}

/// A SentencePiece model does not hold the tokens that were added to it, and added_tokens.json beside it is not read.
void tell_of_added_tokens(const Tokenizer& tokenizer, const std::filesystem::path& found, std::int64_t rows) {
  const auto path = (std::filesystem::is_directory(found) ? found : found.parent_path()) / "added_tokens.json";
  if (!std::filesystem::is_regular_file(path)) return;
  const auto added = nlohmann::json::parse(read_file(path.string()), nullptr, false);
  std::vector<std::string> names;
  if (added.is_object())
    for (const auto& [name, id] : added.items())
      if (id.is_number_integer() && id >= tokenizer.vocabulary() && id < rows) names.push_back(name);
  if (!names.empty())
    fmt::print("{} is not read, so {} stay letters; save the tokenizer as tokenizer.json to have them\n", path.string(), join(names, ", "));
}

WeightFiles open_weights(const Source& source) {
  WeightFiles weights{SafetensorsReader(source.folder), hugging_face_tensors(source.config), {}};
  std::vector<std::pair<std::string, Shape>> found;
  for (const SafetensorsEntry& entry : weights.reader.tensors()) found.emplace_back(entry.name, entry.shape);
  for (const std::size_t place : match_hugging_face(weights.tensors, found, weights.reader.path()))
    weights.names.push_back(found[place].first);
  return weights;
}

/// A head that config.json ties to the embedding is the embedding, so a file that holds another one contradicts it.
void check_tied_head(const Source& source, const WeightFiles& weights) {
  const auto& entries = weights.reader.tensors();
  const auto head = std::ranges::find(entries, "lm_head.weight", &SafetensorsEntry::name);
  if (!source.config.tied || head == entries.end()) return;
  const auto embedding = std::ranges::find(weights.tensors, std::vector<std::string>{"embedding.weight"}, &HuggingFaceTensor::parts);
  const std::string& name = weights.names[static_cast<std::size_t>(embedding - weights.tensors.begin())];
  bool equal = head->shape == embedding->shape;
  constexpr std::int64_t slice = 1 << 22;
  std::vector<float> a, b;
  for (std::int64_t begin = 0; equal && begin < head->shape.count(); begin += slice) {
    a.resize(static_cast<std::size_t>(std::min(slice, head->shape.count() - begin)));
    b.resize(a.size());
    weights.reader.read(head->name, begin, std::ssize(a), a.data());
    weights.reader.read(name, begin, std::ssize(b), b.data());
    equal = std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }
  require(
      equal,
      "{} holds an lm_head.weight that differs from {}, but {} ties the two: set \"tie_word_embeddings\": false there to import this head, or "
      "take it out of the file",
      weights.reader.path(), name, source.config_path);
}

void read_weights(const WeightFiles& weights, ParameterStore& store) {
  std::vector<float> stored, ours;
  for (std::size_t i = 0; i < weights.tensors.size(); ++i) {
    const HuggingFaceTensor& tensor = weights.tensors[i];
    stored.resize(static_cast<std::size_t>(tensor.shape.count()));
    weights.reader.read(weights.names[i], 0, tensor.shape.count(), stored.data());
    const auto broken = std::find_if(stored.begin(), stored.end(), [](float x) { return !std::isfinite(x); });
    require(broken == stored.end(), "element {} of the tensor {} in '{}' is {}: the file is damaged, or its training went wrong",
            broken - stored.begin(), weights.names[i], weights.reader.path(), *broken);
    for (std::size_t part = 0; part < tensor.parts.size(); ++part) {
      ours.resize(static_cast<std::size_t>(tensor.part_shape().count()));
      unpack(tensor, static_cast<int>(part), stored, ours);
      store.write(Kind::value, tensor.parts[part], 0, ours);
    }
  }
}

}  // namespace

int import_command(const std::vector<std::string>& arguments) {
  std::string model, output, tokenizer_name = "auto";
  Template defaults;
  defaults.prompt = "{prompt}[[\n{input}]]";
  TemplateOptions text(defaults);
  OptionTable table;
  table.add("model", model, "the Hugging Face folder");
  table.add("output", output, "the checkpoint to write, a folder");
  table.add("tokenizer", tokenizer_name, "'auto': the one in the folder, if there is one; 'none'; or a tokenizer file or folder");
  text.declare(table);
  table.words_are_for("model");
  if (!read_command_line(table, usage, arguments)) return 0;
  require_option(table, "model");
  require_option(table, "output");
  require_checkpoint_place(output);
  if (std::filesystem::exists(output + "/manifest.json")) {  // only what import made can be made again
    const std::string stage = nlohmann::json::parse(CheckpointReader(output).meta()).value("stage", "");
    require(stage == "import", "'{}' holds what the stage {} has learned; name another folder, or remove it", output, stage);
  }

  const Source source = open_source(model);
  const auto tokenizer = tokenizer_of(source, tokenizer_name);
  rlhf::CheckpointNotes notes;
  notes.stage = "import";
  notes.complete = true;
  notes.build = to_json(build_info());
  notes.text.rules = text.rules();
  notes.text.settled = text.given(table);
  for (const auto& [name, add, id] : {std::tuple("bos", &notes.text.rules.add_bos, tokenizer ? tokenizer->bos() : std::nullopt),
                                      std::tuple("eos", &notes.text.rules.add_eos, tokenizer ? tokenizer->eos() : std::nullopt)}) {
    require(id || !*add || !table.given(std::string("add-") + name), "command line: --add-{} needs a tokenizer with such a token", name);
    *add = *add && id;
  }
  std::string letters;
  if (tokenizer) {
    letters = notes.text.rules.look_for_special(*tokenizer);
    notes.text.tokenizer = tokenizer->serialize();
  }
  const WeightFiles weights = open_weights(source);
  check_tied_head(source, weights);
  StoredModel stored(source.config, Head::policy, 1);
  read_weights(weights, stored.store());
  rlhf::ModelCard card;
  card.config = source.config;
  rlhf::save_models(output, {{.name = "policy", .card = card, .store = &stored.store()}}, notes, *make_single_communicator());
  fmt::print("{}: model 'policy' of {} parameters, {} tensors; {}\n", output, source.config.parameters(),
             stored.store().layout().parameters().size(),
             tokenizer ? fmt::format("tokenizer {} with {} tokens", tokenizer->kind(), tokenizer->vocabulary())
                       : "no tokenizer, so prompts are given as --prompt-ids");
  if (tokenizer && tokenizer->vocabulary() < source.config.vocabulary)
    fmt::print(
        "the model has {} rows for {} tokens, which is usual as padding that a trained model does not draw; if the {} more are tokens, name the "
        "model's own tokenizer with --tokenizer\n",
        source.config.vocabulary, tokenizer->vocabulary(), source.config.vocabulary - tokenizer->vocabulary());
  if (tokenizer)
    for (const std::string& note : tokenizer->notes()) fmt::print("{}\n", note);
  fmt::print("{}", letters);
  if (tokenizer && tokenizer->kind() == "sentencepiece")
    tell_of_added_tokens(*tokenizer, tokenizer_name == "auto" ? model : tokenizer_name, source.config.vocabulary);
  const HuggingFaceIds ids = ids_from_hugging_face(source.config_text, source.config_path);
  if (tokenizer && ids.eos && (ids.ends > 1 || ids.eos != tokenizer->eos()))
    fmt::print("{} ends a text with the token {}{}, and the tokenizer with {}: here a response ends with the tokenizer's\n", source.config_path, *ids.eos,
               ids.ends > 1 ? fmt::format(" and {} more", ids.ends - 1) : "", tokenizer->eos() ? std::to_string(*tokenizer->eos()) : "none");
  if (const double dropout = attention_dropout_from_hugging_face(source.config_text, source.config_path); dropout != 0)
    fmt::print(
        "{} asks for a dropout of {} on attention probabilities, which is not applied; in training {} is, on embedding and residual "
        "branches\n",
        source.config_path, dropout, source.config.dropout);
  return 0;
}

}  // namespace collimate
