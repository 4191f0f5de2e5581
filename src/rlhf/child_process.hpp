#pragma once
#include <sys/types.h>

#include <csignal>
#include <string>

namespace collimate::rlhf {

/// A shell command with pipes to its three standard streams, in a process group of its own; the destructor ends all of the group.
class ChildProcess {
 public:
  explicit ChildProcess(const std::string& command);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  int input() const { return input_; }    ///< its standard input: non-blocking, we write
  int output() const { return output_; }  ///< its standard output and error: non-blocking, we read
  int errors() const { return errors_; }

  void close_input();  ///< the command sees the end of its standard input

  /// "exited with status 3" or "was ended by signal 9"; empty while it runs. Waits for at most `seconds`.
  std::string ending(double seconds);
  void end();  ///< asks with SIGTERM, insists with SIGKILL after a second; may be called twice

 private:
  pid_t pid_ = -1;
  bool reaped_ = false, ended_ = false;
  int status_ = 0;
  int input_ = -1, output_ = -1, errors_ = -1;
};

/// While it lives, writing to a pipe that nobody reads returns EPIPE to this thread instead of ending the program.
class NoBrokenPipeSignal {
 public:
  NoBrokenPipeSignal();
  ~NoBrokenPipeSignal();
  NoBrokenPipeSignal(const NoBrokenPipeSignal&) = delete;
  NoBrokenPipeSignal& operator=(const NoBrokenPipeSignal&) = delete;

 private:
  sigset_t only_pipe_, before_;
  bool was_pending_ = false;
};

}  // namespace collimate::rlhf
