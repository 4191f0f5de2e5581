#include "child_process.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <thread>
#include <utility>

#include "collimate/base/error.hpp"

extern char** environ;

namespace collimate::rlhf {
namespace {

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    int ends[2];
    require(pipe2(ends, O_CLOEXEC) == 0, "no pipe to a scorer can be made: {}", std::strerror(errno));
    read = ends[0];
    write = ends[1];
  }
  ~Pipe() {
    if (read >= 0) close(read);
    if (write >= 0) close(write);
  }
  int keep(int& end) {
    const int kept = end;
    end = -1;
    fcntl(kept, F_SETFL, fcntl(kept, F_GETFL) | O_NONBLOCK);
    return kept;
  }
};

}  // namespace

ChildProcess::ChildProcess(const std::string& command) {
  Pipe input, output, errors;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.read, 0);
  posix_spawn_file_actions_adddup2(&actions, output.write, 1);
  posix_spawn_file_actions_adddup2(&actions, errors.write, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setpgroup(&attributes, 0);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  for (const int signal : {SIGPIPE, SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  std::string shell = "sh", flag = "-c", text = command;
  char* arguments[] = {shell.data(), flag.data(), text.data(), nullptr};
  const int problem = posix_spawn(&pid_, "/bin/sh", &actions, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  require(problem == 0, "the scorer '{}' cannot be started: {}", command, std::strerror(problem));
  input_ = input.keep(input.write);
  output_ = output.keep(output.read);
  errors_ = errors.keep(errors.read);
}

ChildProcess::~ChildProcess() {
  end();
  close_input();
  for (const int end : {output_, errors_}) close(end);
}

void ChildProcess::close_input() {
  if (input_ >= 0) close(std::exchange(input_, -1));
}

std::string ChildProcess::ending(double seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!reaped_) {
    const pid_t found = waitpid(pid_, &status_, WNOHANG);
    if (found == pid_) {
      reaped_ = true;
    } else if (found < 0 && errno != EINTR) {  // somebody else waited for it
      reaped_ = true;
      status_ = 0;
    } else if (std::chrono::steady_clock::now() >= until) {
      return "";
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  if (WIFSIGNALED(status_)) return fmt::format("was ended by signal {}", WTERMSIG(status_));
  return fmt::format("exited with status {}", WEXITSTATUS(status_));
}

void ChildProcess::end() {
  if (ended_) return;
  ended_ = true;
  if (!reaped_) {
    kill(-pid_, SIGTERM);
    ending(1);
  }
  kill(-pid_, SIGKILL);  // also what outlives the shell that started it
  while (!reaped_) ending(1);
}

NoBrokenPipeSignal::NoBrokenPipeSignal() {
  sigset_t pending;
  sigemptyset(&only_pipe_);
  sigaddset(&only_pipe_, SIGPIPE);
  sigpending(&pending);
  was_pending_ = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &only_pipe_, &before_);
}

NoBrokenPipeSignal::~NoBrokenPipeSignal() {
  const timespec at_once{};
  while (!was_pending_ && sigtimedwait(&only_pipe_, nullptr, &at_once) < 0 && errno == EINTR) {
  }
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace collimate::rlhf
