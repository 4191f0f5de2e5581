#include "collimate/data/records.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"
#include "data/text_stream.hpp"

namespace collimate {
namespace {

using nlohmann::json;
constexpr std::size_t most_complaints = 5;
constexpr int deepest = 100;  // the JSON library writes nested values by recursion

/// A record that cannot be used; the parser stands behind it and can go on.
struct BadRecord {
  std::int64_t line;
  std::string reason;
};

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
bool is_blank(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return is_blank(c); });
}

void require_utf8(std::string_view text, std::int64_t line) {
  const std::size_t at = find_invalid_utf8(text);
  if (at == std::string_view::npos) return;
  const auto before = text.substr(0, at);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const std::size_t column = at - (lines ? before.rfind('\n') + 1 : 0) + 1;
  throw BadRecord{line + lines, fmt::format("byte {} of the line (0x{:02x}) is not UTF-8; convert the file, for example with iconv", column,
                                            static_cast<unsigned char>(text[at]))};
}

/// What is wrong with a JSON text, and where.
std::string parse_reason(const json::parse_error& error, std::string_view text) {
  const auto says = [&](const char* words) { return std::string_view(error.what()).find(words) != std::string_view::npos; };
  if (error.byte > text.size() || says("missing closing quote"))
    return fmt::format("the JSON text is cut off at byte {}; complete it or take it out", error.byte);
  if (says("backslash")) return fmt::format("the backslash before byte {} of the JSON text begins no escape; write it twice", error.byte);
  if (says("control character")) return fmt::format("byte {} of the JSON text is a control character; escape it, as in \\n", error.byte);
  std::size_t from = error.byte > 10 ? error.byte - 10 : 0, end = std::min(from + 20, text.size());
  const auto inside = [&](std::size_t i) { return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80; };
  while (inside(from)) ++from;  // whole characters
  while (inside(end)) ++end;
  return fmt::format("not JSON at byte {}, near '{}'; correct it or take it out", error.byte, text.substr(from, end - from));
}

Field field_of(const json& value) {
  if (value.is_string()) return {value.get<std::string>()};
  return {value.dump(), true};
}

/// Of a JSON text: how many brackets are open at once, and how many keys there are, that is colons, outside of strings.
struct Outline {
  int depth = 0;
  std::int64_t keys = 0;
};

Outline outline_of(std::string_view text) {
  Outline out;
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      else if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    else if (c == ':') ++out.keys;
    else if (c == '{' || c == '[') out.depth = std::max(out.depth, ++depth);
    else if (c == '}' || c == ']') --depth;
  }
  return out;
}

std::int64_t keys_in(const json& value) {
  std::int64_t keys = value.is_object() ? std::ssize(value) : 0;
  if (value.is_structured())
    for (const json& part : value) keys += keys_in(part);
  return keys;
}

/// The first key that stands twice in one object.
std::string doubled_key(std::string_view text) {
  std::string doubled;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  [[maybe_unused]] const json whole = json::parse(text, [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(parsed).second && doubled.empty()) doubled = parsed;
    return true;
  });
  return doubled;
}

Record object_record(std::string_view text, std::int64_t line) {
  require_utf8(text, line);
  const Outline outline = outline_of(text);
  if (outline.depth > deepest) throw BadRecord{line, fmt::format("the JSON text is nested deeper than {} levels", deepest)};
  json value;
  try {
    value = json::parse(text);
  } catch (const json::parse_error& error) {
    throw BadRecord{line, parse_reason(error, text)};
  } catch (const json::out_of_range&) {
    throw BadRecord{line, "the JSON text has a number beyond the range of JSON readers; correct it or take it out"};
  }
  if (keys_in(value) != outline.keys)
    throw BadRecord{line, fmt::format("the key '{}' stands twice in one object; take one of them out", doubled_key(text))};
  if (!value.is_object()) throw BadRecord{line, fmt::format("a JSON object is expected, not {}", value.type_name())};
  Record record;
  record.line = line;
  for (const auto& [key, field] : value.items())
    if (field.is_null())
      record.nulls.insert(key);
    else
      record.fields[key] = field_of(field);
  return record;
}

}  // namespace

/// Turns the bytes of one kind of file into records. `next` throws BadRecord for one that cannot be used.
struct RecordReader::Parser {
  Parser(const std::string& path, const RecordOptions& options) : stream(path), longest(options.longest) {}
  virtual ~Parser() = default;
  virtual std::optional<Record> next() = 0;
  virtual FileFormat format() const = 0;

  /// No record may grow beyond the limit; this cannot be skipped, as its end is unknown.
  void limit(std::size_t bytes, std::int64_t line) const {
    require(bytes <= longest, "'{}', line {}: a record is longer than {} bytes; check the file's format", stream.path(), line, longest);
  }
  int skip_blanks() {
    while (stream.peek() != TextStream::end && is_blank(static_cast<char>(stream.peek()))) stream.get();
    return stream.peek();
  }

  TextStream stream;
  std::size_t longest;
};

namespace {

struct JsonLines : RecordReader::Parser {
  using Parser::Parser;
  FileFormat format() const override { return FileFormat::jsonl; }
  std::optional<Record> next() override {
    while (true) {
      const std::int64_t line = stream.line();
      if (!stream.get_line(text, longest)) return std::nullopt;
      limit(text.size(), line);
      if (!is_blank(text)) return object_record(text, line);
    }
  }
  std::string text;
};

/// One JSON list of objects; the elements are cut out by counting brackets outside of strings.
struct JsonArray : RecordReader::Parser {
  using Parser::Parser;
  FileFormat format() const override { return FileFormat::json; }
  std::optional<Record> next() override {
    if (finished) return std::nullopt;
    if (!started) {
      const bool list = skip_blanks() == '[';
      require(list, "'{}' does not start with '[': a JSON file must be a list of objects; one object per line is JSONL", stream.path());
      stream.get();
      started = true;
    } else if (skip_blanks() == ',') {
      stream.get();
    } else if (stream.peek() != ']' && stream.peek() != TextStream::end) {
      finished = true;
      throw BadRecord{stream.line(), "a comma or ']' is expected between the objects of the list; what follows cannot be read"};
    }
    const int c = skip_blanks();
    if (c == ']') {
      stream.get();
      finished = true;
      if (skip_blanks() != TextStream::end) throw BadRecord{stream.line(), "there is text behind the end of the list; take it out"};
      return std::nullopt;
    }
    const std::int64_t line = stream.line();
    if (!take_element(line)) {
      finished = true;
      throw BadRecord{line, "the list is cut off: its closing ']' is missing; copy the file again"};
    }
    return object_record(text, line);
  }

  /// False at the end of the file before the element's end.
  bool take_element(std::int64_t line) {
    text.clear();
    bool in_string = false;
    for (int depth = 0; stream.peek() != TextStream::end; limit(text.size(), line)) {
      const char c = static_cast<char>(stream.peek());
      if (depth == 0 && !in_string && (c == ',' || c == ']')) return true;
      text += static_cast<char>(stream.get());
      if (in_string && c == '\\' && stream.peek() != TextStream::end) text += static_cast<char>(stream.get());
      if (c == '"') in_string = !in_string;
      if (in_string) continue;
      if (c == '{' || c == '[') ++depth;
      if ((c == '}' || c == ']') && --depth == 0) return true;
    }
    return false;
  }
  std::string text;
  bool started = false, finished = false;
};

/// Comma-separated values (RFC 4180) with a header row.
struct Csv : RecordReader::Parser {
  using Parser::Parser;
  FileFormat format() const override { return FileFormat::csv; }
  std::optional<Record> next() override {
    if (header.empty()) read_header();
    std::int64_t line = 0;
    std::vector<std::string> row;
    do {
      line = stream.line();
      if (stream.peek() == TextStream::end) return std::nullopt;
      row = read_row(line);
    } while (row.size() == 1 && row[0].empty());
    if (row.size() != header.size())
      throw BadRecord{line, fmt::format("the row has {} column(s), the header has {} ({}); put fields with commas in double quotes",
                                        row.size(), header.size(), fmt::join(header, ", "))};
    Record record;
    record.line = line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      require_utf8(row[i], line);
      record.fields[header[i]] = {std::move(row[i])};
    }
    return record;
  }

  void read_header() {
    if (stream.peek() == TextStream::end) return;
    header = read_row(1);
    for (std::size_t i = 0; i < header.size(); ++i) {
      require(!header[i].empty(), "'{}', line 1: column {} of the header has no name; the first row must name the columns", stream.path(),
              i + 1);
      require(std::count(header.begin(), header.end(), header[i]) == 1, "'{}', line 1: the header names the column '{}' twice",
              stream.path(), header[i]);
    }
  }

  std::vector<std::string> read_row(std::int64_t line) {
    std::vector<std::string> row(1);
    for (std::size_t bytes = 0; true; limit(++bytes, line)) {
      const int c = stream.get();
      if (c == TextStream::end || c == '\n') return row;
      if (c == ',') {
        row.emplace_back();
      } else if (c == '"' && row.back().empty()) {
        read_quoted(row.back(), line);
      } else if (c != '\r' || stream.peek() != '\n') {
        row.back() += static_cast<char>(c);
      }
    }
  }

  void read_quoted(std::string& field, std::int64_t line) {
    while (true) {
      const int c = stream.get();
      if (c == TextStream::end) throw BadRecord{line, "a double quote is never closed: the file is cut off, or a quote stands alone"};
      if (c == '"' && stream.peek() != '"') break;
      if (c == '"') stream.get();
      field += static_cast<char>(c);
      limit(field.size(), line);
    }
    const int after = stream.peek();
    if (after == ',' || after == '\n' || after == '\r' || after == TextStream::end) return;
    std::string rest;
    stream.get_line(rest, longest);
    throw BadRecord{line, "there is text behind a closing double quote; write a quote inside a field twice"};
  }
  std::vector<std::string> header;
};

struct PlainText : RecordReader::Parser {
  PlainText(const std::string& path, const RecordOptions& options) : Parser(path, options), unit(options.text_unit) {}
  FileFormat format() const override { return FileFormat::text; }
  std::optional<Record> next() override {
    Record record;
    std::string text;
    if (unit == TextUnit::file) {
      record.line = 1;
      for (int c = stream.get(); c != TextStream::end; c = stream.get()) limit((text += static_cast<char>(c)).size(), 1);
    } else {
      record.line = take_lines(text);
    }
    if (text.empty()) return std::nullopt;
    require_utf8(text, record.line);
    record.fields["text"] = {std::move(text)};
    return record;
  }

  std::int64_t take_lines(std::string& text) {
    std::int64_t first = stream.line();
    for (std::string line; stream.get_line(line, longest);) {
      if (is_blank(line)) {
        if (!text.empty()) return first;
        first = stream.line();
        continue;
      }
      text += (text.empty() ? "" : "\n") + line;
      limit(text.size(), first);
      if (unit == TextUnit::line) return first;
    }
    return first;
  }
  TextUnit unit;
};

FileFormat format_of(const std::string& path) {
  std::filesystem::path name(path);
  if (name.extension() == ".gz") name.replace_extension();
  const std::string ending = name.extension().string();
  if (ending == ".csv") return FileFormat::csv;
  if (ending == ".txt" || ending == ".text" || ending == ".md") return FileFormat::text;
  if (ending == ".jsonl" || ending == ".ndjson") return FileFormat::jsonl;
  TextStream stream(path);
  int c = stream.get();
  while (c != TextStream::end && is_blank(static_cast<char>(c))) c = stream.get();
  if (c == '[') return FileFormat::json;
  return c == '{' || ending == ".json" ? FileFormat::jsonl : FileFormat::text;
}

std::unique_ptr<RecordReader::Parser> make_parser(const std::string& path, const RecordOptions& options) {
  switch (options.format == FileFormat::automatic ? format_of(path) : options.format) {
    case FileFormat::jsonl: return std::make_unique<JsonLines>(path, options);
    case FileFormat::json: return std::make_unique<JsonArray>(path, options);
    case FileFormat::csv: return std::make_unique<Csv>(path, options);
    default: return std::make_unique<PlainText>(path, options);
  }
}

}  // namespace

RecordReader::RecordReader(const std::string& path, RecordOptions options)
    : path_(path), options_(options), parser_(make_parser(path, options)) {}
RecordReader::RecordReader(RecordReader&&) noexcept = default;
RecordReader::~RecordReader() = default;

FileFormat RecordReader::format() const { return parser_->format(); }

std::optional<Record> RecordReader::next() {
  while (true) {
    try {
      std::optional<Record> record = parser_->next();
      require(record || records_ > 0, "'{}' {}", path_,
              bad_ ? fmt::format("holds no good record; the first bad one: {}", complaints_.front()) : "is empty: it holds no record");
      if (!record) return record;
      ++records_;
      record->file = path_;
      return record;
    } catch (const BadRecord& bad) {
      const std::string sentence = fmt::format("'{}', line {}: {}", path_, bad.line, bad.reason);
      require(options_.skip_bad, "{}; or leave bad records out with --skip-bad", sentence);
      ++bad_;
      if (complaints_.size() < most_complaints) complaints_.push_back(sentence);
    }
  }
}

std::string Record::place() const { return fmt::format("'{}', line {}", file, line); }

namespace {
const Field& field_named(const Record& record, std::string_view name) {
  const auto found = record.fields.find(name);
  if (found != record.fields.end()) {
    found->second.used = true;
    return found->second;
  }
  require(!record.nulls.contains(name), "{}: the field '{}' is null; give it a value or take the record out", record.place(), name);
  std::vector<std::string> names;
  for (const auto& [key, field] : record.fields) names.push_back(key);
  fail("{}: the field '{}' is missing; the record has {}", record.place(), name, fmt::join(names, ", "));
}

std::string role_named(const std::string& name) {
  if (name == "user" || name == "human" || name == "prompter") return "human";
  if (name == "gpt" || name == "assistant" || name == "bot" || name == "model" || name == "chatgpt") return "assistant";
  return name;
}
}  // namespace

std::vector<std::string> Record::unused() const {
  std::vector<std::string> names;
  for (const auto& [name, field] : fields)
    if (!field.used && !is_blank(field.text) && field.text != "[]" && field.text != "{}") names.push_back(name);
  return names;
}

const std::string& Record::text(std::string_view name) const {
  const Field& field = field_named(*this, name);
  require(!field.is_json, "{}: the field '{}' must be a text, not {}", place(), name, field.text.substr(0, 40));
  return field.text;
}

double Record::number(std::string_view name) const {
  const std::string& text = field_named(*this, name).text;
  double value = 0;
  const auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(code == std::errc() && stop == text.data() + text.size(), "{}: the field '{}' must be a number, not '{}'", place(), name,
          text.substr(0, 40));
  return value;
}

std::vector<Turn> Record::turns(std::string_view name) const {
  const Field& field = field_named(*this, name);
  const json value = field.is_json ? json::parse(field.text) : json(field.text);
  const json list = value.is_object() ? json::array({value}) : value;
  const auto good = [](const json& turn, const char* role, const char* text) {
    return turn.is_object() && turn.contains(role) && turn[role].is_string() && turn.contains(text) && turn[text].is_string();
  };
  std::vector<Turn> turns;
  require(list.is_array(), "{}: the field '{}' must be a list of messages", place(), name);
  for (const json& turn : list) {
    const bool share = good(turn, "from", "value");
    require(share || good(turn, "role", "content"), "{}: message {} of '{}' needs the texts 'from' and 'value', or 'role' and 'content'",
            place(), turns.size() + 1, name);
    turns.push_back({role_named(turn[share ? "from" : "role"].get<std::string>()), turn[share ? "value" : "content"].get<std::string>()});
  }
  return turns;
}

std::size_t find_invalid_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned c = byte(i);
    const std::size_t length = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (length == 0) return i;
    for (std::size_t k = 1; k < length; ++k)
      if ((byte(i + k) & 0xC0) != 0x80) return i;
    const unsigned second = byte(i + 1);  // overlong forms, surrogates and beyond U+10FFFF
    if ((c == 0xE0 && second < 0xA0) || (c == 0xED && second > 0x9F) || (c == 0xF0 && second < 0x90) || (c == 0xF4 && second > 0x8F))
      return i;
    i += length;
  }
  return std::string_view::npos;
}

namespace {
template <class Enum, std::size_t N>
Enum named(std::string_view what, std::string_view name, const std::pair<std::string_view, Enum> (&table)[N]) {
  std::string names;
  for (const auto& [word, value] : table) {
    if (word == name) return value;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", word);
  }
  fail("'{}' is no {}; it is one of {}", name, what, names);
}
}  // namespace

FileFormat file_format_named(std::string_view name) {
  return named<FileFormat>("file format", name,
                           {{"auto", FileFormat::automatic},
                            {"jsonl", FileFormat::jsonl},
                            {"json", FileFormat::json},
                            {"csv", FileFormat::csv},
                            {"text", FileFormat::text}});
}

TextUnit text_unit_named(std::string_view name) {
  return named<TextUnit>("unit of plain text", name,
                         {{"file", TextUnit::file}, {"paragraph", TextUnit::paragraph}, {"line", TextUnit::line}});
}

}  // namespace collimate
