#include "collimate/data/formats.hpp"

#include <cmath>
#include <utility>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"

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
                                                                 {"prompts", SampleFormat::prompts},
                                                                 {"text", SampleFormat::text}};

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

/// The first of the names that the record has, or none.
std::string_view first_of(const Record& record, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names)
    if (record.has(name)) return name;
  return {};
}

std::string_view prompt_field(const Record& record) { return first_of(record, {"prompt", "instruction", "question"}); }
std::string_view response_field(const Record& record) { return first_of(record, {"response", "completion", "output", "answer"}); }
std::string_view turns_field(const Record& record) { return first_of(record, {"conversations", "messages"}); }

/// A response is not empty: a model would learn to say nothing. In a pair one side may be: people did prefer silence, or not.
bool is_empty(const std::optional<std::string>& text) { return text && trim(*text).empty(); }

const std::string& some_text(const Record& record, std::string_view found, std::string_view wanted) {
  return record.text(found.empty() ? wanted : found);
}

std::string optional_text(const Record& record, std::string_view name) { return record.has(name) ? record.text(name) : std::string(); }

/// Anthropic's pairs: the prompt reaches to the last "\n\nAssistant:" of what both dialogues share.
void read_hh(const Record& record, Example& example) {
  constexpr std::string_view cue = "\n\nAssistant:";
  const std::string& chosen = record.text("chosen");
  const std::string& rejected = record.text("rejected");
  std::size_t shared = 0;
  while (shared < chosen.size() && shared < rejected.size() && chosen[shared] == rejected[shared]) ++shared;
  const std::size_t at = chosen.substr(0, shared).rfind(cue);
  require(at != std::string::npos,
          "{}: 'chosen' and 'rejected' share no text that ends in an unanswered 'Assistant:' turn; name the format if "
          "these are not dialogues of hh-rlhf",
          record.place());
  const std::size_t start = at + cue.size();
  example.prompt = chosen.substr(0, start);
  example.complete = true;
  example.chosen = chosen.substr(start);
  example.rejected = rejected.substr(start);
}

const Turn& one_answer(const std::vector<Turn>& turns, const Record& record, std::string_view name) {
  require(turns.size() == 1 && turns[0].role == "assistant", "{}: '{}' must be one message of the assistant", record.place(), name);
  return turns[0];
}

void read_dialogue(const Record& record, Example& example) {
  example.turns = record.turns(turns_field(record).empty() ? "conversations" : turns_field(record));
  for (const Turn& turn : example.turns)
    require(turn.role == "human" || turn.role == "assistant" || turn.role == "system",
            "{}: the role '{}' is unknown; it must be human (user), assistant (gpt) or system", record.place(), turn.role);
  if (!example.turns.empty() && example.turns.back().role == "assistant") {
    example.response = example.turns.back().text;
    example.turns.pop_back();
  }
  require(!example.turns.empty() && example.turns.back().role != "assistant", "{}: the dialogue has no question before its answer",
          record.place());
}

void read_preference(const Record& record, Example& example) {
  if (record.has("margin")) example.margin = record.number("margin");
  require(std::isfinite(example.margin), "{}: the margin must be a finite number", record.place());
  if (record.has("kind")) example.category = record.text("kind");
}

}  // namespace

std::string_view name_of(DatasetKind kind) { return word_of(kinds, kind); }
DatasetKind dataset_kind_named(std::string_view name) { return named(kinds, "kind of dataset", name); }
std::string_view name_of(SampleFormat format) { return word_of(formats, format); }
SampleFormat sample_format_named(std::string_view name) { return named(formats, "format of samples", name); }

SampleFormat detect_format(const Record& record) {
  const bool pair = record.has("chosen") && record.has("rejected");
  if (pair && !turns_field(record).empty()) return SampleFormat::dialogue_preference;
  if (pair) return prompt_field(record).empty() ? SampleFormat::hh : SampleFormat::preference;
  if (!turns_field(record).empty()) return SampleFormat::dialogue;
  if (record.has("instruction") && record.has("output")) return SampleFormat::alpaca;
  if (!prompt_field(record).empty()) return response_field(record).empty() ? SampleFormat::prompts : SampleFormat::prompt_response;
  if (record.has("text")) return SampleFormat::text;
  std::vector<std::string> names;
  for (const auto& [name, field] : record.fields) names.push_back(name);
  fail(
      "{}: no format fits a record with the fields {}; name columns instruction/output, prompt/response, prompt/chosen/rejected, "
      "chosen/rejected, conversations, prompt or text",
      record.place(), join(names, ", "));
}

std::string_view null_response(const Record& record) {
  for (const std::string_view name : {"response", "completion", "output", "answer", "chosen", "rejected"})
    if (record.nulls.contains(name)) return name;
  return {};
}

Example read_example(const Record& record, SampleFormat format) {
  if (format == SampleFormat::automatic) format = detect_format(record);
  Example example;
  example.place = record.place();
  switch (format) {
    case SampleFormat::alpaca:
      example.prompt = record.text("instruction");
      example.input = optional_text(record, "input");
      example.response = record.text("output");
      break;
    case SampleFormat::prompt_response:
      example.prompt = some_text(record, prompt_field(record), "prompt");
      example.response = some_text(record, response_field(record), "response");
      break;
    case SampleFormat::preference:
      example.prompt = some_text(record, prompt_field(record), "prompt");
      example.input = optional_text(record, "input");
      example.chosen = record.text("chosen");
      example.rejected = record.text("rejected");
      read_preference(record, example);
      break;
    case SampleFormat::hh:
      read_hh(record, example);
      read_preference(record, example);
      break;
    case SampleFormat::dialogue: read_dialogue(record, example); break;
    case SampleFormat::dialogue_preference:
      read_dialogue(record, example);
      require(!example.response, "{}: the dialogue before 'chosen' must end with a question", record.place());
      example.chosen = one_answer(record.turns("chosen"), record, "chosen").text;
      example.rejected = one_answer(record.turns("rejected"), record, "rejected").text;
      read_preference(record, example);
      break;
    case SampleFormat::prompts:
      example.prompt = some_text(record, prompt_field(record), "prompt");
      example.input = optional_text(record, "input");
      if (const auto field = response_field(record); !field.empty()) example.answer = record.text(field);
      break;
    case SampleFormat::text:
      example.is_text = true;
      example.response = record.text("text");
      break;
    case SampleFormat::automatic: break;
  }
  return example;
}

DatasetKind kind_of(SampleFormat format) {
  switch (format) {
    case SampleFormat::preference:
    case SampleFormat::hh:
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
    require(example.response.has_value(), "{}: a supervised dataset needs a response (response, output, answer or chosen)", example.place);
    require(!is_empty(example.response), "{}: the response is empty; fill it in, or take the record out", example.place);
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
