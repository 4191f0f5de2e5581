#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace collimate {

enum class FileFormat { automatic, jsonl, json, csv, text };  ///< csv: a table with any delimiter
enum class TextUnit { file, paragraph, line };  ///< what one record of a plain text file is; blank lines part paragraphs

FileFormat file_format_named(std::string_view name);  ///< auto, jsonl, json, csv, text
TextUnit text_unit_named(std::string_view name);      ///< file, paragraph, line
char delimiter_named(std::string_view name);          ///< auto (0), tab, comma, semicolon, pipe, or one character

struct RecordOptions {
  FileFormat format = FileFormat::automatic;  ///< by the name's ending, else by the first character
  TextUnit text_unit = TextUnit::paragraph;
  char delimiter = 0;                    ///< of tables; 0: by the name's ending and the header line
  bool skip_bad = false;                 ///< leave out bad records and count them instead of stopping
  std::size_t longest = 256u << 20;      ///< bytes of one record; a longer one is an error, so memory stays bounded
};

/// One message of a dialogue.
struct Turn {
  std::string role;  ///< "human", "assistant" or "system", whatever the file called them
  std::string text;
  std::optional<bool> learned = {};  ///< what the file says about learning it; nothing: it does not say
  bool operator==(const Turn& other) const { return role == other.role && text == other.text; }
};

/// A field of a record: its text, or the JSON text of a number, truth value, list or object as the file has it.
struct Field {
  std::string text;
  bool is_json = false;
  mutable bool used = false;  ///< whether a reader of the record asked for it
  bool is_list() const { return is_json && text.starts_with('['); }
  bool is_object() const { return is_json && text.starts_with('{'); }
  bool is_null() const { return is_json && text == "null"; }
};

/// One record of an input file: a JSON object, a CSV row by its header, or {"text": ...} of a plain text file.
struct Record {
  std::map<std::string, Field, std::less<>> fields;  ///< JSON null is left out
  std::set<std::string, std::less<>> nulls;          ///< and named here
  std::string file;
  std::int64_t line = 0;  ///< where the record starts, from 1

  mutable std::set<std::string, std::less<>> unused_keys = {};  ///< of messages, as "messages[].name"

  bool has(std::string_view name) const { return fields.find(name) != fields.end(); }
  const Field& field(std::string_view name) const;       ///< throws if missing
  /// Throws if missing, a list or an object. A number or truth value gives its characters.
  const std::string& text(std::string_view name) const;
  double number(std::string_view name) const;            ///< throws if missing or not a number
  /// A list of {from, value} or {role, content} objects, or one such object. Throws on any other JSON, and on keys that would change what
  /// is to be learned and are not known.
  std::vector<Turn> turns(std::string_view name) const;
  std::vector<std::string> unused() const;  ///< fields, and keys of messages, that hold something which nobody asked for
  std::string place() const;  ///< "'file', line 12"
};

/// Streams the records of one file, gzipped or not, holding one record at a time.
class RecordReader {
 public:
  explicit RecordReader(const std::string& path, RecordOptions options = {});
  RecordReader(RecordReader&&) noexcept;
  ~RecordReader();
  /// Empty at the end of the file. A bad record (cut off, wrong number of columns, not UTF-8, not JSON) is an error naming file
  /// and line, or is skipped and counted; a file without any good record is an error.
  std::optional<Record> next();
  std::int64_t records() const { return records_; }
  std::int64_t bad() const { return bad_; }
  const std::vector<std::string>& complaints() const { return complaints_; }  ///< the first five skipped, in words

  struct Parser;

 private:
  std::string path_;
  RecordOptions options_;
  std::unique_ptr<Parser> parser_;
  std::int64_t records_ = 0, bad_ = 0;
  std::vector<std::string> complaints_;
};

}  // namespace collimate
