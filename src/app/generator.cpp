#include "app/generator.hpp"

#include "collimate/base/error.hpp"
#include "collimate/kernels/head.hpp"

namespace collimate {

Generator::Made::Made(Device& device, const rlhf::ModelCard& card, const std::string& model, const EngineUse& use, double share_on_host)
    : plan(device), engine(model, card.config, Head::policy, Division{.shards = card.shards, .host = {.values = share_on_host}}, use, workspace) {
  workspace.reserve();
}

Generator::Generator(const rlhf::SavedModels& saved, const std::string& model, const EngineUse& use, const MemoryCaps& caps) {
  const rlhf::ModelCard card = saved.card(model);
  EngineUse how = use;
  if (card.config.stored == "bf16" && !card.adapters.lora.on()) how.values = DType::bf16;
  make(card, model, how, caps);
  saved.load(model, engine().store());
  if (engine().store().rounded() == 0) return;
  made_.reset();  // it was trained since it came from a bf16 file
  make(card, model, use, caps);
  saved.load(model, engine().store());
}

void Generator::make(const rlhf::ModelCard& card, const std::string& model, const EngineUse& use, const MemoryCaps& caps) {
  for (int eighths = 0; !made_; ++eighths) {
    auto made = std::make_unique<Made>(*device_, card, model, use, eighths / 8.0);
    try {
      made->plan.check_caps(caps);
    } catch (const Error&) {
      if (!caps.device || eighths == 8) throw;
      continue;
    }
    made_ = std::move(made);
  }
  made_->plan.commit(caps);
  engine().prepare();
}

void declare_model(OptionTable& table, GenerateWords& words) {
  table.add("checkpoint", words.checkpoint, "the checkpoint, a folder");
  table.add("base", words.base, "the base of a checkpoint with adapters, where it is not where the checkpoint says; empty: it is");
  table.add("model", words.model, "which of its models; empty: its language model");
  words.memory.declare(table);
}

void declare_drawing(OptionTable& table, GenerateWords& words) {
  table.add("temperature", words.temperature, "divides the logits; 0: always the most probable token",
            zero_or_between(kernels::lowest_temperature, kernels::highest_temperature));
  table.add("top-k", words.top_k, "draws from the k most probable tokens; 0: from all", at_least(0));
  table.add("top-p", words.top_p, "draws from the fewest tokens whose probabilities reach p", Range{.low = 0, .high = 1, .low_included = false});
  table.add("seed", words.seed, "of the random numbers", at_least(0));
}

rlhf::ModelCard generating_model(const rlhf::SavedModels& saved, std::string& name) {
  if (name.empty()) name = rlhf::main_model_of(saved, Head::policy);
  const rlhf::ModelCard card = saved.card(name);
  require(card.head == Head::policy, "the model '{}' of '{}' has a value head and generates nothing", name, saved.reader().folder());
  return card;
}

void require_chat_template(const Template& rules, const std::string& checkpoint, const std::string& what) {
  require(!rules.chat.name.empty(),
          "{} needs a chat template, and the checkpoint '{}' has none: import its model again with --chat-template (a name of those that "
          "`collimate import --help` lists, or custom with the words of --human, --assistant ...), or use `collimate generate --raw`",
          what, checkpoint);
}

}  // namespace collimate
