#include "collimate/data/formats.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/template.hpp"
#include "data/answers.hpp"
#include "data/messages.hpp"

namespace collimate {
namespace {

constexpr std::pair<std::string_view, DatasetKind> kinds[] = {
    {"supervised", DatasetKind::supervised}, {"preference", DatasetKind::preference}, {"prompts", DatasetKind::prompts}};
constexpr std::pair<std::string_view, SampleFormat> formats[] = {{"auto", SampleFormat::automatic},
                                                                 {"alpaca", SampleFormat::alpaca},
                                                                 {"prompt-response", SampleFormat::prompt_response},
                                                                 {"preference", SampleFormat::preference},
                                                                 {"hh", SampleFormat::hh},
                                                                 {"dialogue", SampleFormat::dialogue},
                                                                 {"dialogue-preference", SampleFormat::dialogue_preference},
                                                                 {"ranking", SampleFormat::ranking},
                                                                 {"prompts", SampleFormat::prompts},
                                                                 {"text", SampleFormat::text},
                                                                 {"oasst", SampleFormat::oasst}};

template <class Table>
auto named(const Table& table, std::string_view what, std::string_view name) {
  std::vector<std::string> names;
  for (const auto& [word, value] : table) {
    if (word == name) return value;
    names.emplace_back(word);
  }
  fail("'{}' is no {}; it is one of {}", name, what, join(names, ", "));
}

template <class Table, class Value>
std::string_view word_of(const Table& table, Value value) {
  for (const auto& [word, entry] : table)
    if (entry == value) return word;
  return "?";
}

/// A response is not empty: a model would learn to say nothing. In a pair one side may be: people did prefer silence, or not.
bool is_empty(const std::optional<std::string>& text) { return text && trim(*text).empty(); }

std::string optional_text(const Record& record, std::string_view name) { return record.has(name) ? record.text(name) : std::string(); }

/// Puts the answers that are learned into a dialogue whose last turn may be an answer. Empty: what is left out, and why.
std::string take_response(std::vector<Turn> turns, Learn learn, bool learns, const std::string& place, Example& example) {
  const auto answers = [&](const Turn& turn) { return turn.role == "assistant"; };
  std::size_t end = turns.size();  // behind the last answer that is learned
  if (learns && learn == Learn::all)
    while (end > 0 && !(answers(turns[end - 1]) && turns[end - 1].learned.value_or(true))) --end;
  if (end == 0 && std::any_of(turns.begin(), turns.end(), answers))
    return "no answer of the dialogue is to be learned, as its messages say";
  turns.resize(end == 0 ? turns.size() : end);
  if (!turns.empty() && answers(turns.back())) {
    if (learns && !turns.back().learned.value_or(true))
      return "the last answer of the dialogue is not to be learned, as its message says (--learn all learns the others)";
    example.response = turns.back().text;
    turns.pop_back();
  }
  require(!turns.empty() && turns.back().role != "assistant", "{}: the dialogue has no question before its answer", place);
  for (Turn& turn : turns)
    if (learns && learn == Learn::all && answers(turn))
      turn.learned = turn.learned.value_or(true);
    else
      turn.learned.reset();
  example.turns = std::move(turns);
  return "";
}

Reading read_dialogue(const Record& record, const ReadRules& rules) {
  Reading out{{Example{}}, ""};
  const bool learns = rules.kind.value_or(DatasetKind::supervised) == DatasetKind::supervised;
  const std::string_view field = turns_field(record).empty() ? "conversations" : turns_field(record);
  out.left_out = take_response(record.turns(field), rules.learn, learns, record.place(), out.examples[0]);
  if (!out.left_out.empty()) out.examples.clear();
  return out;
}

/// A prompt and its answer, each a text or messages. Answers in the prompt's messages are not learned.
Reading read_prompt_response(const Record& record, const ReadRules& rules) {
  Reading out{{Example{}}, ""};
  Example& example = out.examples[0];
  const std::string_view prompt_name = prompt_field(record).empty() ? "prompt" : prompt_field(record);
  const std::string_view response_name = response_field(record).empty() ? "response" : response_field(record);
  Said prompt = said(record, prompt_name), response = said(record, response_name);
  if (prompt.is_text() && response.is_text()) {
    example.prompt = std::move(prompt.text);
    example.response = std::move(response.text);
    return out;
  }
  std::vector<Turn> turns = prompt.is_text() ? std::vector<Turn>{{"human", prompt.text}} : std::move(prompt.turns);
  for (Turn& turn : turns) turn.learned = false;
  if (response.is_text()) response.turns = {{"assistant", response.text}};
  require(response.turns.back().role == "assistant" && turns.back().role != "assistant",
          "{}: '{}' must end with a question and '{}' with the assistant's answer to it", record.place(), prompt_name, response_name);
  turns.insert(turns.end(), response.turns.begin(), response.turns.end());
  const bool learns = rules.kind.value_or(DatasetKind::supervised) == DatasetKind::supervised;
  out.left_out = take_response(std::move(turns), rules.learn, learns, record.place(), example);
  if (!out.left_out.empty()) out.examples.clear();
  return out;
}

Example read_prompt(const Record& record) {
  Example example;
  const std::string_view name = prompt_field(record).empty() ? "prompt" : prompt_field(record);
  Said prompt = said(record, name);
  require(prompt.is_text() || prompt.turns.back().role != "assistant", "{}: the dialogue in '{}' must end with a question", record.place(),
          name);
  example.prompt = std::move(prompt.text);
  example.turns = std::move(prompt.turns);
  example.input = optional_text(record, "input");
  if (const auto field = response_field(record); !field.empty()) {
    const Said answer = said(record, field);
    require(answer.is_text() || answer.turns.size() == 1, "{}: '{}' must be one answer", record.place(), field);
    example.answer = answer.is_text() ? answer.text : answer.turns[0].text;
  }
  return example;
}

Example read_alpaca(const Record& record) {
  Example example;
  example.prompt = record.text("instruction");
  example.input = optional_text(record, "input");
  example.response = record.text("output");
  return example;
}

Example read_text(const Record& record) {
  Example example;
  example.is_text = true;
  example.response = record.text("text");
  return example;
}

/// A margin and a category that the record has for its pairs.
void read_pair_fields(const Record& record, std::vector<Example>& pairs) {
  for (Example& pair : pairs) {
    if (record.has("margin")) pair.margin = record.number("margin");
    require(std::isfinite(pair.margin), "{}: the margin must be a finite number", record.place());
    if (record.has("kind")) pair.category = record.text("kind");
  }
}

/// A system text beside a dialogue without one is its first turn; beside a prompt it is one where a chat template makes a turn of the prompt.
void take_system(const Record& record, const ReadRules& rules, std::vector<Example>& examples) {
  for (const std::string_view name : {"system", "system_prompt"}) {
    const auto field = record.fields.find(name);
    if (field == record.fields.end() || field->second.is_json || trim(field->second.text).empty()) continue;
    for (Example& example : examples) {
      if (example.is_text || example.complete) continue;
      const bool dialogue = !example.turns.empty();
      if (dialogue ? example.turns.front().role == "system" : rules.chat == nullptr || rules.chat->name.empty()) continue;
      if (dialogue)
        example.turns.insert(example.turns.begin(), {"system", record.text(name)});
      else
        example.system = record.text(name);
    }
    return;
  }
}

Reading read_as(const Record& record, SampleFormat format, const ReadRules& rules) {
  switch (format) {
    case SampleFormat::alpaca: return {{read_alpaca(record)}, ""};
    case SampleFormat::prompt_response: return read_prompt_response(record, rules);
    case SampleFormat::preference:
    case SampleFormat::dialogue_preference: return read_pairs(record);
    case SampleFormat::hh: return read_hh(record, rules);
    case SampleFormat::ranking: return read_ranking(record);
    case SampleFormat::dialogue: return read_dialogue(record, rules);
    case SampleFormat::prompts: return {{read_prompt(record)}, ""};
    case SampleFormat::text: return {{read_text(record)}, ""};
    case SampleFormat::oasst: return read_oasst_tree(record, rules);
    case SampleFormat::automatic: break;
  }
  return {};
}

/// A text with the role of its speaker, or with the message that it answers.
bool is_one_message(const Record& record) {
  if (!record.has("text") && !record.has("content")) return false;
  const auto role = record.fields.find("role");
  constexpr std::string_view speakers[] = {"prompter", "assistant", "user", "system", "human", "gpt", "bot", "tool"};
  const bool speaks = role != record.fields.end() && std::ranges::find(speakers, role->second.text) != std::end(speakers);
  return speaks || record.has("parent_id");
}

}  // namespace

std::string_view name_of(DatasetKind kind) { return word_of(kinds, kind); }
DatasetKind dataset_kind_named(std::string_view name) { return named(kinds, "kind of dataset", name); }
SampleFormat sample_format_named(std::string_view name) { return named(formats, "format of samples", name); }

std::vector<std::string> sample_format_names() {
  std::vector<std::string> names;
  for (const auto& [word, format] : formats) names.emplace_back(word);
  return names;
}

SampleFormat detect_format(const Record& record) {
  const bool pair = record.has("chosen") && record.has("rejected");
  const bool prompt = !prompt_field(record).empty(), turns = !turns_field(record).empty();
  require(!is_one_message(record),
          "{}: this is one message of a dialogue, and each record here holds a whole one: put the messages of a dialogue into a list "
          "'messages' (of OpenAssistant's files take the one with a tree of replies in each line)",
          record.place());
  if (is_oasst_tree(record)) return SampleFormat::oasst;
  if (is_choice(record)) return SampleFormat::ranking;
  if (pair && turns && !prompt) return SampleFormat::dialogue_preference;
  if (pair) return prompt || record.field("chosen").is_json ? SampleFormat::preference : SampleFormat::hh;
  if ((prompt || turns) && !ranking_field(record).empty()) return SampleFormat::ranking;
  if (turns) return SampleFormat::dialogue;
  if (record.has("instruction") && record.has("output")) return SampleFormat::alpaca;
  if (prompt) return response_field(record).empty() ? SampleFormat::prompts : SampleFormat::prompt_response;
  if (record.has("text")) return SampleFormat::text;
  std::vector<std::string> names;
  for (const auto& [name, field] : record.fields) names.push_back(name);
  fail(
      "{}: no format fits a record with the fields {}; name columns instruction/output, prompt/response, prompt/chosen/rejected, "
      "chosen/rejected, conversations, prompt or text, or say with --prompt-field, --response-field and the like what they hold",
      record.place(), join(names, ", "));
}

std::string_view null_response(const Record& record) {
  for (const std::string_view name : {"response", "completion", "output", "answer", "chosen", "rejected", "responses", "completions"})
    if (record.nulls.contains(name)) return name;
  return {};
}

Reading read_examples(const Record& record, SampleFormat format, const ReadRules& rules) {
  if (format == SampleFormat::automatic) format = detect_format(record);
  Reading out;
  if (rules.names.answers.empty() && !label_is_taken(record, format, rules)) {
    out.left_out = fmt::format("the label is none of {}", join(rules.names.label_values, ", "));
    return out;
  }
  out = is_choice(record) ? read_choice(record, rules.names) : read_as(record, format, rules);
  if (kind_of(format) == DatasetKind::preference) read_pair_fields(record, out.examples);
  take_system(record, rules, out.examples);
  for (Example& example : out.examples) example.place = record.place();
  // Of several pairs of one prompt the first has the best answer.
  if (rules.kind.value_or(DatasetKind::preference) != DatasetKind::preference && out.examples.size() > 1) out.examples.resize(1);
  return out;
}

DatasetKind kind_of(SampleFormat format) {
  switch (format) {
    case SampleFormat::preference:
    case SampleFormat::hh:
    case SampleFormat::ranking:
    case SampleFormat::dialogue_preference: return DatasetKind::preference;
    case SampleFormat::prompts: return DatasetKind::prompts;
    default: return DatasetKind::supervised;
  }
}

Example as_kind(Example example, DatasetKind kind) {
  if (kind == DatasetKind::preference) {
    require(example.chosen && example.rejected, "{}: a preference dataset needs the fields 'chosen' and 'rejected'", example.place);
    require(!is_empty(example.chosen) || !is_empty(example.rejected), "{}: 'chosen' and 'rejected' are both empty; take the record out",
            example.place);
  }
  if (kind == DatasetKind::supervised) {
    if (!example.response) example.response = example.chosen;
    require(example.response.has_value() || example.turns.empty(),
            "{}: the dialogue ends with a question, so there is no answer to learn: add it, or make a dataset of prompts with --kind prompts", example.place);
    require(example.response.has_value(), "{}: a supervised dataset needs a response (response, output, answer or chosen)", example.place);
    require(!is_empty(example.response), "{}: the response is empty; fill it in, or take the record out", example.place);
    for (const Turn& turn : example.turns)
      require(!turn.learned.value_or(false) || !trim(turn.text).empty(),
              "{}: an answer of the dialogue is empty; fill it in, or take the record out", example.place);
  }
  if (kind == DatasetKind::prompts) {
    if (example.is_text) {
      example.prompt = *std::exchange(example.response, std::nullopt);
      example.is_text = false;
    }
    if (!example.answer) example.answer = example.response;
  }
  return example;
}

}  // namespace collimate
