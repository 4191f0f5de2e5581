#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "app/adapter_model.hpp"
#include "app/peft.hpp"
#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/io/safetensors.hpp"
#include "collimate/model/hugging_face.hpp"
#include "collimate/rlhf/weights.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// One adapted module of the file: names of its two factors, and what it multiplies.
struct Module {
  std::string name;  ///< as in the file, without prefix: "layers.0.self_attn.q_proj"
  std::string a, b;  ///< names of the tensors
  const HuggingFaceTensor* tensor = nullptr;
  std::int64_t rank = 0;
  double scale = 0;
};

struct PeftFile {
  std::string config_path;
  Json config;
  SafetensorsReader reader;
  std::vector<HuggingFaceTensor> tensors;  ///< of the base
  std::vector<Module> modules;
  std::string value_head;  ///< name of its weight; empty: there is none
};

Json read_config(const std::string& path) {
  const Json json = Json::parse(read_file(path), nullptr, false);
  require(json.is_object(), "{} is not a JSON object, so it is not the adapter_config.json of PEFT", path);
  const std::string type = json.contains("peft_type") && json["peft_type"].is_string() ? json["peft_type"].get<std::string>() : "missing";
  require(type == "LORA", "{}: \"peft_type\" is {}, and only LORA is supported: merge the adapters into their base with PEFT", path, type);
  for (const char* key : {"use_dora", "lora_bias", "trainable_token_indices", "layer_replication", "target_parameters", "use_bdlora",
                          "arrow_config", "kasa_config", "alora_invocation_tokens", "use_qalora", "velora_config", "monteclora_config"}) {
    const Json value = json.value(key, Json());
    require(value.is_null() || value == false || (value.is_structured() && value.empty()),
            "{}: \"{}\" is {}, which adapters here cannot do: merge them into their base with PEFT", path, key, value.dump());
  }
  require(json.value("bias", Json("none")) == "none",
          "{}: \"bias\" is {}, and biases do not learn here beside adapters: merge them with PEFT", path, json["bias"].dump());
  const Json start = json.value("init_lora_weights", Json(true));
  require(!start.is_string() || start == "gaussian" || start == "eva" || start == "orthogonal",
          "{}: \"init_lora_weights\" is {}, which changes the base: save the adapters converted to the plain base, or merge them with PEFT",
          path, start.dump());
  return json;
}

std::string without(const std::string& name, std::initializer_list<const char*> prefixes) {
  for (const char* prefix : prefixes)
    if (name.starts_with(prefix)) return name.substr(std::string_view(prefix).size());
  return name;
}

std::string plain(const std::string& name) { return without(without(name, {"base_model.model."}), {"model.", "transformer."}); }

/// alpha_pattern's entry for a module, whose keys are ends of names.
double alpha_of(const PeftFile& file, const std::string& module) {
  const Json pattern = file.config.value("alpha_pattern", Json::object());
  for (const auto& [key, value] : pattern.items()) {
    require(key.find_first_of("*?+()[]|^$\\") == std::string::npos && value.is_number(),
            "{}: \"alpha_pattern\" has the key {}, which is not the end of a module's name", file.config_path, key);
    if (module == key || module.ends_with("." + key)) return value.get<double>();
  }
  const Json alpha = file.config.value("lora_alpha", Json(8));
  require(alpha.is_number(), "{}: \"lora_alpha\" is {}, not a number", file.config_path, alpha.dump());
  return alpha.get<double>();
}

void find_modules(PeftFile& file) {
  std::map<std::string, Module> modules;
  for (const SafetensorsEntry& entry : file.reader.tensors()) {
    const std::string name = plain(entry.name);
    const std::size_t a = name.find(".lora_A."), b = name.find(".lora_B.");
    if (a != std::string::npos || b != std::string::npos) {
      Module& module = modules[name.substr(0, std::min(a, b))];
      std::string& factor = a != std::string::npos ? module.a : module.b;
      require(factor.empty(), "{} holds both {} and {}: of several adapters save one", file.reader.path(), factor, entry.name);
      factor = entry.name;
      continue;
    }
    require(name == "score.weight" || name == "score.modules_to_save.weight" || name == "modules_to_save.score.weight",
            "{} holds the tensor {}, which is neither a factor of LoRA nor a reward model's score: it cannot be imported; merge the "
            "adapters into "
            "their base with PEFT",
            file.reader.path(), entry.name);
    file.value_head = entry.name;
  }
  for (auto& [name, module] : modules) {
    module.name = name;
    const auto tensor =
        std::ranges::find_if(file.tensors, [&](const HuggingFaceTensor& each) { return plain(each.name) == name + ".weight"; });
    require(tensor != file.tensors.end() && tensor->parts[0].starts_with("block."),
            "{} has an adapter of {}, which is not a matrix of the base's blocks: merge it into its base with PEFT", file.reader.path(), name);
    require(!module.a.empty() && !module.b.empty(), "{} has only one of the two factors of {}: is it complete?", file.reader.path(), name);
    module.tensor = &*tensor;
    file.modules.push_back(module);
  }
  require(!file.modules.empty(), "{} holds no adapters", file.reader.path());
}

const SafetensorsEntry& entry_of(const PeftFile& file, const std::string& name) {
  return *std::ranges::find(file.reader.tensors(), name, &SafetensorsEntry::name);
}

/// Ranks and scales; one rank and one scale for all is what adapters here have, so the largest rank and the first module's scale.
LoraConfig lora_of(PeftFile& file) {
  LoraConfig lora;
  std::set<std::string> targets;
  for (Module& module : file.modules) {
    const Shape a = entry_of(file, module.a).shape, b = entry_of(file, module.b).shape, w = module.tensor->shape;
    const std::int64_t in = module.tensor->transposed ? w[0] : w[1], out = module.tensor->transposed ? w[1] : w[0];
    require(a.rank() == 2 && a[1] == in && b == Shape{out, a[0]},
            "{}: the adapter of {} has the shapes {} and {}, and its matrix is {} x {}", file.reader.path(), module.name, a.text(),
            b.text(), out, in);
    module.rank = a[0];
    const double root =
        file.config.value("use_rslora", false) ? std::sqrt(static_cast<double>(module.rank)) : static_cast<double>(module.rank);
    module.scale = alpha_of(file, module.name) / root;
    lora.rank = std::max(lora.rank, module.rank);
    for (const std::string& part : module.tensor->parts) {
      const std::string matrix = part.substr(0, part.rfind('.'));
      targets.insert(matrix.substr(matrix.rfind('.') + 1));
    }
  }
  lora.alpha = file.modules[0].scale * static_cast<double>(lora.rank);
  lora.dropout = file.config.value("lora_dropout", 0.0);
  lora.targets.clear();
  for (const std::string& target : adapter_targets())
    if (targets.contains(target)) lora.targets.push_back(target);
  return lora;
}

std::vector<float> numbers_of(const PeftFile& file, const std::string& name) {
  std::vector<float> numbers(static_cast<std::size_t>(entry_of(file, name).shape.count()));
  file.reader.read(name, 0, std::ssize(numbers), numbers.data());
  for (const float x : numbers)
    require(std::isfinite(x), "the tensor {} in '{}' holds {}: the file is damaged, or its training went wrong", name, file.reader.path(),
            x);
  return numbers;
}

/// A's first rows and B's first columns; more of them are what a fresh adapter has. Parts of a fused matrix share A and divide B.
void fill(const PeftFile& file, const Module& module, double scale, ParameterStore& store) {
  const std::vector<float> a = numbers_of(file, module.a), b = numbers_of(file, module.b);
  const std::int64_t rows = module.tensor->part_shape()[0], rank = module.rank;
  for (std::size_t part = 0; part < module.tensor->parts.size(); ++part) {
    const std::string& weight = module.tensor->parts[part];
    const std::string matrix = weight.substr(0, weight.rfind('.'));
    store.write(Kind::value, matrix + ".lora_a", 0, a);
    const std::int64_t all = store.layout().parameter(matrix + ".lora_b").shape[1];
    std::vector<float> ours(static_cast<std::size_t>(rows * all));
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t k = 0; k < rank; ++k)
        ours[row * all + k] = static_cast<float>(b[(static_cast<std::int64_t>(part) * rows + row) * rank + k] * (module.scale / scale));
    store.write(Kind::value, matrix + ".lora_b", 0, ours);
  }
}

}  // namespace

PeftAdapters::PeftAdapters() = default;
PeftAdapters::PeftAdapters(PeftAdapters&&) noexcept = default;
PeftAdapters::~PeftAdapters() = default;
const ParameterStore& PeftAdapters::store() const { return model->adapters(); }

bool is_peft_folder(const std::string& folder) {
  return fs::is_regular_file(fs::path(folder) / "adapter_config.json") && !fs::exists(fs::path(folder) / "config.json");
}

PeftAdapters read_peft(const std::string& folder, const std::string& base, const std::string& output) {
  const std::string config_path = (fs::path(folder) / "adapter_config.json").string();
  const Json config = read_config(config_path);
  const Json named = config.value("base_model_name_or_path", Json());
  require(!base.empty(), "'{}' holds adapters of PEFT: import their base{} first, and name that checkpoint with --base", folder,
          named.is_string() ? fmt::format(" ({})", named.get<std::string>()) : "");
  const rlhf::SavedModels saved(base);
  const std::string base_model = rlhf::main_model_of(saved, Head::policy);
  const rlhf::ModelCard base_card = saved.card(base_model);
  require(!base_card.adapters.lora.on(), "--base '{}' holds adapters itself: export it, which merges them, and import that", base);
  const fs::path weights = fs::path(folder) / "adapter_model.safetensors";
  require(
      fs::is_regular_file(weights), "'{}' holds no adapter_model.safetensors{}", folder,
      fs::exists(fs::path(folder) / "adapter_model.bin") ? ", but adapter_model.bin: load and save the adapters with a current PEFT" : "");
  PeftFile file{config_path, config, SafetensorsReader(weights.string()), hugging_face_tensors(base_card.config), {}, ""};
  find_modules(file);
  const LoraConfig lora = lora_of(file);
  PeftAdapters adapters;
  adapters.card.config = base_card.config;
  adapters.card.head = file.value_head.empty() ? Head::policy : Head::value;
  adapters.card.shards = base_card.shards;
  adapters.text = saved.text_rules();
  adapters.model = std::make_unique<AdapterModel>(base_card.config, adapters.card.head, base_card.shards, lora);
  saved.load(base_model, adapters.model->base());
  ParameterStore& store = adapters.model->adapters();
  store.initialise(0);
  for (const Module& module : file.modules) fill(file, module, file.modules[0].scale, store);
  if (!file.value_head.empty()) {
    const Shape shape = entry_of(file, file.value_head).shape;
    require(shape == (Shape{1, base_card.config.width}), "{}: the tensor {} has the shape {}; a reward model's score has the shape [1, {}]",
            file.reader.path(), file.value_head, shape.text(), base_card.config.width);
    store.write(Kind::value, "value_head.weight", 0, numbers_of(file, file.value_head));
    store.write(Kind::value, "value_head.bias", 0, std::vector<float>{0});
  }
  const fs::path here = fs::absolute(output).lexically_normal(), there = fs::absolute(base).lexically_normal();
  const bool beside = (here / "").parent_path().parent_path() == (there / "").parent_path().parent_path();
  adapters.card.adapters = {lora, (beside ? there.lexically_relative(here) : there).string(), base_model, 0,
                            rlhf::base_hash(adapters.model->base())};
  return adapters;
}

}  // namespace collimate
