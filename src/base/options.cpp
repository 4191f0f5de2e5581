#include "collimate/base/options.hpp"

#include <algorithm>
#include <boost/program_options.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "base/option_text.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/file_kind.hpp"
#include "collimate/base/text.hpp"

namespace po = boost::program_options;

namespace collimate {

Range any() { return {}; }
Range at_least(double low) { return {.low = low}; }
Range more_than(double low) { return {.low = low, .low_included = false}; }
Range between(double low, double high) { return {.low = low, .high = high}; }
Range at_least_below(double low, double high) { return {.low = low, .high = high, .high_included = false}; }
Range zero_or_between(double low, double high) { return {.low = low, .high = high, .or_zero = true}; }
Range one_of(std::vector<std::string> words) { return {.words = std::move(words)}; }
Range path_to_write() { return {.to_write = true}; }

std::string Range::text() const {
  if (!words.empty()) return "one of " + join(words, ", ");
  if (low && high && low_included && high_included) return fmt::format("{}..{}", *low, *high);
  std::string out;
  if (low) out = fmt::format("{} {}", low_included ? ">=" : ">", *low);
  if (high) out += fmt::format("{}{} {}", low ? " and " : "", high_included ? "<=" : "<", *high);
  return out;
}

struct OptionTable::Option {
  std::string name, help, unit;
  Target target;
  Range range;
  std::string initial;  ///< the default, as text
  std::string place;    ///< where the value came from: "deck.ini:12"; empty for the default
  bool in_deck = true;

  std::string section() const { return name.find('.') == std::string::npos ? "" : name.substr(0, name.find('.')); }
  std::string text() const;
  void assign(const std::vector<std::string>& given) const;
  void refuse(const std::string& given, const std::string& why) const;
  void check(const std::string& given, double number) const;
  void check_word(const std::string& word) const;
  void check_path(const std::string& path) const;
  std::string wanted() const;
};

struct OptionTable::State {
  std::vector<std::unique_ptr<Option>> options;
  std::map<std::string, Option*> by_name;
  po::options_description description;
  po::positional_options_description positionals;
  po::variables_map values;
  std::map<std::string, std::string> names_now;  ///< of options that had another name
  std::string wordless;  ///< the option that a word without one is meant for
};

void OptionTable::renamed(const std::string& before, const std::string& name) { state_->names_now[before] = name; }

std::string OptionTable::hint_for(const std::string& unknown, const std::string& dashes) const {
  if (const auto now = state_->names_now.find(unknown); now != state_->names_now.end()) return fmt::format("it is {}{} now", dashes, now->second);
  const std::string suggestion = did_you_mean(unknown, names(), dashes);
  return suggestion.empty() ? "--help lists all of them" : suggestion;
}

std::string OptionTable::Option::text() const {
  return std::visit(
      [&](auto* variable) -> std::string {
        using T = std::remove_pointer_t<decltype(variable)>;
        if constexpr (std::is_same_v<T, std::vector<std::string>>) return join(*variable, ", ");
        else if constexpr (std::is_same_v<T, std::int64_t>) return unit == "bytes" ? exact_bytes(*variable) : fmt::format("{}", *variable);
        else return fmt::format("{}", *variable);  // the shortest text that reads back to the same double
      },
      target);
}

std::string OptionTable::Option::wanted() const {
  if (!range.words.empty()) return range.text();
  std::string kind = std::visit(
      [](auto* variable) -> std::string {
        using T = std::remove_pointer_t<decltype(variable)>;
        if constexpr (std::is_same_v<T, bool>) return "true or false";
        else if constexpr (std::is_same_v<T, std::int64_t>) return "integer";
        else if constexpr (std::is_same_v<T, double>) return "number";
        else if constexpr (std::is_same_v<T, std::string>) return "text";
        else return "list";
      },
      target);
  if (unit == "bytes") kind = "size such as 512MiB";
  if (range.to_write) kind = "path";
  if (const std::string bounds = range.text(); !bounds.empty()) kind += " " + bounds;
  if (range.or_zero) kind = "0 or " + kind;
  return unit.empty() || unit == "bytes" ? kind : fmt::format("{} ({})", kind, unit);
}

void OptionTable::Option::refuse(const std::string& given, const std::string& why) const {
  fail("{}: {} = {} {}; expected: {}", place, name, given, why, wanted());
}

void OptionTable::Option::check(const std::string& given, double number) const {
  const bool low_ok = !range.low || (range.low_included ? number >= *range.low : number > *range.low);
  if (range.or_zero && number == 0) return;
  const bool high_ok = !range.high || (range.high_included ? number <= *range.high : number < *range.high);
  if (!low_ok || !high_ok) refuse(given, "is out of range");
}

void OptionTable::Option::check_word(const std::string& word) const {
  const auto& words = range.words;
  if (words.empty() || std::find(words.begin(), words.end(), word) != words.end()) return;
  const std::string suggestion = did_you_mean(word, words);
  refuse(word, suggestion.empty() ? "is unknown" : fmt::format("is unknown ({})", suggestion));
}

void OptionTable::Option::check_path(const std::string& path) const {
  const std::filesystem::path parts(path);
  const bool home = path.starts_with('~') || std::find(parts.begin(), parts.end(), "~") != parts.end();
  require(!home && path.find('$') == std::string::npos, "{}: {} = {}: ~ and $ have no meaning in a path here, so write it out", place, name, path);
}

void OptionTable::Option::assign(const std::vector<std::string>& given) const {
  const std::string& word = given.back();
  if (auto* const* flag = std::get_if<bool*>(&target)) {
    if (!read_bool(word, **flag)) refuse(word, "is neither true nor false");
  } else if (auto* const* whole = std::get_if<std::int64_t*>(&target)) {
    std::int64_t number = 0;
    if (!(unit == "bytes" ? read_bytes(word, number) : read_whole(word, number)))
      refuse(word, unit == "bytes" ? "is not a size" : "is not an integer");
    check(word, static_cast<double>(number));
    **whole = number;
  } else if (auto* const* real = std::get_if<double*>(&target)) {
    double number = 0.0;
    if (!read_real(word, number)) refuse(word, "is not a number");
    check(word, number);
    **real = number;
  } else if (auto* const* text = std::get_if<std::string*>(&target)) {
    check_word(word);
    if (range.to_write) check_path(word);
    **text = word;
  } else {
    std::vector<std::string> all;
    for (const std::string& part : given)
      for (std::string& element : split(part, ',')) {
        if (element.empty()) refuse(part, "has an empty element");
        check_word(element);
        all.push_back(std::move(element));
      }
    *std::get<std::vector<std::string>*>(target) = std::move(all);
  }
}

OptionTable::OptionTable() : state_(std::make_unique<State>()) {}
OptionTable::OptionTable(OptionTable&&) noexcept = default;
OptionTable& OptionTable::operator=(OptionTable&&) noexcept = default;
OptionTable::~OptionTable() = default;

void OptionTable::add_target(std::string name, Target target, std::string help, Range range, std::string unit) {
  ensure(!state_->by_name.contains(name), "the option {} was declared twice", name);
  auto option = std::make_unique<Option>(Option{name, std::move(help), std::move(unit), target, std::move(range), "", "", true});
  option->initial = option->text();
  // Boost gets text and gives text: the checks and their sentences are ours.
  state_->description.add_options()(name.c_str(), po::value<std::vector<std::string>>());
  state_->by_name[name] = option.get();
  state_->options.push_back(std::move(option));
}

OptionTable::Option& OptionTable::find(const std::string& name) const {
  const auto found = state_->by_name.find(name);
  ensure(found != state_->by_name.end(), "the option {} was not declared", name);
  return *found->second;
}

void OptionTable::command_line_only(const std::vector<std::string>& names) {
  for (const std::string& name : names) find(name).in_deck = false;
}

void OptionTable::positional(const std::string& name, int count) {
  command_line_only({name});
  state_->positionals.add(name.c_str(), count);
}

namespace {

/// What Boost would misread: "--flag" becomes "--flag=true", "--flag false" one word, "--name=" two words, the second one empty.
template <class IsFlag>
std::vector<std::string> spelled_out(const std::vector<std::string>& arguments, IsFlag&& is_flag) {
  std::vector<std::string> words;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word.starts_with("--") && is_flag(word.substr(2))) {
      bool value = true;
      if (i + 1 < arguments.size() && read_bool(arguments[i + 1], value)) ++i;
      words.push_back(fmt::format("{}={}", word, value));
    } else if (word.starts_with("--") && word.find('=') == word.size() - 1) {
      words.push_back(word.substr(0, word.size() - 1));
      words.emplace_back();
    } else {
      words.push_back(word);
    }
  }
  return words;
}

}  // namespace

void OptionTable::words_are_for(const std::string& name) { state_->wordless = find(name).name; }

void OptionTable::refuse_stray_word(const std::vector<std::string>& words) const {
  const std::string option = "--" + state_->wordless;
  const auto is_given = [&](const std::string& word) { return word == option || word.starts_with(option + "="); };
  std::size_t taken = state_->positionals.max_total_count(), i = 0;
  for (; i < words.size(); ++i) {
    if (words[i].starts_with("--"))
      i += words[i].find('=') == std::string::npos;
    else if (taken-- == 0)
      break;
  }
  const std::string word = shell_word(words.at(i));
  if (!state_->wordless.empty() && std::none_of(words.begin(), words.end(), is_given))
    fail("command line: {} has no option in front of it; give it as {} {}", word, option, word);
  fail("command line: {} has no option in front of it; values are given as --name=value, in quotes where they contain spaces", word);
}

void OptionTable::read_arguments(const std::vector<std::string>& arguments) {
  const std::vector<std::string> words = spelled_out(arguments, [&](const std::string& name) {
    const auto known = state_->by_name.find(name);
    return known != state_->by_name.end() && std::holds_alternative<bool*>(known->second->target);
  });
  try {
    using namespace po::command_line_style;
    const auto parsed = po::command_line_parser(words)
                            .options(state_->description)
                            .positional(state_->positionals)
                            .style(allow_long | long_allow_adjacent | long_allow_next)  // no guessing of prefixes
                            .run();
    for (const auto& option : parsed.options)
      if (!option.string_key.empty()) find(option.string_key).place = "command line";
    po::store(parsed, state_->values);
  } catch (const po::unknown_option& error) {
    const std::string typed = error.get_option_name();
    const std::size_t begin = std::min(typed.find_first_not_of('-'), typed.size());
    const std::string name = typed.substr(begin, typed.find('=') - begin);
    fail("command line: there is no option --{}; {}", name, hint_for(name, "--"));
  } catch (const po::too_many_positional_options_error&) {
    refuse_stray_word(words);
  } catch (const po::error_with_option_name& error) {
    const std::string name = error.get_option_name();
    fail("command line: {} has no value; give it as {}=value", name, name);
  } catch (const po::error&) {
    fail("command line: it cannot be read; options are given as --name=value");
  }
  assign_all();
}

void OptionTable::read_deck_file(const std::string& path) {
  require(!std::filesystem::is_directory(path), "the deck '{}' is a folder; give the deck's file", path);
  require_file_kind(path, {FileKind::text, FileKind::empty}, "a deck, a text file with [section] and key = value,");
  std::ifstream file(path, std::ios::binary);
  require(file.good(), "cannot open the deck '{}': {}", path, std::strerror(errno));
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  require(!file.bad(), "cannot read the deck '{}'; is it a file?", path);
  read_deck(text, path);
}

void OptionTable::read_deck(std::string_view text, const std::string& file) {
  po::parsed_options parsed(&state_->description);
  std::map<std::string, int> seen;
  for (DeckLine& line : read_deck_lines(text, file)) {
    const std::string name = line.section.empty() ? line.key : line.section + "." + line.key;
    const auto found = state_->by_name.find(name);
    require(found != state_->by_name.end(), "{}:{}: there is no option {}; {}", file, line.line, name,
            hint_for(name));
    Option& option = *found->second;
    require(option.in_deck, "{}:{}: {} is an option of the command line and cannot stand in a deck", file, line.line, name);
    const auto [first, fresh] = seen.emplace(name, line.line);
    require(fresh, "{}:{}: {} was set on line {} already; keep one", file, line.line, name, first->second);
    if (option.place != "command line") option.place = fmt::format("{}:{}", file, line.line);
    po::option entry(name, {std::move(line.value)});
    parsed.options.push_back(std::move(entry));
  }
  po::store(parsed, state_->values);  // what is stored already, from the command line, stays
  assign_all();
}

void OptionTable::assign_all() {
  po::notify(state_->values);
  for (const auto& option : state_->options) {
    const po::variable_value& value = state_->values[option->name];
    if (value.empty()) continue;
    option->assign(value.as<std::vector<std::string>>());
  }
}

bool OptionTable::given(const std::string& name) const { return !find(name).place.empty(); }

bool OptionTable::changed(const std::string& name) const { return given(name) && find(name).text() != find(name).initial; }

std::vector<std::string> OptionTable::names() const {
  std::vector<std::string> all;
  for (const auto& option : state_->options) all.push_back(option->name);
  return all;
}

std::string OptionTable::value(const std::string& name) const { return find(name).text(); }

namespace {

/// Sections in order of first declaration; the options without one come first, as an INI file demands.
template <class Options>
std::vector<std::string> sections_of(const Options& options) {
  std::vector<std::string> sections = {""};
  for (const auto& option : options)
    if (std::find(sections.begin(), sections.end(), option->section()) == sections.end()) sections.push_back(option->section());
  return sections;
}

}  // namespace

std::string OptionTable::help_text(const std::string& wanted_section) const {
  const auto as_given = [](const Option& option) {  // in a deck, or on a command line
    return option.section().empty() ? shell_word(option.initial) : deck_value(option.initial);
  };
  std::string out;
  const std::vector<std::string> sections = sections_of(state_->options);
  require(wanted_section.empty() || std::find(sections.begin(), sections.end(), wanted_section) != sections.end(),
          "there is no section [{}]; the sections are {}", wanted_section, join({sections.begin() + 1, sections.end()}, ", "));
  for (const std::string& section : sections) {
    if (!wanted_section.empty() && section != wanted_section) continue;
    if (!section.empty()) out += fmt::format("\n[{}]\n", section);
    for (const auto& option : state_->options) {
      if (option->section() != section) continue;
      const std::string initial = option->initial.empty() ? "" : fmt::format("; default {}", as_given(*option));
      out += fmt::format("  --{:<28} {}\n  {:<30} {}{}\n", option->name, option->help, "", option->wanted(), initial);
    }
  }
  return out;
}

std::string OptionTable::resolved_deck(const std::vector<std::string>& excluded_prefixes) const {
  const auto kept = [&](const Option& option) {
    const auto starts = [&](const std::string& prefix) { return option.name.starts_with(prefix); };
    return option.in_deck && std::none_of(excluded_prefixes.begin(), excluded_prefixes.end(), starts);
  };
  std::string out;
  for (const std::string& section : sections_of(state_->options)) {
    std::string body;
    for (const auto& option : state_->options)
      if (option->section() == section && kept(*option))
        body += fmt::format("{} = {}\n", option->name.substr(section.empty() ? 0 : section.size() + 1), deck_value(option->text()));
    if (!body.empty() && !section.empty()) out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
    out += body;
  }
  return out;
}

}  // namespace collimate
