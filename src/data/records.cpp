#include "collimate/data/records.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/utf8.hpp"
#include "data/delimiter.hpp"
#include "data/json_text.hpp"
#include "data/messages.hpp"
#include "data/text_stream.hpp"

namespace collimate {
namespace {

constexpr std::size_t most_complaints = 5;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
bool is_blank(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return is_blank(c); });
}

}  // namespace

/// Turns the bytes of one kind of file into records. `next` throws BadRecord for one that cannot be used.
struct RecordReader::Parser {
  Parser(const std::string& path, const RecordOptions& options) : stream(path), longest(options.longest) {}
  virtual ~Parser() = default;
  virtual std::optional<Record> next() = 0;

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

struct JsonLinesParser : RecordReader::Parser {
  using Parser::Parser;
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

/// A table with a header row: RFC 4180, with any delimiter. A quote opens a quoted field where it is the field's first character; elsewhere
/// it is a letter.
struct Table : RecordReader::Parser {
  Table(const std::string& path, const RecordOptions& options)
      : Parser(path, options), delimiter(options.delimiter ? options.delimiter : delimiter_of(path, stream.head())) {}
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
      throw BadRecord{line,
                      fmt::format("the row has {} column(s), the header has {} ({}); put fields with {} in double quotes", row.size(),
                                  header.size(), fmt::join(header, ", "), delimiter == ',' ? "commas" : fmt::format("{:?}", delimiter))};
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
      require_header_utf8(header[i]);
      if (is_blank(header[i])) header[i] = fmt::format("(column {}, without a name)", i + 1);  // no format uses it
      require(std::count(header.begin(), header.end(), header[i]) == 1, "'{}', line 1: the header names the column '{}' twice",
              stream.path(), header[i]);
    }
  }
  void require_header_utf8(const std::string& name) const {
    const std::size_t at = find_invalid_utf8(name);
    require(at == std::string::npos,
            "'{}', line 1: the header is not UTF-8; convert the file, if it is in a Western European encoding with `iconv -f WINDOWS-1252 "
            "-t UTF-8`",
            stream.path());
  }

  std::vector<std::string> read_row(std::int64_t line) {
    std::vector<std::string> row(1);
    for (std::size_t bytes = 0; true; limit(++bytes, line)) {
      const int c = stream.get();
      if (c == TextStream::end || c == '\n') return row;
      if (c == static_cast<unsigned char>(delimiter)) {
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
    if (after == static_cast<unsigned char>(delimiter) || after == '\n' || after == '\r' || after == TextStream::end) return;
    std::string rest;
    stream.get_line(rest, longest);
    throw BadRecord{line, "there is text behind a closing double quote; write a quote inside a field twice"};
  }
  char delimiter;
  std::vector<std::string> header;
};

struct PlainText : RecordReader::Parser {
  PlainText(const std::string& path, const RecordOptions& options) : Parser(path, options), unit(options.text_unit) {}
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

/// By the name's ending, else by the first bytes. What stands in the file must not contradict the name: pages and JSON are no plain text.
FileFormat format_of(const std::string& path) {
  std::filesystem::path name(path);
  if (name.extension() == ".gz") name.replace_extension();
  const std::string ending = name.extension().string();
  TextStream stream(path);
  require(stream.kind() != FileKind::page,
          "'{}' is a page in HTML or XML, where JSONL, JSON, CSV or text is expected: if it was downloaded, take the address of the file "
          "itself "
          "(on huggingface.co /resolve/ instead of /blob/); --file-format text learns it as it is",
          path);
  const bool text = ending == ".txt" || ending == ".text" || ending == ".md",
             table = ending == ".csv" || ending == ".tsv" || ending == ".tab";
  require(stream.kind() != FileKind::json || !(text || table),
          "'{}' begins as JSON does, although its name says that it is {}: say --file-format jsonl or json, or {}", path,
          text ? "text" : "a table", text ? "--file-format text to learn it as it is" : "--file-format csv");
  if (table) return FileFormat::csv;
  if (ending == ".jsonl" || ending == ".ndjson") return FileFormat::jsonl;
  if (stream.kind() != FileKind::json && ending != ".json") {
    const std::string columns = columns_of(stream.head());
    require(
        columns.empty(),
        "'{}' looks like a table with the columns {}: say --file-format csv to read it as one, or --file-format text to learn it as it is",
        path, columns);
  }
  if (text) return FileFormat::text;
  int c = stream.get();
  while (c != TextStream::end && is_blank(static_cast<char>(c))) c = stream.get();
  if (c == '[') return FileFormat::json;
  return c == '{' || ending == ".json" ? FileFormat::jsonl : FileFormat::text;
}

std::unique_ptr<RecordReader::Parser> make_parser(const std::string& path, const RecordOptions& options) {
  switch (options.format == FileFormat::automatic ? format_of(path) : options.format) {
    case FileFormat::jsonl: return std::make_unique<JsonLinesParser>(path, options);
    case FileFormat::json: return std::make_unique<JsonArray>(path, options);
    case FileFormat::csv: return std::make_unique<Table>(path, options);
    default: return std::make_unique<PlainText>(path, options);
  }
}

}  // namespace

RecordReader::RecordReader(const std::string& path, RecordOptions options)
    : path_(path), options_(options), parser_(make_parser(path, options)) {}
RecordReader::RecordReader(RecordReader&&) noexcept = default;
RecordReader::~RecordReader() = default;


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

const Field& Record::field(std::string_view name) const {
  const auto found = fields.find(name);
  if (found != fields.end()) {
    found->second.used = true;
    return found->second;
  }
  require(!nulls.contains(name), "{}: the field '{}' is null; give it a value or take the record out", place(), name);
  std::vector<std::string> names;
  for (const auto& [key, field] : fields) names.push_back(key);
  fail("{}: the field '{}' is missing; the record has {}", place(), name, fmt::join(names, ", "));
}

std::vector<std::string> Record::unused() const {
  std::vector<std::string> names;
  for (const auto& [name, field] : fields)
    if (!field.used && !is_blank(field.text) && field.text != "[]" && field.text != "{}")
      names.push_back(name.empty() ? "(a column without a name)" : name);
  names.insert(names.end(), unused_keys.begin(), unused_keys.end());
  return names;
}

const std::string& Record::text(std::string_view name) const {
  const Field& found = field(name);
  require(!found.is_list() && !found.is_object(), "{}: the field '{}' must be a text, not {}", place(), name, found.text.substr(0, 40));
  return found.text;
}

double Record::number(std::string_view name) const {
  const std::string& text = field(name).text;
  double value = 0;
  const auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(code == std::errc() && stop == text.data() + text.size(), "{}: the field '{}' must be a number, not '{}'", place(), name,
          text.substr(0, 40));
  return value;
}

std::vector<Turn> Record::turns(std::string_view name) const { return messages_of(*this, name, field(name)); }

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
