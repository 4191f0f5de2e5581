#include "collimate/io/run_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "collimate/base/error.hpp"

namespace collimate {

namespace {

std::string file_in(const std::string& folder) { return (std::filesystem::path(folder) / RunLock::file_name).string(); }

}  // namespace

RunLock::RunLock(const std::string& folder) : fd_(::open(file_in(folder).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  require(fd_ >= 0, "cannot write '{}': {}; choose a run.folder that you may write to", file_in(folder), std::strerror(errno));
  holds_ = ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
  if (holds_ || errno != EWOULDBLOCK) return;
  ::close(fd_);
  fail("the run folder '{}' is in use by another run: wait for its end, stop it, or choose another run.folder", folder);
}

RunLock::RunLock(RunLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)), holds_(other.holds_) {}

RunLock::~RunLock() {
  if (fd_ >= 0) ::close(fd_);
}

bool RunLock::known_in(const std::string& folder) {
  std::error_code error;
  return std::filesystem::exists(file_in(folder), error);
}

}  // namespace collimate
