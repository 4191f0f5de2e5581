#include "app/chat_rules.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/chat_templates.hpp"

namespace collimate {
namespace {

constexpr const char* by_hand_words =
    "--chat-template custom --human '<|im_start|>user\\n' --assistant '<|im_start|>assistant\\n' --system '<|im_start|>system\\n' "
    "--turn-suffix '<|im_end|>\\n' --response-suffix '<|im_end|>'";

/// What a text does that the rules fix: the day's date.
bool writes_date(const std::string& jinja) { return jinja.find("strftime_now") != std::string::npos; }
constexpr const char* fixed_date = "{%- set date_string = \"26 Jul 2024\" %}";

/// The options that go with any chat template: how long texts may be, and what was said of BOS and EOS.
Template with_limits(Template rules, const Template& options, const OptionTable& table) {
  rules.max_prompt_tokens = options.max_prompt_tokens;
  rules.max_response_tokens = options.max_response_tokens;
  rules.prompt_rule = options.prompt_rule;
  rules.response_rule = options.response_rule;
  if (table.given("add-bos")) rules.add_bos = options.add_bos;
  if (table.given("add-eos")) rules.add_eos = options.add_eos;
  if (table.given("prompt-template")) rules.prompt = options.prompt;
  return rules;
}

}  // namespace

void ChatOptions::declare(OptionTable& table) {
  table.add("chat-template", name_,
            "auto: the folder's, if it is known; none; custom: the words of --human, --assistant ...; or one of " +
                join(chat_template_names(), ", "));
  table.add("default-system", default_system_, "the system message of dialogues without one; not given: the chat template's own, if it has one");
}

Template ChatOptions::named(const std::string& name, const TemplateOptions& words, const OptionTable& table, const Tokenizer* tokenizer) const {
  require(tokenizer != nullptr, "command line: --chat-template={} needs a tokenizer, and the folder has none", name);
  require(!words.turns_given(table), "command line: --chat-template={} has its own words; leave out --human, --assistant and the like", name);
  KnownChatTemplate known{name, std::nullopt};
  if (table.given("default-system")) known.default_system = unescaped(default_system_);
  return with_limits(chat_template_rules(known, *tokenizer), words.rules(), table);
}

Template ChatOptions::by_hand(Template rules, const OptionTable& table, const std::string* jinja, const Tokenizer* tokenizer) const {
  require(tokenizer != nullptr, "command line: --chat-template=custom needs a tokenizer, and the folder has none");
  require(table.given("human") && table.given("assistant"),
          "command line: --chat-template=custom needs --human and --assistant, the words in front of their turns");
  rules.chat.name = "custom";
  rules.chat.cue_keeps_blanks = true;
  if (table.given("default-system")) rules.chat.default_system = unescaped(default_system_);
  rules.look_for_special(*tokenizer);
  if (!table.given("add-bos") && jinja != nullptr) rules.add_bos = tokenizer->bos() && jinja->find("bos_token") != std::string::npos;
  if (!table.given("add-eos")) rules.add_eos = tokenizer->eos() && !end_of_answer(rules, *tokenizer);
  return rules;
}

std::string ChatOptions::choose(rlhf::TextRules& text, const TemplateOptions& words, const OptionTable& table, const ModelFiles& files,
                                const Tokenizer* tokenizer) const {
  const std::string* jinja = files.chat_template();
  if (jinja != nullptr) text.chat_template = *jinja;
  text.rules = words.rules();
  text.settled = words.given(table) || name_ != "auto";
  if (name_ == "custom") {
    text.rules = by_hand(text.rules, table, jinja, tokenizer);
    return "chat template: the words of the command line\n";
  }
  if (name_ != "auto" && name_ != "none") {
    text.rules = named(name_, words, table, tokenizer);
    return fmt::format("chat template: {}\n", name_);
  }
  const bool other_words = words.turns_given(table) || table.given("prompt-template");
  if (jinja == nullptr || name_ == "none" || other_words) {
    require(!table.given("default-system"), "command line: --default-system goes into a chat template, and there is none; name one with --chat-template");
    return jinja == nullptr ? "" : fmt::format("the chat template of '{}' is kept and exported again, but not used: {}\n", files.folder,
                                               name_ == "none" ? "--chat-template=none" : "the command line gives other words");
  }
  const auto known = tokenizer == nullptr ? std::nullopt : recognise_chat_template(*jinja);
  if (!known)
    return fmt::format(
        "the chat template of '{}' is not known: it is kept and exported again, but prompts are made without it. To have it, import again with one "
        "of the names that --help lists for --chat-template, or with its words, for example {}, and --default-system where it has one\n",
        files.folder, by_hand_words);
  KnownChatTemplate chosen = *known;
  if (table.given("default-system")) chosen.default_system = unescaped(default_system_);
  text.rules = with_limits(chat_template_rules(chosen, *tokenizer), words.rules(), table);
  text.settled = true;
  std::string line = fmt::format("chat template: {}", chosen.name);
  if (text.rules.chat.default_system && !text.rules.chat.default_system->empty())
    line += fmt::format(", with the system message {:?} where a dialogue has none", *text.rules.chat.default_system);
  if (writes_date(*jinja)) line += "; its text writes the day's date, here it is always 26 Jul 2024, and in what is exported too";
  return line + "\n";
}

std::string add_end_of_answer(rlhf::TextRules& text, const Tokenizer* tokenizer) {
  if (tokenizer == nullptr || text.rules.chat.name.empty()) return "";
  const auto end = end_of_answer(text.rules, *tokenizer);
  const std::vector<std::int32_t> stops = text.stops(tokenizer);
  if (!end || std::find(stops.begin(), stops.end(), *end) != stops.end()) return "";
  text.ends.push_back(*end);
  return fmt::format("{} ends a response too, because the chat template ends an answer with it\n", tokenizer->piece(*end));
}

void write_chat_template(const std::string& folder, const rlhf::TextRules& text) {
  if (text.chat_template.empty()) return;
  const std::string path = (std::filesystem::path(folder) / "tokenizer_config.json").string();
  auto config = std::filesystem::exists(path) ? nlohmann::ordered_json::parse(read_file(path)) : nlohmann::ordered_json::object();
  const bool dated = writes_date(text.chat_template) && !text.rules.chat.name.empty() && !text.chat_template.starts_with(fixed_date);
  config["chat_template"] = (dated ? fixed_date : "") + text.chat_template;
  write_file(path, config.dump(2) + "\n");
}

std::string tell_of_template(const rlhf::TextRules& text) {
  if (!text.has_tokenizer()) return "";
  const std::string& name = text.rules.chat.name;
  const auto known = recognise_chat_template(text.chat_template);
  if (known && known->name == name)
    return fmt::format("its chat template, {}, is written with it: other programs render dialogues as they were learned from\n", name);
  const std::string folder = text.chat_template.empty() ? "the folder has no chat template" : "the chat template in the folder is the imported one";
  if (!name.empty())
    return fmt::format("its dialogues were made with the chat template '{}', which was chosen by hand, and {}: who uses it must render them as {}\n",
                       name, folder, text.rules.to_json());
  Example example;
  example.prompt = "x";
  if (text.rules.prompt_text(example).text == example.prompt) return "";
  return fmt::format("note: format prompts with the template {:?}; it cannot be stored in this folder{}\n",
                     text.rules.prompt, text.chat_template.empty() ? "" : " (its chat template is the imported one)");
}

}  // namespace collimate
