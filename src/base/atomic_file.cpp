#include "collimate/base/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "collimate/base/checksum.hpp"
#include "collimate/base/error.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;

std::string hint(int code) {
  if (code == ENOSPC || code == EDQUOT || code == EFBIG) return "; free space on that disk or write to another folder";
  if (code == EACCES || code == EROFS || code == EPERM) return "; choose a folder that you may write to";
  if (code == ENOENT) return "; check the path";
  return "";
}

[[noreturn]] void fail_on(std::string_view action, const std::string& path) {
  const int code = errno;
  fail("cannot {} '{}': {}{}", action, path, std::strerror(code), hint(code));
}

/// A file descriptor that closes itself.
struct Descriptor {
  int fd;
  explicit Descriptor(int opened) : fd(opened) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

fs::path folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

void sync_path(const std::string& path, int flags) {
  const Descriptor file(::open(path.c_str(), flags));
  if (file.fd < 0) fail_on("open", path);
  // Some file systems do not sync folders and say EINVAL: that is no loss of data.
  if (::fsync(file.fd) != 0 && errno != EINVAL) fail_on("sync", path);
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  require(!path_.empty(), "the name of an output file is empty");
  require(!fs::is_directory(path_), "'{}' is a folder, not a file to write; give a file name", path_);
  require(!fs::exists(path_) || fs::is_regular_file(path_),
          "'{}' is a device or another special file and would be replaced; give a file name", path_);
  std::error_code error;
  const fs::path folder = folder_of(path_);
  fs::create_directories(folder, error);
  require(!error, "cannot create the folder '{}': {}", folder.string(), error.message());
  temporary_ = (folder / fmt::format(".{}.{}.part", fs::path(path_).filename().string(), ::getpid())).string();
  const Descriptor file(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644));
  if (file.fd < 0) {
    temporary_.clear();
    fail_on("write to the folder of", path_);
  }
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept : path_(std::move(other.path_)), temporary_(std::exchange(other.temporary_, {})) {}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  if (this != &other) {
    abandon();
    path_ = std::move(other.path_);
    temporary_ = std::exchange(other.temporary_, {});
  }
  return *this;
}

AtomicFile::~AtomicFile() { abandon(); }

void AtomicFile::abandon() noexcept {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void AtomicFile::commit() {
  ensure(!temporary_.empty(), "'{}' was committed twice", path_);
  sync_path(temporary_, O_RDONLY);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_on("rename the finished file to", path_);
  temporary_.clear();
  sync_path(folder_of(path_).string(), O_RDONLY | O_DIRECTORY);
}

namespace {

constexpr std::string_view partial_prefix = ".collimate-";

/// The beginning of the names of this machine's folders: equal where a process number means the same process. Empty where that is not known.
std::string own_prefix() {
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  std::error_code error;
  const std::string numbers = fs::read_symlink("/proc/self/ns/pid", error).string();
  if (boot.empty() || numbers.empty()) return "";
  return fmt::format("{}{}-", partial_prefix, checksum_text(checksum(boot + numbers)));
}

/// The folder `target`, or the nearest one above it that exists.
fs::path nearest_folder(const std::string& target) {
  std::error_code error;
  fs::path place = fs::absolute(target);
  while (!fs::is_directory(place, error) && place.has_relative_path()) place = place.parent_path();
  return place;
}

}  // namespace

PartialFolder::PartialFolder(const std::string& target) {
  remove_left(target);
  const std::string prefix = own_prefix();
  const fs::path place = nearest_folder(target) / fmt::format("{}{}", prefix.empty() ? partial_prefix : prefix, ::getpid());
  std::error_code error;
  fs::create_directory(place, error);
  if (error) fail("cannot create a folder for '{}': {}; choose a folder that you may write to", target, error.message());
  path_ = place.string();
}

PartialFolder::~PartialFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

bool PartialFolder::is_one(std::string_view name) { return name.starts_with(partial_prefix); }

std::vector<std::string> PartialFolder::remove_left(const std::string& target) {
  std::vector<std::string> unknown;
  const std::string prefix = own_prefix();
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(nearest_folder(target), error)) {
    const std::string name = entry.path().filename().string();
    if (!is_one(name)) continue;
    pid_t process = 0;
    const char* const begin = name.data() + prefix.size();
    const bool ours = !prefix.empty() && name.starts_with(prefix) &&
                      std::from_chars(begin, name.data() + name.size(), process).ptr == name.data() + name.size() && process > 0;
    if (!ours)
      unknown.push_back(entry.path().string());
    else if (::kill(process, 0) != 0 && errno == ESRCH)
      fs::remove_all(entry.path(), error);
  }
  return unknown;
}

void move_files(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::create_directories(to, error);
  require(!error, "cannot create the folder '{}': {}", to, error.message());
  for (const auto& entry : fs::directory_iterator(from)) {
    const std::string target = (fs::path(to) / entry.path().filename()).string();
    if (::rename(entry.path().c_str(), target.c_str()) != 0) fail_on("move a finished file to", target);
  }
  sync_path(to, O_RDONLY | O_DIRECTORY);
}

void write_file(const std::string& path, std::string_view text) {
  AtomicFile target(path);
  {
    const Descriptor file(::open(target.temporary().c_str(), O_WRONLY | O_TRUNC));
    if (file.fd < 0) fail_on("write", path);
    while (!text.empty()) {
      const ssize_t written = ::write(file.fd, text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_on("write", path);
      text.remove_prefix(static_cast<std::size_t>(written));
    }
  }
  target.commit();
}

std::string read_file(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY));
  if (file.fd < 0) fail_on("read", path);
  std::string text;
  std::string buffer(1 << 16, '\0');
  while (true) {
    const ssize_t count = ::read(file.fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on("read", path);
    if (count == 0) return text;
    text.append(buffer, 0, static_cast<std::size_t>(count));
  }
}

}  // namespace collimate
