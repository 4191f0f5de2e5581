#include "data/template_text.hpp"

#include <algorithm>
#include <optional>

#include "collimate/base/error.hpp"

// The texts of prompts and responses.
namespace collimate {
namespace {

std::string_view trailing_blanks(std::string_view text) {
  const std::size_t last = text.find_last_not_of(" \t\n");
  return last == std::string_view::npos ? text : text.substr(last + 1);
}

// UTF-8 of what Python's str.isspace() holds for white space.
constexpr std::string_view white[] = {
    "\t",           "\n",           "\v",           "\f",           "\r",           "\x1c",         "\x1d",         "\x1e",
    "\x1f",         " ",            "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82",
    "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a",
    "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};

}  // namespace

std::string_view strip(std::string_view text) {
  for (bool found = true; found;) {
    found = false;
    for (const std::string_view blank : white) {
      if (text.starts_with(blank)) text.remove_prefix(blank.size()), found = true;
      if (text.ends_with(blank)) text.remove_suffix(blank.size()), found = true;
    }
  }
  return text;
}

TemplateText& TemplateText::add_own(std::string_view words) {
  if (words.empty()) return *this;
  if (own.empty() || own.back().end < text.size()) own.push_back({text.size(), text.size()});
  text += words;
  own.back().end = text.size();
  return *this;
}

TemplateText& TemplateText::add_data(std::string_view words) {
  text += words;
  return *this;
}

TemplateText& TemplateText::add(const TemplateText& other) {
  std::size_t at = 0;
  for (const TextRange& range : other.own) {
    add_data(std::string_view(other.text).substr(at, range.begin - at));
    add_own(std::string_view(other.text).substr(range.begin, range.end - range.begin));
    at = range.end;
  }
  return add_data(std::string_view(other.text).substr(at));
}

TemplateText& TemplateText::trim() {
  const std::string_view rest = strip(text);
  const std::size_t begin = rest.data() - text.data(), end = begin + rest.size();
  std::vector<TextRange> left;
  for (const TextRange& range : own)
    if (const TextRange part{std::max(range.begin, begin), std::min(range.end, end)}; part.begin < part.end)
      left.push_back({part.begin - begin, part.end - begin});
  text = std::string(rest);
  own = std::move(left);
  return *this;
}

TemplateText render(std::string_view text, const std::function<std::string(std::string_view field)>& lookup) {
  TemplateText out;
  std::optional<TemplateText> before_part;
  bool part_empty = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = text.substr(i);
    if (rest.starts_with("{{") || rest.starts_with("}}")) {
      out.add_own(text.substr(i++, 1));
    } else if (rest.starts_with("[[")) {
      require(!before_part, "the template '{}' opens [[ inside [[", text);
      before_part = out;
      part_empty = false;
      ++i;
    } else if (rest.starts_with("]]") && before_part) {
      if (part_empty) out = *before_part;
      before_part.reset();
      ++i;
    } else if (text[i] == '{') {
      const std::size_t end = text.find('}', i);
      require(end != std::string_view::npos, "the template '{}' opens a {{ that it does not close; write {{{{ for a brace", text);
      const std::string value = lookup(text.substr(i + 1, end - i - 1));
      part_empty = part_empty || value.empty();
      out.add_data(value);
      i = end;
    } else {
      out.add_own(text.substr(i, 1));
    }
  }
  require(!before_part, "the template '{}' opens a [[ that it does not close", text);
  return out;
}

bool ChatForm::trims_text_of(std::string_view role) const { return std::find(trims.begin(), trims.end(), role) != trims.end(); }

/// The dialogue of a prompt as its model has it: with its default system turn, and a prompt that is no dialogue as a user's turn.
std::vector<Turn> Template::turns_of(const Example& example) const {
  std::vector<Turn> turns = example.turns;
  if (turns.empty())
    turns.push_back({"human", render(prompt, [&](std::string_view field) { return field == "input" ? example.input : example.prompt; }).text});
  if (!example.system.empty()) turns.insert(turns.begin(), {"system", example.system});
  if (chat.default_system && turns.front().role != "system") turns.insert(turns.begin(), {"system", *chat.default_system});
  if (chat.skips_empty_system) std::erase_if(turns, [](const Turn& turn) { return turn.role == "system" && turn.text.empty(); });
  if (!chat.alternates) return turns;
  const std::size_t first = chat.system_place != ChatForm::System::refused && turns.front().role == "system";
  for (std::size_t i = first; i < turns.size(); ++i)
    require(turns[i].role == ((i - first) % 2 == 0 ? "human" : "assistant"),
            "{}: turn {} of the dialogue is of the role {}, but the chat template '{}' takes {}human, assistant, human ... in turn; take the "
            "record out, or join its turns",
            example.place.empty() ? "the prompt" : example.place, i + 1, turns[i].role, chat.name,
            chat.system_place == ChatForm::System::refused ? "no system turn, but " : "");
  return turns;
}

TemplateText Template::question(const Turn& turn, const Turn* first) const {
  TemplateText words;
  if (first != nullptr)
    words.add_own(system).add_data(chat.trims_text_of("system") ? strip(first->text) : first->text).add_own(chat.system_suffix);
  const bool whole = first != nullptr && chat.trims_text_of("question");
  words.add_data(!whole && chat.trims_text_of("human") ? strip(turn.text) : turn.text);
  return whole ? words.trim() : words;
}

TemplateText Template::prompt_text(const Example& example) const {
  TemplateText out;
  out.plain = example.is_text || example.complete;
  if (example.is_text) return out;
  if (example.complete) return out.add_data(example.prompt);
  if (!is_dialogue(example))
    return render(prompt, [&](std::string_view field) { return field == "input" ? example.input : example.prompt; });
  const std::vector<Turn> turns = turns_of(example);
  const bool in_question = chat.system_place == ChatForm::System::in_question || chat.system_place == ChatForm::System::in_last_question;
  const Turn* into = in_question && turns.front().role == "system" && turns.size() > 1 ? &turns.front() : nullptr;
  const std::size_t place = chat.system_place == ChatForm::System::in_question ? 1 : turns.size() - 1;
  for (std::size_t i = into != nullptr; i < turns.size(); ++i) {
    const std::string_view role = turns[i].role;
    const std::string& own_system = i == 0 && !chat.first_system.empty() ? chat.first_system : system;
    out.add_own(role == "human" ? human : role == "system" ? own_system : assistant);
    if (role == "human") out.add(question(turns[i], i == place ? into : nullptr)).add_own(chat.human_suffix);
    else if (role == "system") out.add_data(chat.trims_text_of(role) ? strip(turns[i].text) : turns[i].text).add_own(chat.system_suffix);
    else out.add_data(chat.trims_text_of(role) ? strip(turns[i].text) : turns[i].text).add_own(chat.assistant_suffix);
    out.add_own(turn_suffix);
  }
  const std::string_view blanks = trailing_blanks(assistant);
  return out.add_own(chat.cue_keeps_blanks ? assistant : std::string_view(assistant).substr(0, assistant.size() - blanks.size()));
}

TemplateText Template::response_text(const Example& example, std::string_view answer) const {
  TemplateText out;
  out.plain = example.is_text;
  if (example.is_text) return out.add_data(answer);
  if (is_dialogue(example) && !chat.cue_keeps_blanks) out.add_own(trailing_blanks(assistant));
  return out.add_own(response_prefix).add_data(chat.trims_text_of("assistant") ? strip(answer) : answer).add_own(response_suffix);
}

}  // namespace collimate
