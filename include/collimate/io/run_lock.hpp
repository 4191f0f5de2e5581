#pragma once
#include <string>

namespace collimate {

/// Keeps a second run out of a run folder: a lock of the operating system on the folder's file `lock`, which ends with this object or
/// with the process, however that ends. The file stays.
class RunLock {
 public:
  static constexpr const char* file_name = "lock";

  /// `folder` must exist. Throws if another run holds the lock.
  explicit RunLock(const std::string& folder);
  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&&) = delete;
  ~RunLock();
  /// False on a file system without locks, where nothing keeps a second run out.
  bool holds() const { return holds_; }
  /// True if a run has locked this folder before, or does so now.
  static bool known_in(const std::string& folder);

 private:
  int fd_;
  bool holds_ = false;
};

}  // namespace collimate
