#include "io/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "collimate/base/error.hpp"

namespace collimate {

namespace {

[[noreturn]] void fail_on(std::string_view action, const std::string& path) {
  const int code = errno;
  const bool full = code == ENOSPC || code == EDQUOT || code == EFBIG;
  fail("cannot {} '{}': {}{}", action, path, std::strerror(code), full ? "; free space on that disk or write to another folder" : "");
}

int flags_of(File::Mode mode) {
  switch (mode) {
    case File::Mode::read: return O_RDONLY;
    case File::Mode::write: return O_WRONLY | O_CREAT | O_TRUNC;
    case File::Mode::append: return O_WRONLY | O_CREAT | O_APPEND;
  }
  return O_RDONLY;
}

}  // namespace

File::File(std::string path, Mode mode) : path_(std::move(path)), fd_(::open(path_.c_str(), flags_of(mode) | O_CLOEXEC, 0644)) {
  if (fd_ < 0) fail_on(mode == Mode::read ? "read" : "write", path_);
}

File::File(File&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

std::uint64_t File::size() const {
  struct stat info {};
  if (::fstat(fd_, &info) != 0) fail_on("read the size of", path_);
  return static_cast<std::uint64_t>(info.st_size);
}

void File::read_at(std::uint64_t offset, void* out, std::size_t bytes) const {
  auto* place = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t count = ::pread(fd_, place, std::min(bytes, std::size_t{1} << 30), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on("read", path_);
    require(count > 0, "'{}' ends at byte {} where more was promised: it was cut off, so copy or make it again", path_, offset);
    place += count;
    offset += static_cast<std::uint64_t>(count);
    bytes -= static_cast<std::size_t>(count);
  }
}

void File::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on("write", path_);
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void File::truncate(std::uint64_t bytes) {
  if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) fail_on("shorten", path_);
}

void File::sync() {
  if (::fsync(fd_) != 0) fail_on("sync", path_);
}

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_on("open the folder", path);
  const int result = ::fsync(fd);
  const int code = errno;
  ::close(fd);
  errno = code;
  // Some file systems do not sync folders and say EINVAL: that is no loss of data.
  if (result != 0 && code != EINVAL) fail_on("sync the folder", path);
}

}  // namespace collimate
