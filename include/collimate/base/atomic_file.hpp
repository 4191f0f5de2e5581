#pragma once
#include <string>
#include <string_view>

namespace collimate {

/// A file that appears whole or not at all: write to `temporary()`, then `commit()`.
/// The temporary name lies in the same folder; it is removed if the object dies uncommitted.
class AtomicFile {
 public:
  /// Creates the folder of `path` if needed. Throws if the folder cannot be written.
  explicit AtomicFile(std::string path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  ~AtomicFile();
  const std::string& path() const { return path_; }
  const std::string& temporary() const { return temporary_; }
  void commit();  ///< fsync, rename to path(), fsync of the folder
  void abandon() noexcept;

 private:
  std::string path_, temporary_;  ///< temporary_ is empty once committed or abandoned
};

/// Writes a whole file through AtomicFile; throws where the disk is full.
void write_file(const std::string& path, std::string_view text);
std::string read_file(const std::string& path);  ///< throws if it cannot be read

}  // namespace collimate
