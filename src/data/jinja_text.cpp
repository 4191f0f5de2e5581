#include "data/jinja_text.hpp"

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <vector>

namespace collimate {
namespace {

constexpr std::string_view blanks = " \t\n\r\f\v";
constexpr char quote = '\x02', break_mark = '\x1e';  // around words; between items

enum class ItemKind { words, print, block };
using Tokens = std::vector<std::string>;  // a quoted word begins with `quote`

struct Item {
  ItemKind kind;
  std::string words;  // of ItemKind::words
  Tokens tokens;      // of the others
};

bool is_name(std::string_view token) { return !token.empty() && (std::isalpha(static_cast<unsigned char>(token[0])) || token[0] == '_'); }

/// What stands between quotes, without its escapes. `at` is behind the opening quote, and behind the closing one afterwards.
std::optional<std::string> quoted(std::string_view text, std::size_t& at, char mark) {
  std::string out;
  while (at < text.size() && text[at] != mark) {
    if (text[at] != '\\' || at + 1 == text.size()) {
      out += text[at++];
      continue;
    }
    const char next = text[at + 1];
    at += 2;
    switch (next) {
      case 'n': out += '\n'; break;
      case 't': out += '\t'; break;
      case 'r': out += '\r'; break;
      case '\'': case '"': case '\\': out += next; break;
      default: out += '\\', out += next;
    }
  }
  if (at == text.size()) return std::nullopt;
  ++at;
  return out;
}

/// The tokens up to the end of a tag ("}}" or "%}", perhaps with a sign in front); `at` is behind it afterwards.
std::optional<Tokens> tag_tokens(std::string_view text, std::size_t& at, std::string_view end, bool& trims_behind) {
  Tokens tokens;
  int open = 0;  // braces of a dictionary, which may end in }}
  while (at < text.size()) {
    const std::string_view rest = text.substr(at);
    if (blanks.find(rest[0]) != std::string_view::npos) {
      ++at;
    } else if (open == 0 && (rest.starts_with(end) || ((rest[0] == '-' || rest[0] == '+') && rest.substr(1).starts_with(end)))) {
      trims_behind = rest[0] == '-';
      at += end.size() + (rest[0] == '-' || rest[0] == '+');
      return tokens;
    } else if (rest[0] == '\'' || rest[0] == '"') {
      ++at;
      const auto word = quoted(text, at, rest[0]);
      if (!word) return std::nullopt;
      tokens.push_back(quote + *word);
    } else if (is_name(rest) || std::isdigit(static_cast<unsigned char>(rest[0]))) {
      std::size_t n = 1;
      while (n < rest.size() && (std::isalnum(static_cast<unsigned char>(rest[n])) || rest[n] == '_')) ++n;
      tokens.emplace_back(rest.substr(0, n));
      at += n;
    } else {
      open += (rest[0] == '{') - (rest[0] == '}');
      const std::string_view two = rest.substr(0, 2);
      const bool pair = two == "==" || two == "!=" || two == "<=" || two == ">=" || two == "//" || two == "**";
      tokens.emplace_back(rest.substr(0, pair ? 2 : 1));
      at += pair ? 2 : 1;
    }
  }
  return std::nullopt;
}

/// x['name'] as x.name, x.strip() as x | trim, and no brackets around the whole condition of an `if`.
Tokens plain(Tokens tokens) {
  Tokens out;
  const Tokens strip = {".", "strip", "(", ")"};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i + 4 <= tokens.size() && std::equal(strip.begin(), strip.end(), tokens.begin() + static_cast<std::ptrdiff_t>(i))) {
      out.insert(out.end(), {"|", "trim"});
      i += 3;
      continue;
    }
    const bool behind = !out.empty() && (is_name(out.back()) || out.back() == "]" || out.back() == ")");
    const bool item = behind && i + 2 < tokens.size() && tokens[i] == "[" && tokens[i + 1][0] == quote && tokens[i + 2] == "]";
    if (item && is_name(std::string_view(tokens[i + 1]).substr(1)) && tokens[i + 1].find_first_of("-. ") == std::string::npos) {
      out.insert(out.end(), {".", tokens[i + 1].substr(1)});
      i += 2;
    } else {
      out.push_back(std::move(tokens[i]));
    }
  }
  if (out.size() < 4 || (out[0] != "if" && out[0] != "elif") || out[1] != "(" || out.back() != ")") return out;
  int depth = 0;
  for (std::size_t i = 1; i + 1 < out.size(); ++i) {
    depth += (out[i] == "(") - (out[i] == ")");
    if (depth == 0) return out;
  }
  out.erase(out.begin() + 1);
  out.pop_back();
  return out;
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text.ends_with('\n') ? text.substr(0, text.size() - 1) : text) {}

  bool read() {
    bool trims = false, line_start = true;
    for (std::size_t at = 0; at < text_.size();) {
      const std::size_t tag = next_tag(at);
      std::string_view words = text_.substr(at, tag - at);
      if (trims) words.remove_prefix(std::min(words.find_first_not_of(blanks), words.size()));
      const bool starts_line = line_start && !trims;
      at = tag;
      if (at == text_.size()) {
        add_words(words);
        break;
      }
      const char kind = text_[at + 1];
      at += 2;
      const char sign = at < text_.size() ? text_[at] : ' ';
      at += sign == '-' || sign == '+';
      add_words(sign == '-' ? words.substr(0, words.find_last_not_of(blanks) + 1) : sign == '+' || kind == '{' ? words : before_block(words, starts_line));
      if (!read_tag(at, kind, trims)) return false;
      line_start = false;
      if (kind != '{' && !trims && at < text_.size() && text_[at] == '\n') ++at, line_start = true;
    }
    return true;
  }
  std::vector<Item> items;

 private:
  std::size_t next_tag(std::size_t from) const {
    for (std::size_t i = from; i + 1 < text_.size(); ++i)
      if (text_[i] == '{' && (text_[i + 1] == '{' || text_[i + 1] == '%' || text_[i + 1] == '#')) return i;
    return text_.size();
  }
  /// Blanks between a line's begin and a block go away.
  static std::string_view before_block(std::string_view words, bool starts_line) {
    const std::size_t line = words.rfind('\n') + 1;
    const bool only_blanks = words.find_first_not_of(" \t", line) == std::string_view::npos;
    return only_blanks && (line > 0 || starts_line) ? words.substr(0, line) : words;
  }
  bool read_tag(std::size_t& at, char kind, bool& trims) {
    if (kind == '#') {
      const std::size_t end = text_.find("#}", at);
      if (end == std::string_view::npos) return false;
      trims = end > at && text_[end - 1] == '-';
      at = end + 2;
      return true;
    }
    auto tokens = tag_tokens(text_, at, kind == '{' ? "}}" : "%}", trims);
    if (!tokens) return false;
    if (kind == '{') add_print(plain(std::move(*tokens)));
    else items.push_back({ItemKind::block, "", plain(std::move(*tokens))});
    return true;
  }
  void add_words(std::string_view words) {
    if (words.empty()) return;
    if (items.empty() || items.back().kind != ItemKind::words) items.push_back({ItemKind::words, "", {}});
    items.back().words += words;
  }
  /// 'a' + b + 'c' prints the words a, then b, then the words c.
  void add_print(const Tokens& tokens) {
    std::vector<Tokens> parts(1);
    int depth = 0;
    bool has_words = false, is_sum = true;
    for (const std::string& token : tokens) {
      depth += (token == "(" || token == "[" || token == "{") - (token == ")" || token == "]" || token == "}");
      if (depth == 0 && token == "+") {
        parts.emplace_back();
        continue;
      }
      is_sum = is_sum && !(depth == 0 && (token == "if" || token == "and" || token == "or" || token == "~" || token == "==" || token == "in"));
      has_words = has_words || token[0] == quote;
      parts.back().push_back(token);
    }
    if (!has_words || !is_sum) parts = {tokens};
    for (Tokens& part : parts) {
      if (part.size() == 1 && part[0][0] == quote) add_words(std::string_view(part[0]).substr(1));
      else items.push_back({ItemKind::print, "", std::move(part)});
    }
  }
  std::string_view text_;
};

bool is_block(const Item& item, const Tokens& tokens) { return item.kind == ItemKind::block && item.tokens == tokens; }

/// Leaves out what prints nothing: the default of add_generation_prompt, marks of what was generated, and the date that an export fixes.
void leave_out(std::vector<Item>& items) {
  if (!items.empty() && is_block(items[0], {"set", "date_string", "=", quote + std::string("26 Jul 2024")})) items.erase(items.begin());
  std::erase_if(items, [](const Item& item) { return is_block(item, {"generation"}) || is_block(item, {"endgeneration"}); });
  const Tokens first = {"if", "not", "add_generation_prompt", "is", "defined"}, second = {"set", "add_generation_prompt", "=", "false"};
  for (std::size_t i = 0; i + 2 < items.size(); ++i)
    if (is_block(items[i], first) && is_block(items[i + 1], second) && is_block(items[i + 2], {"endif"}))
      items.erase(items.begin() + static_cast<std::ptrdiff_t>(i), items.begin() + static_cast<std::ptrdiff_t>(i) + 3);
}

/// Gives the variables of loops names by their order.
void name_loops(std::vector<Item>& items) {
  std::map<std::string, std::string> names;
  for (Item& item : items) {
    Tokens& tokens = item.tokens;
    if (item.kind == ItemKind::block && tokens.size() > 3 && tokens[0] == "for" && tokens[2] == "in")
      names.try_emplace(tokens[1], "loop" + std::to_string(names.size()));
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if (const auto found = names.find(tokens[i]); found != names.end() && (i == 0 || tokens[i - 1] != ".")) tokens[i] = found->second;
  }
}

}  // namespace

std::string canonical_jinja(std::string_view text) {
  Reader reader(text);
  if (!reader.read()) return "";
  leave_out(reader.items);
  name_loops(reader.items);
  std::string out;
  std::string words;  // adjacent ones are one, whatever stood between them
  const auto flush = [&] {
    if (!words.empty()) out.append("words ").append(1, quote).append(words).append({quote, break_mark});
    words.clear();
  };
  for (const Item& item : reader.items) {
    if (item.kind == ItemKind::words) {
      words += item.words;
      continue;
    }
    flush();
    out += item.kind == ItemKind::print ? "print" : "block";
    for (const std::string& token : item.tokens) {
      out += ' ';
      out += token;
      if (token[0] == quote) out += quote;
    }
    out += break_mark;
  }
  flush();
  return out;
}

}  // namespace collimate
