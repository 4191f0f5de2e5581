#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace collimate {

/// Reads a file byte by byte, gzipped or not, through a fixed buffer, counting lines. A leading byte-order mark is left out.
class TextStream {
 public:
  explicit TextStream(const std::string& path);
  TextStream(const TextStream&) = delete;
  ~TextStream();
  static constexpr int end = -1;
  int peek() {
    if (position_ == filled_ && !fill()) return end;
    return static_cast<unsigned char>(buffer_[position_]);
  }
  int get() {
    const int c = peek();
    if (c == end) return end;
    ++position_;
    line_ += c == '\n';
    return c;
  }
  /// The next line without its "\n" or "\r\n"; false at the end. Stops after `longest` + 1 bytes.
  bool get_line(std::string& line, std::size_t longest);
  std::int64_t line() const { return line_; }  ///< of the next byte, from 1
  const std::string& path() const { return path_; }

 private:
  bool fill();
  std::string path_;
  void* file_ = nullptr;
  std::vector<char> buffer_;
  std::size_t position_ = 0, filled_ = 0;
  std::int64_t line_ = 1;
};

}  // namespace collimate
