#include "collimate/data/template.hpp"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"

namespace collimate {
namespace {

using nlohmann::json;
using Lookup = std::function<std::string(std::string_view field)>;

constexpr std::pair<std::string_view, TooLong> rule_names[] = {{"refuse", TooLong::refuse}, {"drop", TooLong::drop}, {"cut", TooLong::cut}};

/// Renders a template text. `{{` and `}}` are braces; a part in [[ ]] vanishes with an empty field in it.
std::string render(std::string_view text, const Lookup& lookup) {
  std::string out;
  std::size_t part_start = std::string::npos;
  bool part_empty = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = text.substr(i);
    if (rest.starts_with("{{") || rest.starts_with("}}")) {
      out += text[i++];
    } else if (rest.starts_with("[[")) {
      require(part_start == std::string::npos, "the template '{}' opens [[ inside [[", text);
      part_start = out.size();
      part_empty = false;
      ++i;
    } else if (rest.starts_with("]]") && part_start != std::string::npos) {
      if (part_empty) out.resize(part_start);
      part_start = std::string::npos;
      ++i;
    } else if (text[i] == '{') {
      const std::size_t end = text.find('}', i);
      require(end != std::string_view::npos, "the template '{}' opens a {{ that it does not close; write {{{{ for a brace", text);
      const std::string value = lookup(text.substr(i + 1, end - i - 1));
      part_empty = part_empty || value.empty();
      out += value;
      i = end;
    } else {
      out += text[i];
    }
  }
  require(part_start == std::string::npos, "the template '{}' opens a [[ that it does not close", text);
  return out;
}

std::string_view trailing_blanks(std::string_view text) {
  const std::size_t last = text.find_last_not_of(" \t\n");
  return last == std::string_view::npos ? text : text.substr(last + 1);
}

json as_json(const Template& rules) {
  return {{"prompt", rules.prompt},
          {"response_prefix", rules.response_prefix},
          {"response_suffix", rules.response_suffix},
          {"human", rules.human},
          {"assistant", rules.assistant},
          {"system", rules.system},
          {"add_bos", rules.add_bos},
          {"add_eos", rules.add_eos},
          {"max_prompt_tokens", rules.max_prompt_tokens},
          {"max_response_tokens", rules.max_response_tokens},
          {"prompt_rule", name_of(rules.prompt_rule)},
          {"response_rule", name_of(rules.response_rule)}};
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

std::string Template::to_json() const { return as_json(*this).dump(); }

Template Template::from_json(const std::string& text) {
  Template rules;
  try {
    const json value = json::parse(text);
    const json known = as_json(rules);
    for (const auto& [key, entry] : value.items()) require(known.contains(key), "a prompt template has no entry '{}'", key);
    rules.prompt = value.at("prompt");
    rules.response_prefix = value.at("response_prefix");
    rules.response_suffix = value.at("response_suffix");
    rules.human = value.at("human");
    rules.assistant = value.at("assistant");
    rules.system = value.at("system");
    rules.add_bos = value.at("add_bos");
    rules.add_eos = value.at("add_eos");
    rules.max_prompt_tokens = value.at("max_prompt_tokens");
    rules.max_response_tokens = value.at("max_response_tokens");
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
  for (const auto& [key, value] : here.items())
    if (value != there.at(key)) return fmt::format("{} is {} here and {} there", key, value.dump(), there.at(key).dump());
  return "";
}

std::string Template::prompt_text(const Example& example) const {
  if (example.is_text) return "";
  if (example.complete) return example.prompt;
  if (example.turns.empty())
    return render(prompt, [&](std::string_view field) { return field == "input" ? example.input : example.prompt; });
  std::string text;
  for (const Turn& turn : example.turns) text += (turn.role == "human" ? human : turn.role == "system" ? system : assistant) + turn.text;
  return text + assistant.substr(0, assistant.size() - trailing_blanks(assistant).size());
}

std::string Template::response_text(const Example& example, std::string_view answer) const {
  if (example.is_text) return std::string(answer);
  std::string text(example.turns.empty() ? std::string_view() : trailing_blanks(assistant));
  return text.append(response_prefix).append(answer).append(response_suffix);
}

LengthCounts& LengthCounts::operator+=(const LengthCounts& other) {
  dropped += other.dropped;
  cut_prompts += other.cut_prompts;
  cut_responses += other.cut_responses;
  prompt_had_bos += other.prompt_had_bos;
  unknown += other.unknown;
  return *this;
}

TemplateEncoder::TemplateEncoder(const Template& rules, const Tokenizer& tokenizer) : rules_(rules), tokenizer_(&tokenizer) {
  rules_.check();
  require(!rules_.add_bos || tokenizer.bos(),
          "the template adds a beginning-of-text token, but the tokenizer has none; set add_bos = false");
  require(!rules_.add_eos || tokenizer.eos(), "the template adds an end-of-text token, but the tokenizer has none; set add_eos = false");
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

bool TemplateEncoder::prompt(std::string_view text, std::string_view place, std::vector<std::int32_t>& tokens, LengthCounts& counts) const {
  tokens = tokenizer_->encode(text);
  counts.unknown += count_unknown(tokens);
  if (rules_.add_bos) {
    const std::int32_t bos = *tokenizer_->bos();
    const bool had_bos = !tokens.empty() && tokens.front() == bos;
    counts.prompt_had_bos += had_bos;
    if (!had_bos) tokens.insert(tokens.begin(), bos);
  }
  return fit(tokens, rules_.max_prompt_tokens, rules_.add_bos, true, rules_.prompt_rule, "prompt", place, counts.cut_prompts,
             counts.dropped);
}

bool TemplateEncoder::response(std::string_view text, std::span<const std::int32_t> prompt, std::string_view place,
                               std::vector<std::int32_t>& tokens, LengthCounts& counts) const {
  tokens = tokenizer_->encode_after(prompt, text);
  counts.unknown += count_unknown(tokens);
  if (!tokens.empty() && tokenizer_->bos() == tokens.front()) tokens.erase(tokens.begin());
  if (rules_.add_eos) tokens.push_back(*tokenizer_->eos());
  require(!tokens.empty(), "{}: the response is empty and the template adds no end-of-text token; take the record out", place);
  return fit(tokens, rules_.max_response_tokens, 0, false, rules_.response_rule, "response", place, counts.cut_responses, counts.dropped);
}

}  // namespace collimate
