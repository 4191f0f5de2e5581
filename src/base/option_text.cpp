#include "base/option_text.hpp"

#include <charconv>
#include <cmath>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"

namespace collimate {
namespace {

/// A deck has no comment behind a value: it would become a part of the value, or the value's # would be lost.
void refuse_comment(std::string_view value, const std::string& file, int line) {
  fail("{}:{}: a comment stands on a line of its own, and '{}' has # after a space; move the comment, or, where # belongs to the value, put "
       "the whole value into double quotes",
       file, line, value);
}

/// Whether a # stands first or behind a blank.
bool looks_commented(std::string_view value) {
  for (std::size_t i = 0; i < value.size(); ++i)
    if (value[i] == '#' && (i == 0 || value[i - 1] == ' ' || value[i - 1] == '\t')) return true;
  return false;
}

/// The text inside double quotes with its escapes resolved.
std::string unquote(std::string_view text, const std::string& file, int line) {
  std::string out;
  std::size_t i = 1;
  for (; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const char escape = ++i < text.size() ? text[i] : ' ';
    switch (escape) {
      case 'n': out += '\n'; break;
      case 't': out += '\t'; break;
      case 'r': out += '\r'; break;
      case '"':
      case '\\': out += escape; break;
      default: fail("{}:{}: \\{} is not an escape sequence; write \\n, \\t, \\r, \\\" or \\\\ inside double quotes", file, line, escape);
    }
  }
  if (i + 1 < text.size() && looks_commented(text.substr(i + 1))) refuse_comment(text, file, line);
  require(i + 1 == text.size(), "{}:{}: a value that starts with a double quote must end with one, and hold others as \\\"", file, line);
  return out;
}

template <class T>
bool read_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::vector<DeckLine> read_deck_lines(std::string_view text, const std::string& file) {
  std::vector<DeckLine> lines;
  std::string section;
  require(text.find('\0') == std::string_view::npos, "'{}' is not UTF-8 text; save the deck as UTF-8", file);
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // the byte order mark of some editors
  for (int line = 1; !text.empty(); ++line) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view whole = trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (whole.empty() || whole[0] == '#') continue;
    if (whole[0] == '[') {
      if (whole.back() != ']' && looks_commented(whole)) refuse_comment(whole, file, line);
      require(whole.back() == ']' && whole.size() > 2, "{}:{}: '{}' is not a section; write [name]", file, line, whole);
      section = trim(whole.substr(1, whole.size() - 2));
      continue;
    }
    const std::size_t equals = whole.find('=');
    require(equals != std::string_view::npos && equals > 0, "{}:{}: '{}' is neither [section], key = value nor a comment, which starts with #",
            file, line, whole);
    const std::string_view value = trim(whole.substr(equals + 1));
    if (!value.starts_with('"') && looks_commented(value)) refuse_comment(value, file, line);
    require(value.size() < 2 || value[0] != '\'' || value.find('\'', 1) + 1 != value.size(),
            "{}:{}: {} would keep its single quotes; write the value without quotes, or into double quotes", file, line, value);
    lines.push_back({section, std::string(trim(whole.substr(0, equals))),
                     value.starts_with('"') ? unquote(value, file, line) : std::string(value), line});
  }
  return lines;
}

std::string deck_value(const std::string& value) {
  const bool plain = trim(value) == value && !value.starts_with('"') && !looks_commented(value) && value.find_first_of("\n\r") == std::string::npos;
  if (plain) return value;
  std::string out = "\"";
  for (const char c : value) switch (c) {
      case '\n': out += "\\n"; break;
      case '\t': out += "\\t"; break;
      case '\r': out += "\\r"; break;
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      default: out += c;
    }
  return out + '"';
}

bool read_whole(std::string_view text, std::int64_t& value) { return read_number(trim(text), value); }

bool read_real(std::string_view text, double& value) { return read_number(trim(text), value) && std::isfinite(value); }

bool read_bool(std::string_view text, bool& value) {
  text = trim(text);
  const bool yes = text == "true" || text == "yes" || text == "on" || text == "1";
  const bool no = text == "false" || text == "no" || text == "off" || text == "0";
  if (yes || no) value = yes;
  return yes || no;
}

}  // namespace collimate
