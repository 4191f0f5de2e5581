#include <algorithm>

#include "collimate/base/error.hpp"
#include "collimate/data/template.hpp"
#include "data/answers.hpp"

// Anthropic's pairs: two dialogues in one text each.
namespace collimate {
namespace {

constexpr std::string_view human = "\n\nHuman:", assistant = "\n\nAssistant:";

/// Reaches to the last "\n\nAssistant:" of what both dialogues share.
Example split_pair(const Record& record) {
  const std::string& chosen = record.text("chosen");
  const std::string& rejected = record.text("rejected");
  std::size_t shared = 0;
  while (shared < chosen.size() && shared < rejected.size() && chosen[shared] == rejected[shared]) ++shared;
  const std::size_t at = chosen.substr(0, shared).rfind(assistant);
  require(at != std::string::npos,
          "{}: 'chosen' and 'rejected' share no text that ends in an unanswered 'Assistant:' turn; name the format if "
          "these are not dialogues of hh-rlhf",
          record.place());
  const std::size_t start = at + assistant.size();
  Example example;
  example.prompt = chosen.substr(0, start);
  example.complete = true;
  example.chosen = chosen.substr(start);
  example.rejected = rejected.substr(start);
  return example;
}

/// The turns of a text up to its last, unanswered cue; their texts without the blanks at both ends.
std::vector<Turn> turns_of(std::string_view text, const Record& record) {
  std::vector<Turn> turns;
  require(text.starts_with(human) || text.starts_with(assistant), "{}: 'chosen' does not begin with a turn 'Human:' or 'Assistant:'",
          record.place());
  while (!text.empty()) {
    const bool asks = text.starts_with(human);
    text.remove_prefix(asks ? human.size() : assistant.size());
    const std::string_view words = text.substr(0, std::min(text.find(human), text.find(assistant)));
    text.remove_prefix(words.size());
    turns.push_back({asks ? "human" : "assistant", std::string(strip(words)), {}});
  }
  turns.pop_back();  // the cue
  return turns;
}

bool alternates(const std::vector<Turn>& turns) {
  for (std::size_t i = 0; i < turns.size(); ++i)
    if (turns[i].role != (i % 2 == 0 ? "human" : "assistant")) return false;
  return turns.size() % 2 == 1;
}

}  // namespace

Reading read_hh(const Record& record, const ReadRules& rules) {
  Example example = split_pair(record);
  if (rules.chat == nullptr || rules.chat->name.empty()) return {{std::move(example)}, ""};
  example.turns = turns_of(example.prompt, record);
  example.prompt.clear();
  example.complete = false;
  for (std::string* answer : {&*example.chosen, &*example.rejected}) {
    if (answer->find(human) != std::string::npos || answer->find(assistant) != std::string::npos)
      return {{}, "the dialogues of hh-rlhf differ in more than the last answer"};
    *answer = std::string(strip(*answer));
  }
  if (example.chosen == example.rejected) return {{}, "the answers of hh-rlhf differ in blanks alone"};
  if (example.turns.empty()) return {{}, "the dialogue of hh-rlhf has no question before its answer"};
  if (rules.chat->alternates && !alternates(example.turns))
    return {{}, "the turns of the dialogue of hh-rlhf do not alternate, as the chat template asks"};
  return {{std::move(example)}, ""};
}

}  // namespace collimate
