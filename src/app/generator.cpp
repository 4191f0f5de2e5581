#include "app/generator.hpp"

#include "collimate/base/error.hpp"

namespace collimate {

Generator::Generator(const rlhf::SavedModels& saved, const std::string& model, const EngineUse& use)
    : engine(model, saved.card(model).config, Head::policy, Division{.shards = saved.card(model).shards}, use, workspace) {
  workspace.reserve();
  plan.commit();
  engine.prepare();
  saved.load(model, engine.store());
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
