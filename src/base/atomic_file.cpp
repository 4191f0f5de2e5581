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
#include "collimate/base/file_kind.hpp"

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

/// What the names of this machine's processes begin with: equal where a process number means the same process. Empty where that is not
/// known.
std::string own_machine() {
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  std::error_code error;
  const std::string numbers = fs::read_symlink("/proc/self/ns/pid", error).string();
  if (boot.empty() || numbers.empty()) return "";
  return checksum_text(checksum(boot + numbers)) + "-";
}

std::string own_process() { return fmt::format("{}{}", own_machine(), ::getpid()); }

enum class Owner { lives, gone, unknown };

/// Of what bears the name that own_process() gave to another process, perhaps of another machine.
Owner owner_of(std::string_view process) {
  const std::string machine = own_machine();
  if (machine.empty() || !process.starts_with(machine)) return Owner::unknown;
  pid_t number = 0;
  const char* const end = process.data() + process.size();
  if (std::from_chars(process.data() + machine.size(), end, number).ptr != end || number <= 0) return Owner::unknown;
  return ::kill(number, 0) != 0 && errno == ESRCH ? Owner::gone : Owner::lives;
}

void sync_path(const std::string& path, int flags) {
  const Descriptor file(::open(path.c_str(), flags));
  if (file.fd < 0) fail_on("open", path);
  // Some file systems do not sync folders and say EINVAL: that is no loss of data.
  if (::fsync(file.fd) != 0 && errno != EINVAL) fail_on("sync", path);
}

/// Removes the files of processes that were killed.
void remove_left(const fs::path& folder, const std::string& prefix, const std::string& ending) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.size() <= prefix.size() + ending.size() || !name.starts_with(prefix) || !name.ends_with(ending)) continue;
    if (owner_of(std::string_view(name).substr(prefix.size(), name.size() - prefix.size() - ending.size())) == Owner::gone)
      fs::remove(entry.path(), error);
  }
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
  require(!error, "cannot create the folder '{}': {}; name one that you may write to", folder.string(), error.message());
  const std::string prefix = fmt::format(".{}.", fs::path(path_).filename().string()), ending = ".part";
  remove_left(folder, prefix, ending);
  temporary_ = (folder / (prefix + own_process() + ending)).string();
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
  const fs::path place = nearest_folder(target) / fmt::format("{}{}", partial_prefix, own_process());
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
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(nearest_folder(target), error)) {
    const std::string name = entry.path().filename().string();
    if (!is_one(name)) continue;
    const Owner owner = owner_of(std::string_view(name).substr(partial_prefix.size()));
    if (owner == Owner::unknown) unknown.push_back(entry.path().string());
    if (owner == Owner::gone) fs::remove_all(entry.path(), error);
  }
  return unknown;
}

void move_files(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::create_directories(to, error);
  require(!error, "cannot create the folder '{}': {}; name one that you may write to", to, error.message());
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

/// What a file's name says of it, where it says so.
static std::string_view named_kind(const std::string& path) {
  constexpr std::pair<std::string_view, std::string_view> kinds[] = {
      {".json", "a JSON file"}, {".model", "a tokenizer"}, {".tiktoken", "a tokenizer"}, {".bpe", "text"}, {".txt", "text"}, {".ini", "a deck"}};
  for (const auto& [ending, what] : kinds)
    if (path.ends_with(ending)) return what;
  return "";
}

std::string read_file(const std::string& path) {
  const FileLook look = look_at_file(path);
  const std::string_view named = named_kind(path);
  const bool packed = look.kind == FileKind::gzip || look.kind == FileKind::hdf5 || look.kind == FileKind::safetensors;
  if (!packed || !named.empty())  // files of our own are read as they are
    require_file_kind(path, look, {FileKind::empty, FileKind::text, FileKind::json, FileKind::other_encoding}, named.empty() ? "text" : named);
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
