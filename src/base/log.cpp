#include "collimate/base/log.hpp"

#include <cerrno>
#include <cstring>

#include "collimate/base/error.hpp"
#include "collimate/base/utf8.hpp"

namespace collimate {

void Log::open(const std::string& path, bool append) {
  if (rank_ != 0) return;
  file_.reset(std::fopen(path.c_str(), append ? "a" : "w"));
  require(file_ != nullptr, "cannot open the log '{}': {}", path, std::strerror(errno));
}

void Log::write(LogLevel level, std::string_view text) {
  constexpr const char* marks[] = {"", "warning: ", "error: "};
  const std::string line = fmt::format("{}{}\n", marks[static_cast<int>(level)], as_utf8(text));
  const std::lock_guard lock(mutex_);
  std::FILE* const screen = level == LogLevel::error ? errors_ : output_;
  // One call per line, so that lines of ranks that share a terminal stay whole.
  std::fwrite(line.data(), 1, line.size(), screen);
  std::fflush(screen);
  if (!file_) return;
  std::fwrite(line.data(), 1, line.size(), file_.get());
  std::fflush(file_.get());
}

}  // namespace collimate
