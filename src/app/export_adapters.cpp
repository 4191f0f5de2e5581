#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/peft.hpp"
#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/io/safetensors.hpp"
#include "collimate/model/hugging_face.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// One of the two factors of a module's adapter. Of a fused matrix (c_attn) only some parts may have adapters, each with an A of its own: A
/// is then all of them, one below the other, and B has blocks.
struct Factor {
  SafetensorsSpec spec;
  bool is_a;
  std::vector<std::string> parts;  ///< matrices with adapters: "block.0.query"
  std::vector<std::int64_t> rows;  ///< of B: where each part begins
};

struct Module {
  std::string name;  ///< "model.layers.0.self_attn.q_proj"
  std::vector<Factor> factors;
  std::int64_t rank;
};

class Adapters {
 public:
  Adapters(const rlhf::SavedModels& saved, const std::string& model) : saved_(saved), model_(model), card_(saved.card(model)) {
    for (const HuggingFaceTensor& tensor : hugging_face_tensors(card_.config))
      if (tensor.shape.rank() == 2 && tensor.parts[0].starts_with("block.")) add(tensor);
  }
  const std::vector<Module>& modules() const { return modules_; }
  const rlhf::ModelCard& card() const { return card_; }

  void fill(const Factor& factor, std::span<float> values) const {
    const std::int64_t rank = card_.adapters.lora.rank, columns = factor.spec.shape[1];
    for (std::size_t p = 0; p < factor.parts.size(); ++p) {
      const std::string name = model_ + "/value/" + factor.parts[p] + (factor.is_a ? ".lora_a" : ".lora_b");
      std::vector<float> ours(static_cast<std::size_t>(saved_.reader().find(name).shape.count()));
      saved_.reader().read(name, 0, std::ssize(ours), ours.data());
      if (factor.is_a) {
        std::ranges::copy(ours, values.begin() + static_cast<std::int64_t>(p) * rank * columns);
        continue;
      }
      for (std::int64_t row = 0; row < std::ssize(ours) / rank; ++row)
        std::copy_n(ours.begin() + row * rank, rank,
                    values.begin() + (factor.rows[p] + row) * columns + static_cast<std::int64_t>(p) * rank);
    }
  }

  /// The head with the gain of the normalisation in it.
  void fill_score(std::span<float> values) const {
    saved_.reader().read(model_ + "/value/value_head.weight", 0, std::ssize(values), values.data());
    for (float& value : values) value = static_cast<float>(card_.normalisation.gain * value);
  }

 private:
  void add(const HuggingFaceTensor& tensor) {
    std::vector<std::string> parts;
    std::vector<std::int64_t> rows;
    for (std::size_t p = 0; p < tensor.parts.size(); ++p) {
      const std::string matrix = tensor.parts[p].substr(0, tensor.parts[p].rfind('.'));
      if (!card_.adapters.lora.has(matrix.substr(matrix.rfind('.') + 1))) continue;
      parts.push_back(matrix);
      rows.push_back(static_cast<std::int64_t>(p) * tensor.part_shape()[0]);
    }
    if (parts.empty()) return;
    const std::int64_t rank = card_.adapters.lora.rank * std::ssize(parts), in = tensor.part_shape()[1];
    const std::string name = tensor.name.substr(0, tensor.name.rfind('.')), theirs = "base_model.model." + name;
    modules_.push_back({name,
                        {{{theirs + ".lora_A.weight", {rank, in}}, true, parts, rows},
                         {{theirs + ".lora_B.weight", {tensor.shape.count() / in, rank}}, false, parts, rows}},
                        rank});
  }
  const rlhf::SavedModels& saved_;
  std::string model_;
  rlhf::ModelCard card_;
  std::vector<Module> modules_;
};

/// The end of a module's name that names it in every block: "q_proj"; "attn.c_proj" beside "mlp.c_proj".
std::string target_of(const std::string& module) {
  const std::size_t last = module.rfind('.');
  const std::string name = module.substr(last + 1);
  return name == "c_proj" ? module.substr(module.rfind('.', last - 1) + 1) : name;
}

Json whole(double number) {
  return number == static_cast<double>(static_cast<std::int64_t>(number)) ? Json(static_cast<std::int64_t>(number)) : Json(number);
}

Json config_of(const Adapters& adapters) {
  const rlhf::ModelCard& card = adapters.card();
  const LoraConfig& lora = card.adapters.lora;
  Json targets = Json::array(), ranks = Json::object(), alphas = Json::object();
  for (const Module& module : adapters.modules()) {
    const std::string target = target_of(module.name);
    if (std::ranges::find(targets, Json(target)) == targets.end()) targets.push_back(target);
    if (module.rank == lora.rank) continue;
    ranks[target] = module.rank;  // the same scale at a multiple of the rank
    alphas[target] = whole(lora.alpha * static_cast<double>(module.rank) / static_cast<double>(lora.rank));
  }
  Json config{{"peft_type", "LORA"},
              {"task_type", card.head == Head::policy ? "CAUSAL_LM" : "SEQ_CLS"},
              {"base_model_name_or_path", nullptr},
              {"r", lora.rank},
              {"lora_alpha", whole(lora.alpha)},
              {"lora_dropout", lora.dropout},
              {"target_modules", targets},
              {"rank_pattern", ranks},
              {"alpha_pattern", alphas},
              {"bias", "none"},
              {"fan_in_fan_out", card.config.family == "gpt2"},
              {"use_rslora", false},
              {"use_dora", false},
              {"inference_mode", true}};
  config["modules_to_save"] = card.head == Head::policy ? Json() : Json{"score"};
  return config;
}

}  // namespace

std::size_t write_peft(const std::string& folder, const rlhf::SavedModels& saved, const std::string& model) {
  const Adapters adapters(saved, model);
  std::vector<SafetensorsSpec> specs;
  std::vector<const Factor*> factors;
  for (const Module& module : adapters.modules())
    for (const Factor& factor : module.factors) {
      specs.push_back(factor.spec);
      factors.push_back(&factor);
    }
  if (adapters.card().head == Head::value) specs.push_back({"base_model.model.score.weight", {1, adapters.card().config.width}});
  write_safetensors((fs::path(folder) / "adapter_model.safetensors").string(), specs, [&](std::size_t i, std::span<float> values) {
    if (i < factors.size())
      adapters.fill(*factors[i], values);
    else
      adapters.fill_score(values);
  });
  write_file((fs::path(folder) / "adapter_config.json").string(), config_of(adapters).dump(2) + "\n");
  return specs.size();
}

}  // namespace collimate
