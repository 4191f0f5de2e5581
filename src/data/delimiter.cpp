#include "data/delimiter.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/records.hpp"

namespace collimate {
namespace {

constexpr std::pair<std::string_view, char> delimiters[] = {{"comma", ','}, {"tab", '\t'}, {"semicolon", ';'}, {"pipe", '|'}};
constexpr std::size_t looked_at = 20;  // rows

/// The names by which columns of a table of data are known.
constexpr std::string_view usual_names[] = {"prompt",     "response", "instruction", "output", "input", "question", "answer",
                                            "completion", "chosen",   "rejected",    "text",   "label", "sentence", "query"};

/// The columns in each of the first rows, and the names in the first one; quotes hold delimiters and line ends. The last row may be cut.
struct Rows {
  std::vector<std::string> names;
  std::vector<std::size_t> columns;
};

Rows rows_of(std::string_view head, char delimiter) {
  Rows rows;
  std::string field;
  std::size_t columns = 1;
  bool quoted = false, begins = true;
  const auto end_field = [&] {
    if (rows.columns.empty()) rows.names.emplace_back(trim(field));
    field.clear();
    begins = true;
  };
  for (std::size_t i = 0; i < head.size() && rows.columns.size() < looked_at; ++i) {
    const char c = head[i];
    if (quoted) {
      if (c == '"' && i + 1 < head.size() && head[i + 1] == '"')
        ++i;
      else if (c == '"')
        quoted = false;
      else
        field += c;
    } else if (c == '"' && begins) {
      quoted = true;
      begins = false;
    } else if (c == delimiter) {
      end_field();
      ++columns;
    } else if (c == '\n') {
      if (columns > 1 || !trim(field).empty() || !begins) {
        end_field();
        rows.columns.push_back(columns);
      }
      begins = true;
      columns = 1;
    } else {
      field += c;
      begins = false;
    }
  }
  return rows;
}

/// How many columns the first row has, where at least nine of ten rows behind it have as many; else 1.
std::size_t agreed_columns(const Rows& rows) {
  if (rows.columns.empty() || rows.columns[0] < 2) return 1;
  const auto same = std::count(rows.columns.begin(), rows.columns.end(), rows.columns[0]);
  return 10 * same >= 9 * std::ssize(rows.columns) ? rows.columns[0] : 1;
}

}  // namespace

char delimiter_of(const std::string& path, std::string_view head) {
  std::filesystem::path name(path);
  if (name.extension() == ".gz") name.replace_extension();
  if (name.extension() == ".tsv" || name.extension() == ".tab") return '\t';
  char best = ',';
  std::size_t most = 1;
  for (const auto& [word, delimiter] : delimiters)
    if (const std::size_t columns = agreed_columns(rows_of(head, delimiter)); columns > most) {
      best = delimiter;
      most = columns;
      if (delimiter == ',') break;
    }
  if (most == 1 && rows_of(head, ',').names.size() < 2)  // rows do not agree: a header that has no comma may have another one
    for (const auto& [word, delimiter] : delimiters)
      if (rows_of(head, delimiter).names.size() > 1) return delimiter;
  return best;
}

std::string columns_of(std::string_view head) {
  for (const auto& [word, delimiter] : delimiters) {
    const Rows rows = rows_of(head, delimiter);
    if (agreed_columns(rows) < 2) continue;
    const auto known = [](const std::string& name) {
      std::string lower = name;
      for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      return std::find(std::begin(usual_names), std::end(usual_names), lower) != std::end(usual_names);
    };
    if (std::count_if(rows.names.begin(), rows.names.end(), known) >= 2 ||
        (rows.columns.size() > 1 && delimiter == '\t' && std::any_of(rows.names.begin(), rows.names.end(), known)))
      return join(rows.names, ", ");
  }
  return "";
}

char delimiter_named(std::string_view name) {
  if (name == "auto") return 0;
  for (const auto& [word, delimiter] : delimiters)
    if (name == word) return delimiter;
  require(name == "\\t" ||
              (name.size() == 1 && name[0] != '"' && name[0] != '\n' && name[0] != '\r' && static_cast<unsigned char>(name[0]) < 128),
          "'{}' is no delimiter; it is auto, comma, tab, semicolon, pipe, or another character", name);
  return name == "\\t" ? '\t' : name[0];
}

}  // namespace collimate
