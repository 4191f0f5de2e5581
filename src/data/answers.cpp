#include "data/answers.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <span>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/json_text.hpp"
#include "data/messages.hpp"

namespace collimate {
namespace {

std::string_view first_of(const Record& record, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names)
    if (record.has(name)) return name;
  return {};
}

/// What stands before the answers of a record.
struct Asked {
  std::string_view name, turns_name;  ///< of the fields that it comes from
  Said prompt;                        ///< of the prompt's field
  std::string input;
  std::vector<Turn> turns;  ///< of the field of messages
  bool has_prompt() const { return !name.empty(); }
};

Asked asked_in(const Record& record) {
  Asked asked{prompt_field(record), turns_field(record), {}, "", {}};
  if (asked.has_prompt()) asked.prompt = said(record, asked.name);
  if (!asked.turns_name.empty()) asked.turns = record.turns(asked.turns_name);
  if (record.has("input")) asked.input = record.text("input");
  return asked;
}

bool begins_with(const std::vector<Turn>& whole, const std::vector<Turn>& part) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

/// A text that stands beside a dialogue must be one of its questions: neither is taken without the other.
void require_asked(const Record& record, const Asked& asked, const std::vector<Turn>& turns) {
  const auto is_asked = [&](const Turn& turn) { return turn.role == "human" && trim(turn.text) == trim(asked.prompt.text); };
  require(!asked.has_prompt() || !asked.prompt.is_text() || std::any_of(turns.begin(), turns.end(), is_asked),
          "{}: the text in '{}' is not a question of the record's dialogue; remove one of the two", record.place(), asked.name);
}

/// The dialogue before two answers that are whole dialogues: what they share. The record's other fields must say the same.
std::vector<Turn> shared_beginning(const Record& record, const Asked& asked, const std::vector<Turn>& good, const std::vector<Turn>& bad) {
  std::size_t shared = 0;
  while (shared + 1 < std::min(good.size(), bad.size()) && good[shared] == bad[shared]) ++shared;
  const std::vector<Turn> turns(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(shared));
  const auto agrees = [&](const std::vector<Turn>& part, std::string_view name) {
    require(begins_with(good, part), "{}: the messages in '{}' are not the beginning of the dialogue in 'chosen'; take one of the two out",
            record.place(), name);
  };
  agrees(asked.prompt.turns, asked.name);
  agrees(asked.turns, asked.turns_name);
  require_asked(record, asked, turns);
  return turns;
}

/// The dialogue before answers that are messages without it.
std::vector<Turn> dialogue_before(const Record& record, const Asked& asked) {
  if (!asked.prompt.turns.empty()) return asked.prompt.turns;
  if (!asked.turns.empty()) require_asked(record, asked, asked.turns);
  if (!asked.turns.empty()) return asked.turns;
  require(asked.has_prompt(), "{}: 'chosen' and 'rejected' hold answers, but no field holds what was asked; add a prompt", record.place());
  return {{"human", asked.input.empty() ? asked.prompt.text : asked.prompt.text + "\n" + asked.input}};
}

void require_question(const Record& record, const std::vector<Turn>& turns) {
  require(!turns.empty() && turns.back().role != "assistant", "{}: the dialogue before 'chosen' and 'rejected' must end with a question",
          record.place());
}

/// One answer is better than another one: with what was asked an example.
Example pair_of(const Record& record, const Asked& asked, const Said& good, const Said& bad) {
  Example example;
  if (good.is_text() && bad.is_text()) {
    example.turns = asked.prompt.turns.empty() ? asked.turns : asked.prompt.turns;
    if (!asked.turns.empty()) require_asked(record, asked, asked.turns);
    if (!example.turns.empty())
      require_question(record, example.turns);
    else
      example.prompt = asked.prompt.text, example.input = asked.input;
    require(asked.has_prompt() || !example.turns.empty(), "{}: no field holds what was asked; add a prompt", record.place());
    example.chosen = good.text;
    example.rejected = bad.text;
    return example;
  }
  require(!good.is_text() && !bad.is_text(), "{}: of 'chosen' and 'rejected' one is a text and the other messages; write both alike",
          record.place());
  const bool whole = good.turns.size() > 1 || good.turns[0].role != "assistant" || bad.turns.size() > 1;
  example.turns = whole ? shared_beginning(record, asked, good.turns, bad.turns) : dialogue_before(record, asked);
  const std::size_t before = whole ? example.turns.size() : 0;
  for (const Said* side : {&good, &bad})
    require(side->turns.size() == before + 1 && side->turns.back().role == "assistant",
            "{}: 'chosen' and 'rejected' must each be one answer of the assistant, behind the messages that both begin with; take the "
            "record out",
            record.place());
  require_question(record, example.turns);
  example.chosen = good.turns.back().text;
  example.rejected = bad.turns.back().text;
  return example;
}

/// An answer of a ranking: the better, the larger the value.
struct Ranked {
  Said answer;
  double value = 0;
};

double number_in(const Record& record, std::string_view name, const Field& field) {
  double value = 0;
  const auto [stop, code] = std::from_chars(field.text.data(), field.text.data() + field.text.size(), value);
  require(code == std::errc() && stop == field.text.data() + field.text.size() && std::isfinite(value),
          "{}: '{}' holds '{}' where a number is expected", record.place(), name, field.text.substr(0, 40));
  return value;
}

/// A pair of every two answers that differ in value and text, best ones first.
Reading pairs_of(const Record& record, const Asked& asked, std::vector<Ranked> ranked, bool margins) {
  std::stable_sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) { return a.value > b.value; });
  Reading out;
  for (std::size_t i = 0; i < ranked.size(); ++i)
    for (std::size_t j = i + 1; j < ranked.size(); ++j) {
      if (ranked[i].value == ranked[j].value || ranked[i].answer == ranked[j].answer) continue;
      Example& pair = out.examples.emplace_back(pair_of(record, asked, ranked[i].answer, ranked[j].answer));
      if (margins) pair.margin = ranked[i].value - ranked[j].value;
    }
  if (out.examples.empty()) out.left_out = "no two answers differ in their text and in their score or rank";
  return out;
}

constexpr std::string_view text_keys[] = {"response", "text", "content", "answer", "completion", "output"};
constexpr std::string_view score_keys[] = {"score", "overall_score", "rating", "reward"};
constexpr std::string_view score_fields[] = {"scores", "ratings", "rewards"};
constexpr std::string_view rank_fields[] = {"ranks", "rank"};

const Field* member(const std::map<std::string, Field, std::less<>>& members, std::span<const std::string_view> names) {
  for (const std::string_view name : names)
    if (const auto found = members.find(name); found != members.end()) return &found->second;
  return nullptr;
}

/// A list of {response, score} objects, or of {response, rank}; one without a score is left out.
std::vector<Ranked> ranked_objects(const Record& record, std::string_view name, bool& margins) {
  constexpr std::string_view rank_key[] = {"rank"};
  std::vector<Ranked> ranked;
  for (const Field& element : json_elements(record.field(name).text)) {
    require(element.is_object(), "{}: '{}' holds {} beside objects; write all alike", record.place(), name, element.text.substr(0, 40));
    const auto members = json_members(element.text);
    const Field* text = member(members, text_keys);
    const Field* score = member(members, score_keys);
    const Field* rank = score ? nullptr : member(members, rank_key);
    require(text && !text->is_list() && !text->is_object() && !text->is_null(),
            "{}: an answer of '{}' has no text in 'response', 'text' or 'answer'", record.place(), name);
    require(score || rank, "{}: an answer of '{}' has neither 'score' nor 'rank': a list of answers needs one for each", record.place(),
            name);
    margins = margins && score;
    if (const Field& value = score ? *score : *rank; !value.is_null())
      ranked.push_back({{text->text, {}}, (score ? 1 : -1) * number_in(record, name, value)});
  }
  return ranked;
}

std::string_view first_list(const Record& record, std::span<const std::string_view> names) {
  for (const std::string_view name : names)
    if (const auto found = record.fields.find(name); found != record.fields.end() && found->second.is_list()) return name;
  return {};
}

}  // namespace

std::string_view prompt_field(const Record& record) { return first_of(record, {"prompt", "instruction", "question"}); }
std::string_view response_field(const Record& record) { return first_of(record, {"response", "completion", "output", "answer"}); }
std::string_view turns_field(const Record& record) { return first_of(record, {"conversations", "messages", "conversation"}); }

std::string_view ranking_field(const Record& record) {
  constexpr std::string_view names[] = {"responses", "completions", "answers", "candidates"};
  return first_list(record, names);
}

Reading read_pairs(const Record& record) {
  const Asked asked = asked_in(record);
  Reading out;
  const std::vector<Said> rejected = all_said(record, "rejected");
  for (const Said& good : all_said(record, "chosen"))
    for (const Said& bad : rejected) out.examples.push_back(pair_of(record, asked, good, bad));
  return out;
}

Reading read_ranking(const Record& record) {
  const std::string_view name = ranking_field(record);
  require(!name.empty(), "{}: a ranking needs a list of answers ('responses') with 'scores'", record.place());
  const Asked asked = asked_in(record);
  const std::string_view scores = first_list(record, score_fields), ranks = first_list(record, rank_fields);
  bool margins = !scores.empty() || ranks.empty();
  if (scores.empty() && ranks.empty() && record.field(name).text.find('{') != std::string::npos) {
    std::vector<Ranked> ranked = ranked_objects(record, name, margins);
    return pairs_of(record, asked, std::move(ranked), margins);
  }
  const std::string_view values_name = scores.empty() ? ranks : scores;
  require(!values_name.empty(),
          "{}: '{}' holds several answers, but nothing says which is better: add 'scores' (or 'ranks', 1 for the best), or make pairs with "
          "'chosen' and 'rejected'",
          record.place(), name);
  const std::vector<Said> answers = all_said(record, name);
  const std::vector<Field> values = json_elements(record.field(values_name).text);
  require(answers.size() == values.size(), "{}: '{}' holds {} answers and '{}' {} numbers; each answer needs one", record.place(), name,
          answers.size(), values_name, values.size());
  std::vector<Ranked> ranked;
  for (std::size_t i = 0; i < answers.size(); ++i)
    if (!values[i].is_null()) ranked.push_back({answers[i], (scores.empty() ? -1 : 1) * number_in(record, values_name, values[i])});
  return pairs_of(record, asked, std::move(ranked), margins);
}

}  // namespace collimate
