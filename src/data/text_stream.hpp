#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/base/file_kind.hpp"

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
  FileKind kind() const { return kind_; }  ///< text, JSON, a page, text in another encoding, or empty; other kinds are refused
  /// The first bytes of the file, as long as nothing was taken.
  std::string_view head() const { return std::string_view(buffer_.data(), filled_).substr(position_); }

 private:
  bool fill();
  void look();
  std::string path_;
  void* file_ = nullptr;
  FileKind kind_ = FileKind::empty;
  std::vector<char> buffer_;
  std::size_t position_ = 0, filled_ = 0;
  std::int64_t line_ = 1;
};

}  // namespace collimate
