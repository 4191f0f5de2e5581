#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace collimate {

/// A file that appears whole or not at all: write to `temporary()`, then `commit()`.
/// The temporary name lies in the same folder; it is removed if the object dies uncommitted, and, where its process was killed, when the
/// same file is written again.
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

/// A hidden folder for files that appear together or not at all; it goes, with what is still in it, when the object dies. One whose process
/// was killed goes when the next is made in the same place.
class PartialFolder {
 public:
  /// Lies in the folder `target`, or in the nearest one above it that exists, and so on the same file system.
  explicit PartialFolder(const std::string& target);
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;
  ~PartialFolder();
  const std::string& path() const { return path_; }
  static bool is_one(std::string_view name);  ///< whether a folder of this name is one, perhaps of a process that was killed
  /// Removes those that processes of this machine have left where one for `target` would lie. Returns the others of which it is not known
  /// whether their process lives: it is, or was, one of another machine, or of this one before it was started anew.
  static std::vector<std::string> remove_left(const std::string& target);

 private:
  std::string path_;
};

/// Moves the files of a folder into another one, which is made, on the same file system; those of the same name are replaced.
void move_files(const std::string& from, const std::string& to);

/// Writes a whole file through AtomicFile; throws where the disk is full.
void write_file(const std::string& path, std::string_view text);
std::string read_file(const std::string& path);  ///< throws if it cannot be read

}  // namespace collimate
