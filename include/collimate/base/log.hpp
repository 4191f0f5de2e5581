#pragma once
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace collimate {

enum class LogLevel { info, warning, error };

/// Writes lines for people: on rank 0 to standard output (errors to standard error) and, once opened, to a file.
/// Other ranks are silent. May be called from any thread; make one per process.
class Log {
 public:
  explicit Log(int rank = 0, std::FILE* output = stdout, std::FILE* errors = stderr) : rank_(rank), output_(output), errors_(errors) {}
  void open(const std::string& path, bool append = false);  ///< copies every line into the file (rank 0 only)

  template <class... Args>
  void info(fmt::format_string<Args...> text, Args&&... args) {
    if (rank_ == 0) write(LogLevel::info, fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  void warning(fmt::format_string<Args...> text, Args&&... args) {
    if (rank_ == 0) write(LogLevel::warning, fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  void error(fmt::format_string<Args...> text, Args&&... args) {
    if (rank_ == 0) write(LogLevel::error, fmt::format(text, std::forward<Args>(args)...));
  }
  void write(LogLevel level, std::string_view text);  ///< on this rank, whichever it is

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  int rank_;
  std::FILE* output_;
  std::FILE* errors_;
  std::unique_ptr<std::FILE, Close> file_;
  std::mutex mutex_;
};

}  // namespace collimate
