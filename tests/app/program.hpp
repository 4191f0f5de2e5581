#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace collimate::test {

/// An empty folder that lives as long as a test.
class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "collimate-app-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "no scratch folder";
    path_ = name;
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void put(const std::string& path, const std::string& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

/// What a run of the program gave.
struct Outcome {
  int code = -1;  ///< -1: ended by a signal
  std::string out, err;
};

/// Runs the program that was built, with one thread, in `folder`.
inline Outcome collimate(const std::vector<std::string>& arguments, const std::string& input = "", const std::string& output = "") {
  const Scratch files;
  put(files / "in", input);
  const std::string out = output.empty() ? files / "out" : output;
  std::vector<std::string> words = {COLLIMATE_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string in_path = files / "in", err_path = files / "err";
  const pid_t child = fork();
  if (child == 0) {
    setenv("OMP_NUM_THREADS", "1", 1);
    const int fds[] = {open(in_path.c_str(), O_RDONLY), open(out.c_str(), O_WRONLY | O_CREAT, 0600),
                       open(err_path.c_str(), O_WRONLY | O_CREAT, 0600)};
    for (int i = 0; i < 3; ++i) dup2(fds[i], i);
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output.empty() ? bytes_of(out) : "", bytes_of(err_path)};
}

/// Runs the program, which must succeed; returns what it printed.
inline std::string printed(const std::vector<std::string>& arguments, const std::string& input = "") {
  const Outcome outcome = collimate(arguments, input);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return outcome.out;
}

/// The program must refuse this in one sentence with exit code 2 that holds all of `parts`.
inline void expect_refusal(const std::vector<std::string>& arguments, const std::vector<std::string>& parts,
                           const std::string& input = "") {
  const Outcome outcome = collimate(arguments, input);
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_TRUE(outcome.err.starts_with("error: ")) << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  for (const std::string& part : parts) EXPECT_NE(outcome.err.find(part), std::string::npos) << "no '" << part << "' in: " << outcome.err;
}

/// A file of the folder with models and texts that tests are given; the test must skip itself where there is none.
inline bool have_data() { return std::getenv("COLLIMATE_TEST_DATA") != nullptr; }
inline std::string data(const std::string& name) { return std::string(std::getenv("COLLIMATE_TEST_DATA")) + "/" + name; }

}  // namespace collimate::test

#define NEEDS_DATA() \
  if (!have_data()) GTEST_SKIP() << "set COLLIMATE_TEST_DATA to the folder with models and texts"
