#include "data/messages.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/json_text.hpp"

namespace collimate {
namespace {

using Keys = std::map<std::string, Field, std::less<>>;

/// Words for the three roles.
constexpr std::pair<std::string_view, std::string_view> roles[] = {
    {"user", "human"},    {"human", "human"},     {"prompter", "human"},    {"gpt", "assistant"}, {"assistant", "assistant"},
    {"bot", "assistant"}, {"model", "assistant"}, {"chatgpt", "assistant"}, {"system", "system"}};

/// Keys that say whether an answer is learned: 1 or true, 0 or false.
constexpr std::string_view learn_keys[] = {"weight", "train", "training", "trainable", "loss", "learn"};

/// Keys that change what is to be learned in a way that no template here can write; why, for the sentence.
constexpr std::pair<std::string_view, std::string_view> refused_keys[] = {
    {"tool_calls", "calls of tools cannot be written by a prompt template"},
    {"function_call", "calls of tools cannot be written by a prompt template"},
    {"tool_call_id", "results of tools cannot be written by a prompt template"},
    {"reasoning_content", "its text would be left out of what is learned"},
    {"reasoning", "its text would be left out of what is learned"},
    {"thinking", "its text would be left out of what is learned"},
    {"prefix", "an answer that goes on behind its end would be learned with an end"},
    {"partial", "an answer that goes on behind its end would be learned with an end"},
    {"train_detail", "parts of an answer cannot be left out"},
    {"loss_scale", "weights other than 0 and 1 are not known"},
    {"loss_mask", "parts of an answer cannot be left out"},
    {"mask", "parts of an answer cannot be left out"},
    {"images", "only text can be learned"},
    {"image", "only text can be learned"},
    {"audio", "only text can be learned"},
    {"audios", "only text can be learned"},
    {"videos", "only text can be learned"}};

/// Null, false, 0, nothing but blanks, or an empty list or object.
bool says_nothing(const Field& field) {
  if (!field.is_json) return trim(field.text).empty();
  if (field.is_list()) return json_elements(field.text).empty();
  if (field.is_object()) return json_members(field.text).empty();
  return field.is_null() || field.text == "false" || field.text == "0";
}

/// One message of a record, for its sentences.
struct Message {
  const Record& record;
  std::string_view list;
  std::size_t number;
  Keys keys;

  std::string place() const { return fmt::format("{}: message {} of '{}'", record.place(), number, list); }
  const Field* find(std::string_view key) const {
    const auto found = keys.find(key);
    if (found == keys.end()) return nullptr;
    found->second.used = true;
    return &found->second;
  }
};

std::string role_of(const Message& message, const Field& field) {
  for (const auto& [word, role] : roles)
    if (field.text == word) return std::string(role);
  fail("{}: the role '{}' is unknown; it must be human (user), assistant (gpt) or system{}", message.place(), field.text.substr(0, 40),
       field.text == "tool" || field.text == "function" || field.text == "observation" || field.text == "ipython"
           ? ", because results of tools cannot be written by a prompt template"
           : "");
}

/// The text of a message; of a list of parts those of text, put together.
std::string content_of(const Message& message, const Field& field) {
  require(!field.is_null(), "{} has no text; give it one, or take the record out", message.place());
  if (!field.is_list()) {
    require(!field.is_object(), "{}: its text must be a text or a list of parts, not {}", message.place(), field.text.substr(0, 40));
    return field.text;
  }
  std::string text;
  for (const Field& element : json_elements(field.text)) {
    require(element.is_object(), "{}: a part of its content must be an object with 'type' and 'text', not {}", message.place(),
            element.text.substr(0, 40));
    const Keys part = json_members(element.text);
    const auto type = part.find("type"), words = part.find("text");
    require(words != part.end() && !words->second.is_json && (type == part.end() || type->second.text == "text"),
            "{}: a part of its content is '{}'; only text can be learned, so take the record out", message.place(),
            type == part.end() ? element.text.substr(0, 40) : type->second.text);
    text += words->second.text;
    for (const auto& [key, value] : part)
      if (key != "type" && key != "text" && !says_nothing(value))
        message.record.unused_keys.insert(fmt::format("{}[].content[].{}", message.list, key));
  }
  return text;
}

std::optional<bool> truth(const Field& field) {
  for (const std::string_view yes : {"true", "1", "1.0"})
    if (field.text == yes) return true;
  for (const std::string_view no : {"false", "0", "0.0"})
    if (field.text == no) return false;
  return std::nullopt;
}

/// Whether the message says that it is learned, or not; nothing where it does not say.
std::optional<bool> learned_of(const Message& message, const std::string& role) {
  std::optional<bool> learned;
  for (const std::string_view key : learn_keys) {
    const Field* field = message.find(key);
    if (!field || field->is_null()) continue;
    const auto value = truth(*field);
    require(value.has_value(), "{}: '{}' is {}; an answer is learned (1, true) or not (0, false), so take the record out or round it",
            message.place(), key, field->text.substr(0, 40));
    require(!learned || *learned == *value, "{}: '{}' contradicts another key about whether it is learned; take one out", message.place(),
            key);
    require(role == "assistant" || !*value || key == "weight",
            "{}: '{}' says that a message of the role '{}' is learned, but only the assistant's are; set it to false", message.place(), key,
            role);
    learned = value;
  }
  return learned;
}

Turn turn_of(Message message) {
  const bool share = message.keys.contains("from");
  const Field* role = message.find(share ? "from" : "role");
  const Field* text = message.find(share ? "value" : "content");
  for (const auto& [key, why] : refused_keys) {
    const Field* field = message.find(key);
    require(!field || says_nothing(*field), "{} has '{}': {}; take the record out", message.place(), key, why);
  }
  require(role && !role->is_json && text, "{} needs the texts 'from' and 'value', or 'role' and 'content'", message.place());
  Turn turn{role_of(message, *role), content_of(message, *text), std::nullopt};
  turn.learned = learned_of(message, turn.role);
  for (const auto& [key, field] : message.keys)
    if (!field.used && !says_nothing(field)) message.record.unused_keys.insert(fmt::format("{}[].{}", message.list, key));
  return turn;
}

bool is_message(const Field& field) {
  if (!field.is_object()) return false;
  const Keys keys = json_members(field.text);
  return keys.contains("role") || keys.contains("from");
}

Said said_by(const Record& record, std::string_view name, const Field& field) {
  require(!field.is_null(), "{}: '{}' has an answer that is null; give it a value or take the record out", record.place(), name);
  if (!field.is_object() && !field.is_list()) return {field.text, {}};
  const std::vector<Turn> turns = messages_of(record, name, field);
  require(!turns.empty(), "{}: '{}' must be a text or a list of messages, not an empty list", record.place(), name);
  return {"", turns};
}

}  // namespace

std::vector<Turn> messages_of(const Record& record, std::string_view name, const Field& field) {
  std::vector<Turn> turns;
  require(field.is_object() || field.is_list(), "{}: the field '{}' must be a list of messages", record.place(), name);
  const std::vector<Field> list = field.is_object() ? std::vector<Field>{field} : json_elements(field.text);
  for (const Field& element : list) {
    const std::size_t number = turns.size() + 1;
    require(element.is_object(), "{}: message {} of '{}' needs the texts 'from' and 'value', or 'role' and 'content'", record.place(),
            number, name);
    turns.push_back(turn_of({record, name, number, json_members(element.text)}));
  }
  return turns;
}

std::vector<Said> all_said(const Record& record, std::string_view name) {
  const Field& field = record.field(name);
  if (!field.is_list()) return {said_by(record, name, field)};
  const std::vector<Field> list = json_elements(field.text);
  if (list.empty() || is_message(list.front())) return {said_by(record, name, field)};
  std::vector<Said> all;
  for (const Field& element : list) all.push_back(said_by(record, name, element));
  return all;
}

Said said(const Record& record, std::string_view name) {
  std::vector<Said> all = all_said(record, name);
  require(all.size() == 1, "{}: the field '{}' holds {} texts where one is expected", record.place(), name, all.size());
  return std::move(all.front());
}

}  // namespace collimate
