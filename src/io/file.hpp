#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace collimate {

/// A POSIX file descriptor that closes itself; every failed call is a sentence with the file's name and a hint.
class File {
 public:
  enum class Mode { read, write, append };  ///< write empties the file; append creates it where it is missing
  File(std::string path, Mode mode);
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;
  ~File();
  const std::string& path() const { return path_; }
  std::uint64_t size() const;
  void read_at(std::uint64_t offset, void* out, std::size_t bytes) const;  ///< all of them, or throws
  void write(std::string_view bytes);                                      ///< at the end
  void truncate(std::uint64_t bytes);
  void sync();  ///< waits until all is on the disk

 private:
  std::string path_;
  int fd_;
};

void sync_folder(const std::string& path);  ///< so that names made or changed in it survive a crash

}  // namespace collimate
