#pragma once
#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace collimate {

/// One JSON object on one line, its keys in the order in which they were added:
/// `JsonLine().add("step", 3).add("loss", 1.5).text()` is {"step":3,"loss":1.5}. Equal values give equal bytes on every machine.
class JsonLine {
 public:
  /// The shortest decimal number that reads back as the same double. NaN and infinity are refused in a sentence with the key.
  JsonLine& add(std::string_view key, double value);
  template <std::integral Integer>
  JsonLine& add(std::string_view key, Integer value) {
    if constexpr (std::same_as<Integer, bool>)
      return add_raw(key, value ? "true" : "false");
    else
      return add_raw(key, std::to_string(value));
  }
  /// Bytes that are not UTF-8 become U+FFFD, one for each byte.
  JsonLine& add(std::string_view key, std::string_view value);
  JsonLine& add(std::string_view key, const char* value) { return add(key, std::string_view(value)); }
  JsonLine& add(std::string_view key, const std::string& value) { return add(key, std::string_view(value)); }
  JsonLine& add(std::string_view key, std::span<const double> values);
  JsonLine& add(std::string_view key, std::span<const std::int64_t> values);
  JsonLine& add_raw(std::string_view key, std::string_view json);  ///< a value that is JSON already
  std::string text() const { return text_.empty() ? "{}" : text_ + "}"; }  ///< without line end

 private:
  std::string text_;
};

std::string json_text(std::string_view text);                       ///< quoted and escaped
std::string json_number(double value, std::string_view key = "");   ///< see JsonLine::add

/// Appends lines to a file. Every line is handed to the operating system whole; a line that does not fit on the disk leaves the file
/// as it was and throws.
class JsonLines {
 public:
  explicit JsonLines(const std::string& path);  ///< goes on at the end of what is there
  JsonLines(JsonLines&&) noexcept;
  ~JsonLines();
  void write(const JsonLine& line);
  std::int64_t position() const;  ///< bytes so far: what a checkpoint remembers
  /// Goes back to where a checkpoint was taken. Throws if the file is shorter or no line ends there.
  void truncate_to(std::int64_t bytes);
  void sync();  ///< waits until the lines are on the disk: before a checkpoint that remembers position()

 private:
  struct Content;
  std::unique_ptr<Content> content_;
};

}  // namespace collimate
