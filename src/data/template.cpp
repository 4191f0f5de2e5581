#include "collimate/data/template.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/template_text.hpp"

namespace collimate {
namespace {

using nlohmann::json;

constexpr std::pair<std::string_view, TooLong> rule_names[] = {{"refuse", TooLong::refuse}, {"drop", TooLong::drop}, {"cut", TooLong::cut}};

/// What looks like a special token: <|...|> without blanks, <s>, </s>.
std::vector<std::string> special_looking(std::string_view words) {
  std::vector<std::string> found;
  for (std::size_t at = words.find('<'); at != std::string_view::npos; at = words.find('<', at + 1)) {
    const std::string_view rest = words.substr(at);
    const std::size_t end = rest.find(rest.starts_with("<|") ? "|>" : ">", 2);
    if (end == std::string_view::npos) continue;
    const std::string word(rest.substr(0, rest.find('>', end) + 1));
    const bool looks = rest.starts_with("<|") ? word.find_first_of(" \t\n<", 1) == std::string::npos : word == "<s>" || word == "</s>";
    if (looks && std::find(found.begin(), found.end(), word) == found.end()) found.push_back(word);
  }
  return found;
}

constexpr std::pair<std::string_view, ChatForm::System> place_names[] = {
    {"turn", ChatForm::System::turn},
    {"in_question", ChatForm::System::in_question},
    {"in_last_question", ChatForm::System::in_last_question},
    {"refused", ChatForm::System::refused}};

/// visit(key, value) for what is stored of a chat form as it is.
template <class Form, class Visit>
void each_value_of_chat(Form& chat, const Visit& visit) {
  visit("name", chat.name);
  visit("human_suffix", chat.human_suffix);
  visit("assistant_suffix", chat.assistant_suffix);
  visit("system_suffix", chat.system_suffix);
  visit("first_system", chat.first_system);
  visit("cue_keeps_blanks", chat.cue_keeps_blanks);
  visit("alternates", chat.alternates);
  visit("skips_empty_system", chat.skips_empty_system);
  visit("trims", chat.trims);
}

json as_json(const ChatForm& chat) {
  json out;
  each_value_of_chat(chat, [&](const char* key, const auto& value) { out[key] = value; });
  out["text_bos"] = chat.text_bos;
  out["text_eos"] = chat.text_eos;
  for (const auto& [word, value] : place_names)
    if (value == chat.system_place) out["system_place"] = word;
  if (chat.default_system) out["default_system"] = *chat.default_system;
  return out;
}

/// rules: the template's own entries. What older versions stored has one rule for dialogues and plain text.
ChatForm chat_from(const json& stored, const json& rules) {
  ChatForm chat;
  each_value_of_chat(chat, [&](const char* key, auto& value) { stored.at(key).get_to(value); });
  chat.text_bos = stored.value("text_bos", rules.at("add_bos").get<bool>());
  chat.text_eos = stored.value("text_eos", rules.at("add_eos").get<bool>());
  for (const auto& [word, place] : place_names)
    if (stored.at("system_place") == word) chat.system_place = place;
  if (stored.contains("default_system")) chat.default_system = stored["default_system"];
  return chat;
}

/// The same for a template; `optional`: where older versions did not store it.
template <class Rules, class Visit>
void each_value(Rules& rules, const Visit& visit) {
  constexpr bool optional = true;
  visit("prompt", rules.prompt, !optional);
  visit("response_prefix", rules.response_prefix, !optional);
  visit("response_suffix", rules.response_suffix, !optional);
  visit("human", rules.human, !optional);
  visit("assistant", rules.assistant, !optional);
  visit("system", rules.system, !optional);
  visit("turn_suffix", rules.turn_suffix, optional);
  visit("add_bos", rules.add_bos, !optional);
  visit("add_eos", rules.add_eos, !optional);
  visit("max_prompt_tokens", rules.max_prompt_tokens, !optional);
  visit("max_response_tokens", rules.max_response_tokens, !optional);
  visit("special_tokens", rules.special_tokens, optional);
}

json as_json(const Template& rules) {
  json out;
  each_value(rules, [&](const char* key, const auto& value, bool) { out[key] = value; });
  out["prompt_rule"] = name_of(rules.prompt_rule);
  out["response_rule"] = name_of(rules.response_rule);
  out["chat"] = as_json(rules.chat);
  return out;
}

}  // namespace

std::string_view name_of(TooLong rule) {
  for (const auto& [word, value] : rule_names)
    if (value == rule) return word;
  return "?";
}

TooLong too_long_named(std::string_view name) {
  for (const auto& [word, value] : rule_names)
    if (word == name) return value;
  fail("'{}' is no rule for what is too long; it is one of refuse, drop, cut", name);
}

void Template::check() const {
  bool asks = false;
  render(prompt, [&](std::string_view field) -> std::string {
    asks = asks || field != "input";
    require(field == "prompt" || field == "instruction" || field == "input",
            "the template '{}' names the field '{}'; it can name prompt (or instruction) and input", prompt, field);
    return "";
  });
  require(asks, "the template '{}' does not name {{prompt}}, so all prompts would be the same: put {{prompt}} where a record's prompt goes", prompt);
  require(max_prompt_tokens >= 0 && max_response_tokens >= 0,
          "max_prompt_tokens = {} and max_response_tokens = {} cannot be negative (0: no limit)", max_prompt_tokens, max_response_tokens);
}

std::string Template::to_json() const {
  json out = as_json(*this);
  if (turn_suffix.empty()) out.erase("turn_suffix");  // left out where they change nothing, as older versions did
  if (!special_tokens) out.erase("special_tokens");
  if (chat == ChatForm()) out.erase("chat");
  return out.dump();
}

std::string Template::describe(const std::string& indent) const {
  std::string out;
  const auto line = [&](const char* option, const std::string& value) { out += fmt::format("{}{:<20} {}\n", indent, option, value); };
  const auto words = [&](const char* option, const std::string& text) {
    if (!text.empty()) line(option, fmt::format("{:?}", text));
  };
  const auto limit = [&](const char* option, std::int64_t most, TooLong rule) {
    if (most > 0) line(option, fmt::format("{} ({})", most, name_of(rule)));
  };
  if (!chat.name.empty()) line("chat-template", chat.name);
  if (chat.default_system) words("default-system", *chat.default_system);
  words("prompt-template", prompt);
  words("system", system);
  words("human", human);
  words("assistant", assistant);
  words("turn-suffix", turn_suffix);
  words("response-prefix", response_prefix);
  words("response-suffix", response_suffix);
  line("BOS, EOS", fmt::format("{}added, {}added", add_bos ? "" : "not ", add_eos ? "" : "not "));
  limit("max-prompt-tokens", max_prompt_tokens, prompt_rule);
  limit("max-response-tokens", max_response_tokens, response_rule);
  return out;
}

Template Template::from_json(const std::string& text) {
  Template rules;
  try {
    const json value = json::parse(text);
    const json known = as_json(rules);
    for (const auto& [key, entry] : value.items()) require(known.contains(key), "a prompt template has no entry '{}'", key);
    each_value(rules, [&](const char* key, auto& member, bool optional) {
      if (!optional || value.contains(key)) value.at(key).get_to(member);
    });
    if (value.contains("chat")) rules.chat = chat_from(value["chat"], value);
    rules.prompt_rule = too_long_named(value.at("prompt_rule").get<std::string>());
    rules.response_rule = too_long_named(value.at("response_rule").get<std::string>());
  } catch (const json::exception&) {
    fail("the stored prompt template '{}' has an entry that is missing or not what it should be; prepare the dataset again", text);
  }
  rules.check();
  return rules;
}

std::string Template::difference(const Template& other) const {
  const json here = as_json(*this), there = as_json(other);
  if (chat.name != other.chat.name) {
    const auto form = [](const std::string& name) { return name.empty() ? "none" : "'" + name + "'"; };
    return fmt::format("the chat template is {} here and {} there", form(chat.name), form(other.chat.name));
  }
  if (special_tokens != other.special_tokens)
    return fmt::format("special tokens in the template are {} here and {} there", special_tokens ? "tokens" : "letters",
                       other.special_tokens ? "tokens" : "letters");
  for (const auto& [key, value] : here.items())
    if (value != there.at(key)) return fmt::format("{} is {} here and {} there", key, value.dump(), there.at(key).dump());
  return "";
}

std::string Template::look_for_special(const Tokenizer& tokenizer) {
  Example one, dialogue;
  one.prompt = one.input = " ";
  dialogue.turns = {{"human", " "}};
  if (chat.system_place != ChatForm::System::refused) dialogue.turns.insert(dialogue.turns.begin(), {"system", " "});
  const TemplateText texts[] = {prompt_text(one), prompt_text(dialogue), response_text(dialogue, " ")};
  for (std::int32_t id = 0; id < tokenizer.vocabulary() && !special_tokens; ++id)
    special_tokens = tokenizer.is_special(id) && std::any_of(std::begin(texts), std::end(texts), [&](const TemplateText& words) {
                       return words.text.find(tokenizer.piece(id)) != std::string::npos;
                     });
  std::vector<std::string> letters;
  for (const TemplateText& words : texts)
    for (const TextRange& own : words.own)
      for (const std::string& word : special_looking(std::string_view(words.text).substr(own.begin, own.end - own.begin)))
        if (!tokenizer.id_of(word) && std::find(letters.begin(), letters.end(), word) == letters.end()) letters.push_back(word);
  if (letters.empty()) return "";
  return fmt::format(
      "the template's {} stay letters, because the tokenizer has no such token: name tokens that it has, or take another one\n",
      join(letters, ", "));
}

TemplateEncoder::TemplateEncoder(const Template& rules, const Tokenizer& tokenizer) : rules_(rules), tokenizer_(&tokenizer) {
  rules_.check();
  require(!(rules_.add_bos || rules_.starts_with_bos(true)) || tokenizer.bos(),
          "the template adds a beginning-of-text token, but the tokenizer has none; set add_bos = false");
  require(!(rules_.add_eos || rules_.ends_with_eos(true)) || tokenizer.eos(),
          "the template adds an end-of-text token, but the tokenizer has none; set add_eos = false");
  const TemplateText words = rules_.response_text({}, "");
  const std::vector<std::int32_t> ids = tokenizer.encode(words.text, special_in(words));
  require(
      !tokenizer.eos() || ids.end() - std::find(ids.begin(), ids.end(), *tokenizer.eos()) <= 1,
      "the template's response_prefix or response_suffix goes on behind the end-of-text token {}, where a response ends: leave out what "
      "stands behind it",
      tokenizer.piece(tokenizer.eos().value_or(0)));
}

std::int64_t TemplateEncoder::count_unknown(std::span<const std::int32_t> tokens) const {
  return tokenizer_->unknown() ? std::count(tokens.begin(), tokens.end(), *tokenizer_->unknown()) : 0;
}

namespace {
/// Applies one limit; false if the record is to be dropped.
bool fit(std::vector<std::int32_t>& tokens, std::int64_t limit, std::int64_t keep_first, bool cut_left, TooLong rule, std::string_view what,
         std::string_view place, std::int64_t& cut, std::int64_t& dropped) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  if (limit == 0 || count <= limit) return true;
  require(
      rule != TooLong::refuse,
      "{}: the {} has {} tokens, more than the {} that the template's --max-{}-tokens allows; shorten it, raise the limit, or set "
      "--{}-rule to drop or cut where the template is made",
      place, what, count, limit, what, what);
  if (rule == TooLong::drop) {
    ++dropped;
    return false;
  }
  ++cut;
  if (cut_left) tokens.erase(tokens.begin() + std::min(keep_first, limit), tokens.begin() + count - limit + std::min(keep_first, limit));
  else tokens.resize(static_cast<std::size_t>(limit));
  return true;
}
}  // namespace

std::span<const TextRange> TemplateEncoder::special_in(const TemplateText& text) const {
  return rules_.special_tokens ? std::span<const TextRange>(text.own) : std::span<const TextRange>();
}

std::vector<std::int32_t> TemplateEncoder::prompt_tokens(const TemplateText& text, LengthCounts& counts) const {
  std::vector<std::int32_t> tokens = tokenizer_->encode(text.text, special_in(text));
  counts.unknown += count_unknown(tokens);
  if (!rules_.starts_with_bos(text.plain)) return tokens;
  const std::int32_t bos = *tokenizer_->bos();
  const bool had_bos = !tokens.empty() && tokens.front() == bos;
  counts.prompt_had_bos += had_bos;
  if (had_bos) return tokens;
  if (!text.plain && !rules_.chat.name.empty()) {  // a chat template writes its BOS itself: the text behind it does not begin there
    TemplateText whole;
    const std::string piece = tokenizer_->piece(bos);
    whole.add_own(piece).add(text);
    if (!rules_.special_tokens) whole.own.assign(1, {0, piece.size()});
    std::vector<std::int32_t> behind = tokenizer_->encode(whole.text, whole.own);
    if (!behind.empty() && behind.front() == bos) return behind;
  }
  tokens.insert(tokens.begin(), bos);
  return tokens;
}

std::vector<std::int32_t> TemplateEncoder::tokens_after(std::span<const std::int32_t> before, const TemplateText& text, LengthCounts& counts) const {
  std::vector<std::int32_t> tokens = tokenizer_->encode_after(before, text.text, special_in(text));
  counts.unknown += count_unknown(tokens);
  return tokens;
}

bool TemplateEncoder::fit_prompt(std::vector<std::int32_t>& tokens, bool with_bos, std::string_view place, LengthCounts& counts) const {
  return fit(tokens, rules_.max_prompt_tokens, with_bos, true, rules_.prompt_rule, "prompt", place, counts.cut_prompts, counts.dropped);
}

bool TemplateEncoder::prompt(const TemplateText& text, std::string_view place, std::vector<std::int32_t>& tokens,
                             LengthCounts& counts) const {
  tokens = prompt_tokens(text, counts);
  return fit_prompt(tokens, rules_.starts_with_bos(text.plain), place, counts);
}

bool TemplateEncoder::response(const TemplateText& text, std::span<const std::int32_t> prompt, std::string_view place,
                               std::vector<std::int32_t>& tokens, LengthCounts& counts) const {
  tokens = tokens_after(prompt, text, counts);
  const bool had_eos = !tokens.empty() && tokens.back() == tokenizer_->eos();
  if (rules_.ends_with_eos(text.plain) && !had_eos) tokens.push_back(*tokenizer_->eos());
  require(!tokens.empty(), "{}: the response is empty and the template adds no end-of-text token; take the record out", place);
  return fit(tokens, rules_.max_response_tokens, 0, false, rules_.response_rule, "response", place, counts.cut_responses, counts.dropped);
}

}  // namespace collimate
