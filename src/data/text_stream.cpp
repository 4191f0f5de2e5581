#include "data/text_stream.hpp"

#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "collimate/base/error.hpp"

namespace collimate {

TextStream::TextStream(const std::string& path) : path_(path), buffer_(1 << 16) {
  namespace fs = std::filesystem;
  std::error_code error;
  require(fs::exists(path, error), "the file '{}' does not exist; check the path", path);
  require(!fs::is_directory(path, error), "'{}' is a folder; give a file in it", path);
  file_ = gzopen(path.c_str(), "rb");
  require(file_ != nullptr, "cannot read '{}': {}", path, std::strerror(errno));
  gzbuffer(static_cast<gzFile>(file_), 1 << 17);
  const bool filled = fill();
  look();
  require(!path.ends_with(".gz") || !gzdirect(static_cast<gzFile>(file_)),
          "'{}' is not gzipped, although its name says so: copy the file again, or take .gz off its name", path);
  if (!filled || filled_ < 3) return;
  if (std::memcmp(buffer_.data(), "\xEF\xBB\xBF", 3) == 0) position_ = 3;
}

/// What the file is, or what is in the gzipped file.
void TextStream::look() {
  FileLook look = look_at(head().substr(0, file_head_bytes), filled_, path_);
  kind_ = look.kind;
  if (!gzdirect(static_cast<gzFile>(file_))) look.is = "gzipped, and in it is " + look.is;
  const bool text = kind_ == FileKind::text || kind_ == FileKind::json || kind_ == FileKind::page;
  require(text || kind_ == FileKind::empty || kind_ == FileKind::other_encoding, "'{}' is {}, where JSONL, JSON, CSV or text is expected: {}", path_,
          look.is, look.advice);
}

TextStream::~TextStream() {
  if (file_) gzclose(static_cast<gzFile>(file_));
}

bool TextStream::fill() {
  const auto file = static_cast<gzFile>(file_);
  const int count = gzread(file, buffer_.data(), static_cast<unsigned>(buffer_.size()));
  int code = Z_OK;
  gzerror(file, &code);
  require(count >= 0 && (code == Z_OK || code == Z_STREAM_END), "cannot read '{}' near line {}: {}; copy the file again", path_, line_,
          code == Z_BUF_ERROR   ? "the gzipped file is cut off"
          : code == Z_ERRNO   ? std::strerror(errno)
                              : "the gzipped file is damaged");
  position_ = 0;
  filled_ = static_cast<std::size_t>(count);
  return count > 0;
}

bool TextStream::get_line(std::string& line, std::size_t longest) {
  line.clear();
  if (peek() == end) return false;
  while (peek() != end && line.size() <= longest) {
    const char* start = buffer_.data() + position_;
    const auto* stop = static_cast<const char*>(std::memchr(start, '\n', filled_ - position_));
    const std::size_t count = stop ? static_cast<std::size_t>(stop - start) : filled_ - position_;
    line.append(start, count);
    position_ += count;
    if (stop) {
      get();
      break;
    }
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return true;
}

}  // namespace collimate
