#include <algorithm>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/answers.hpp"
#include "data/messages.hpp"

namespace collimate {
namespace {

constexpr std::string_view label_column = "(label)";  // no file has such names of its own
std::string answer_column(std::size_t i) { return fmt::format("(answer {})", i + 1); }

/// A part of a record: the name that readers look for first, and the others, which are out of the way where the user names a column.
struct Part {
  std::string FieldNames::*named;
  std::string_view usual;
  std::vector<std::string_view> others;
};

const std::vector<Part>& parts() {
  static const std::vector<Part> all = {
      {&FieldNames::prompt, "prompt", {"instruction", "question", "conversations", "messages", "conversation"}},
      {&FieldNames::input, "input", {}},
      {&FieldNames::response, "response", {"completion", "output", "answer"}},
      {&FieldNames::chosen, "chosen", {}},
      {&FieldNames::rejected, "rejected", {}},
      {&FieldNames::label, label_column, {}}};
  return all;
}

void require_field(const Record& record, const std::string& name, const Record& whole) {
  if (record.fields.contains(name) || record.nulls.contains(name)) return;
  std::vector<std::string> names;
  for (const auto& [key, field] : whole.fields) names.push_back(key);
  fail("{}: the record has no field '{}', which an option names; it has {}", whole.place(), name, join(names, ", "));
}

bool is_truth(const Field& field, bool with_numbers) {
  std::string text = field.text;
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text == "true" || text == "false" || (with_numbers && (text == "0" || text == "1"));
}

bool same_label(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

void FieldNames::check() const {
  require(label.empty() == label_values.empty(), "--label-field and --label-values go together: a column, and what its values mean");
  require(answers.size() != 1, "--answer-fields names one column; it takes two or more, of which the label names the best");
  require(answers.empty() || answers.size() == label_values.size(),
          "--answer-fields names {} columns and --label-values {} labels; each column needs the label that prefers it", answers.size(),
          label_values.size());
  require(answers.empty() || (chosen.empty() && rejected.empty() && response.empty()),
          "--answer-fields names all answers; leave --chosen-field, --rejected-field and --response-field out");
}

Record with_usual_names(Record record, const FieldNames& names) {
  const auto named = [&](const Part& part) { return !(names.*part.named).empty(); };
  if (names.answers.empty() && std::none_of(parts().begin(), parts().end(), named)) return record;
  Record out = record;
  const auto take = [&](const std::string& name, std::string_view usual) {
    require_field(record, name, record);
    if (record.nulls.contains(name))
      out.nulls.emplace(usual);
    else
      out.fields.insert_or_assign(std::string(usual), record.fields.at(name));
  };
  // First all named columns leave, with what has a usual name without being named; then each gets its place.
  for (const Part& part : parts()) {
    const std::string& name = names.*part.named;
    if (name.empty()) continue;
    out.fields.erase(name), out.nulls.erase(name);
    std::vector<std::string_view> rivals = part.others;
    rivals.push_back(part.usual);
    for (const std::string_view rival : rivals) {
      const auto found = out.fields.find(rival);
      if (found == out.fields.end()) continue;
      Field field = found->second;
      out.fields.erase(found);
      out.fields.emplace(fmt::format("{} (of the file)", rival), std::move(field));
    }
  }
  for (const std::string& name : names.answers) out.fields.erase(name), out.nulls.erase(name);
  for (const Part& part : parts())
    if (const std::string& name = names.*part.named; !name.empty()) {
      take(name, part.usual);
      out.fields.erase(fmt::format("{} (of the file)", name));
    }
  for (std::size_t i = 0; i < names.answers.size(); ++i) take(names.answers[i], answer_column(i));
  return out;
}

bool is_choice(const Record& record) { return record.has(answer_column(0)); }

Reading read_choice(const Record& record, const FieldNames& names) {
  const std::string& label = record.text(label_column);
  const auto best = std::find_if(names.label_values.begin(), names.label_values.end(),
                                 [&](const std::string& value) { return same_label(value, label); });
  Reading out;
  if (best == names.label_values.end()) {
    out.left_out = fmt::format("the label is none of {}", join(names.label_values, ", "));
    return out;
  }
  const auto chosen = static_cast<std::size_t>(best - names.label_values.begin());
  for (std::size_t i = 0; i < names.answers.size(); ++i) {
    if (i == chosen) continue;
    Record pair = record;  // its fields are those that are marked as used
    pair.fields.insert_or_assign("chosen", record.field(answer_column(chosen)));
    pair.fields.insert_or_assign("rejected", record.field(answer_column(i)));
    for (Example& example : read_pairs(pair).examples) out.examples.push_back(std::move(example));
    for (const auto& [name, field] : record.fields) field.used = field.used || (pair.fields.contains(name) && pair.fields.at(name).used);
  }
  return out;
}

bool label_is_taken(const Record& record, SampleFormat format, const ReadRules& rules) {
  if (!rules.names.label.empty()) {
    const std::string& label = record.text(label_column);
    return std::any_of(rules.names.label_values.begin(), rules.names.label_values.end(),
                       [&](const std::string& value) { return same_label(value, label); });
  }
  if (kind_of(format) == DatasetKind::preference || format == SampleFormat::oasst) return true;
  const bool answered = format != SampleFormat::prompts && format != SampleFormat::text;
  for (const std::string_view name : {"label", "labels", "kto_tag"})
    if (const auto found = record.fields.find(name); found != record.fields.end())
      require(!is_truth(found->second, answered),
              "{}: '{}' is {}, which says whether the answer is good or bad; nothing here learns from such labels. Say --label-field {} "
              "--label-values true to learn the good answers alone, or write pairs with prompt, chosen and rejected",
              record.place(), name, found->second.text, name);
  return true;
}

void require_no_answers(const Record& record) {
  constexpr std::string_view telling[] = {"response", "completion", "answer", "output", "chosen", "rejected", "reply",  "replies",
                                          "score",    "rank",       "label",  "rating", "prefer", "better",   "winner", "candidate"};
  for (const std::string& name : record.unused())
    for (const std::string_view word : telling)
      require(
          name.find(word) == std::string::npos,
          "{}: beside the prompt there is '{}', which no format reads: say with --response-field, --chosen-field and --rejected-field, or "
          "--answer-fields and --label-field, what it holds; or say --kind prompts where the prompts alone are wanted",
          record.place(), name);
}

}  // namespace collimate
