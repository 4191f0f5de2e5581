#include "collimate/io/json_lines.hpp"

#include <array>
#include <charconv>
#include <cmath>

#include "collimate/base/error.hpp"
#include "collimate/base/utf8.hpp"
#include "io/file.hpp"

namespace collimate {

namespace {

template <class Values, class Write>
std::string json_list(const Values& values, Write write) {
  std::string list = "[";
  for (const auto& value : values) {
    if (list.size() > 1) list += ',';
    list += write(value);
  }
  list += ']';
  return list;
}

}  // namespace

std::string json_text(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const auto first = static_cast<unsigned char>(text[0]);
    if (length == 0)
      out += "\xef\xbf\xbd";
    else if (first == '"' || first == '\\')
      out += {'\\', text[0]};
    else if (first == '\n')
      out += "\\n";
    else if (first == '\t')
      out += "\\t";
    else if (first < 0x20 || first == 0x7f)
      out += fmt::format("\\u{:04x}", first);
    else
      out += text.substr(0, length);
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out + "\"";
}

std::string json_number(double value, std::string_view key) {
  require(std::isfinite(value), "{} is {}, which cannot be written as a result: the computation went wrong before", key, value);
  std::array<char, 32> digits;
  return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr};
}

JsonLine& JsonLine::add_raw(std::string_view key, std::string_view json) {
  text_ += text_.empty() ? '{' : ',';
  text_ += json_text(key);
  text_ += ':';
  text_ += json;
  return *this;
}

JsonLine& JsonLine::add(std::string_view key, double value) { return add_raw(key, json_number(value, key)); }
JsonLine& JsonLine::add(std::string_view key, std::string_view value) { return add_raw(key, json_text(value)); }

JsonLine& JsonLine::add(std::string_view key, std::span<const double> values) {
  return add_raw(key, json_list(values, [&](double value) { return json_number(value, key); }));
}

JsonLine& JsonLine::add(std::string_view key, std::span<const std::int64_t> values) {
  return add_raw(key, json_list(values, [](std::int64_t value) { return std::to_string(value); }));
}

struct JsonLines::Content {
  File file;
  std::uint64_t position;
};

JsonLines::JsonLines(const std::string& path) : content_(std::make_unique<Content>(Content{File(path, File::Mode::append), 0})) {
  content_->position = content_->file.size();
}

JsonLines::JsonLines(JsonLines&&) noexcept = default;
JsonLines::~JsonLines() = default;
std::int64_t JsonLines::position() const { return static_cast<std::int64_t>(content_->position); }
void JsonLines::sync() { content_->file.sync(); }

void JsonLines::write(const JsonLine& line) {
  const std::string text = line.text() + "\n";
  try {
    content_->file.write(text);
  } catch (const Error&) {
    content_->file.truncate(content_->position);
    throw;
  }
  content_->position += text.size();
}

void JsonLines::truncate_to(std::int64_t bytes) {
  const auto wanted = static_cast<std::uint64_t>(bytes);
  const std::string& path = content_->file.path();
  require(bytes >= 0 && wanted <= content_->file.size(),
          "'{}' has {} bytes, but the checkpoint was taken when it had {}: it belongs to another run, so start from its own folder", path,
          content_->file.size(), bytes);
  char last = '\n';
  if (bytes > 0) File(path, File::Mode::read).read_at(wanted - 1, &last, 1);
  require(last == '\n', "'{}' has no line that ends at byte {}, where the checkpoint was taken: it belongs to another run", path, bytes);
  content_->file.truncate(wanted);
  content_->position = wanted;
}

}  // namespace collimate
