#include "app/command_line.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/utf8.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;

constexpr const char* template_names[] = {"prompt-template", "response-prefix",   "response-suffix",     "human",   "assistant",
                                          "system",          "turn-suffix",       "add-bos",             "add-eos", "prompt-rule",
                                          "response-rule",   "max-prompt-tokens", "max-response-tokens"};

std::array<std::string*, 7> texts_of(Template& rules) {
  return {&rules.prompt, &rules.response_prefix, &rules.response_suffix, &rules.human, &rules.assistant, &rules.system, &rules.turn_suffix};
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') out += "\\n";
    else if (c == '\t') out += "\\t";
    else if (c == '\\') out += "\\\\";
    else out += c;
  }
  return out;
}

bool is_link(const fs::path& path) {
  std::error_code error;
  return fs::is_symlink(path.has_filename() ? path : path.parent_path(), error);
}

}  // namespace

bool show_help(const OptionTable& table, std::string_view usage, const std::vector<std::string>& arguments) {
  const auto asked = std::find_if(arguments.begin(), arguments.end(),
                                  [](const std::string& word) { return word == "--help" || word == "-h" || word.starts_with("--help="); });
  if (asked == arguments.end()) return false;
  std::string section = asked->starts_with("--help=") ? asked->substr(7) : "";
  if (asked + 1 != arguments.end() && asked->find('=') == std::string::npos && !asked[1].starts_with("-")) section = asked[1];
  const std::string text = section.empty() ? fmt::format("{}\n\nOptions\n{}", usage, table.help_text()) : table.help_text(section);
  std::fputs(text.c_str(), stdout);
  return true;
}

bool read_command_line(OptionTable& table, std::string_view usage, const std::vector<std::string>& arguments) {
  if (show_help(table, usage, arguments)) return false;
  table.read_arguments(arguments);
  return true;
}

std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    if (next != 'n' && next != 't' && next != '\\') {
      out += text[i];
      continue;
    }
    out += next == 'n' ? '\n' : next == 't' ? '\t' : '\\';
    ++i;
  }
  return out;
}

void print_text(std::string_view text) {
  const std::string shown = as_utf8(text);
  std::fwrite(shown.data(), 1, shown.size(), stdout);
}

void CapWords::declare(OptionTable& table) {
  table.add("memory.device", device, "most memory of the device; weights that it has no room for rest on the host (0: what there is)", at_least(0), "bytes");
  table.add("memory.host", host, "most memory of the host (0: what there is)", at_least(0), "bytes");
}

void require_option(const OptionTable& table, const std::string& name) {
  require(!table.value(name).empty(), "command line: --{} is missing; --help shows what it takes", name);
}

void require_one_checkpoint(const std::string& path) {
  std::error_code error;
  if (fs::exists(fs::path(path) / "manifest.json", error)) return;
  const fs::path inner = fs::path(path) / "checkpoints", folder = fs::is_directory(inner, error) ? inner : fs::path(path);
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (fs::exists(entry.path() / "manifest.json", error)) found.push_back(entry.path().string());
  std::sort(found.begin(), found.end());
  require(found.empty(), "'{}' is not a checkpoint, but a folder of checkpoints; name one of {}", path, join(found, ", "));
}

void require_checkpoint_place(const std::string& path) {
  std::error_code error;
  if (is_link(path) || !fs::exists(fs::path(path) / "manifest.json", error)) require_new_folder(path);
}

void require_new_folder(const std::string& path) {
  require(!is_link(path), "'{}' is a symbolic link; name another folder or remove it", path);
  std::error_code error;
  const bool there = fs::exists(path, error), empty = there && fs::is_directory(path, error) && fs::is_empty(path, error);
  require(!error, "cannot look at '{}': {}", path, error.message());
  require(!there || empty, "'{}' already exists; name another folder or remove it", path);
}

TemplateOptions::TemplateOptions(Template defaults)
    : rules_(std::move(defaults)), prompt_rule_(name_of(rules_.prompt_rule)), response_rule_(name_of(rules_.response_rule)) {
  for (std::string* text : texts_of(rules_)) *text = escaped(*text);
}

void TemplateOptions::declare(OptionTable& table) {
  const std::vector<std::string> rules = {"refuse", "drop", "cut"};
  table.add("prompt-template", rules_.prompt, "the prompt; {prompt} and {input} stand for fields, [[ ]] is left out with an empty field");
  table.add("response-prefix", rules_.response_prefix, "before every response, learned with it");
  table.add("response-suffix", rules_.response_suffix, "behind every response, learned with it");
  table.add("human", rules_.human, "before each of the user's turns of a dialogue");
  table.add("assistant", rules_.assistant, "before each of the assistant's turns");
  table.add("system", rules_.system, "before a system message");
  table.add("turn-suffix", rules_.turn_suffix, "behind each turn of a dialogue's prompt; behind its answer stands response-suffix");
  table.add("add-bos", rules_.add_bos, "a beginning-of-text token starts every sample, if the tokenizer has one");
  table.add("add-eos", rules_.add_eos, "an end-of-text token ends every response, if the tokenizer has one");
  table.add("max-prompt-tokens", rules_.max_prompt_tokens, "longest prompt; 0: no limit", at_least(0), "tokens");
  table.add("max-response-tokens", rules_.max_response_tokens, "longest response; 0: no limit", at_least(0), "tokens");
  table.add("prompt-rule", prompt_rule_, "what happens to longer prompts (cut: on the left)", one_of(rules));
  table.add("response-rule", response_rule_, "what happens to longer responses (cut: on the right)", one_of(rules));
}

Template TemplateOptions::rules() const {
  Template rules = rules_;
  for (std::string* text : texts_of(rules)) *text = unescaped(*text);
  rules.prompt_rule = too_long_named(prompt_rule_);
  rules.response_rule = too_long_named(response_rule_);
  rules.check();
  return rules;
}

bool TemplateOptions::turns_given(const OptionTable& table) const {
  constexpr const char* names[] = {"response-prefix", "response-suffix", "human", "assistant", "system", "turn-suffix"};
  return std::any_of(std::begin(names), std::end(names), [&](const char* name) { return table.given(name); });
}

bool TemplateOptions::given(const OptionTable& table) const {
  return std::any_of(std::begin(template_names), std::end(template_names), [&](const char* name) { return table.given(name); });
}

}  // namespace collimate
