#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "collimate/base/error.hpp"
#include "collimate/rlhf/scorer.hpp"
#include "support/refusal.hpp"

// The scoring programs of these tests are shell commands and, where a shell is too slow, this very program: started with
// COLLIMATE_TEST_CHILD in the environment it acts as a scorer instead of running tests.

namespace collimate::rlhf {
namespace {

using nlohmann::json;
using test::refusal;
using testing::AllOf;
using testing::HasSubstr;

/// "line": reads lines and answers each with the length of its response, its index and 2 kB of ballast, also on standard error.
/// "batch N": reads N lines before it answers.
int act_as_scorer(const std::string& role) {
  const bool batch = role.rfind("batch ", 0) == 0;
  const std::size_t wanted = batch ? std::stoul(role.substr(6)) : 1;
  std::vector<std::string> answers;
  for (std::string line; std::getline(std::cin, line);) {
    const json sample = json::parse(line);
    answers.push_back(
        json{{"index", sample["index"]}, {"score", sample["response"].get<std::string>().size()}, {"ballast", std::string(2000, 'x')}}
            .dump());
    if (answers.size() < wanted) continue;
    for (const std::string& answer : answers) std::cout << answer << '\n';
    std::cout.flush();
    std::cerr << std::string(2000, 'e') << std::endl;
    answers.clear();
  }
  return 0;
}

[[gnu::constructor]] void become_a_scorer() {
  if (const char* role = std::getenv("COLLIMATE_TEST_CHILD")) {
    std::ios_base::Init streams;  // constructors of this kind run before those of std::cin
    ::_exit(act_as_scorer(role));
  }
}

std::string this_program(const std::string& role) {
  return "COLLIMATE_TEST_CHILD='" + role + "' exec " + std::filesystem::read_symlink("/proc/self/exe").string();
}

std::vector<ScoredSample> samples_of(int count, std::size_t length = 10, int first_index = 0) {
  std::vector<ScoredSample> samples;
  for (int i = 0; i < count; ++i)
    samples.push_back({first_index + i, "prompt", std::string(length + static_cast<std::size_t>(i % 97), 'r'), "answer", "eos", 3});
  return samples;
}

std::string failure_of(const std::string& command, int count = 3, double deadline = 10) {
  const auto scorer = make_process_scorer(command, deadline);
  const auto samples = samples_of(count, 10, 40);
  std::string first = refusal([&] { scorer->score(samples); });
  EXPECT_THAT(refusal([&] { scorer->score(samples); }), HasSubstr("has failed before")) << "it is not started again";
  EXPECT_THAT(first, HasSubstr(command));
  return first;
}

double seconds_of(const std::function<void()>& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(ProcessScorer, SendsWhatIsPromisedAndReadsNumbersInOrder) {
  const auto file = std::filesystem::temp_directory_path() / ("collimate_scorer_" + std::to_string(::getpid()));
  const auto scorer = make_process_scorer(
      "n=0; while read -r line; do printf '%s\\n' \"$line\" >> " + file.string() + "; n=$((n+1)); echo \" $n.5 \"; done", 10);
  const std::vector<ScoredSample> samples{{12, "say \"hi\"\n", "caf\u00e9\t\xff", "#### 4", "length", 9}, {13, "", "", "", "eos", 0}};
  EXPECT_EQ(scorer->score(samples), (std::vector<double>{1.5, 2.5}));
  EXPECT_EQ(scorer->score(samples), (std::vector<double>{3.5, 4.5})) << "the same program serves all batches";
  EXPECT_TRUE(scorer->score({}).empty());
  std::ifstream input(file);
  std::string line;
  ASSERT_TRUE(std::getline(input, line));
  EXPECT_EQ(
      json::parse(line),
      (json{{"index", 12}, {"prompt", "say \"hi\"\n"}, {"response", "caf\u00e9\t\ufffd"}, {"answer", "#### 4"}, {"finish", "length"}}));
  ASSERT_TRUE(std::getline(input, line));
  EXPECT_EQ(json::parse(line)["index"], 13);
  std::filesystem::remove(file);
}

TEST(ProcessScorer, AnswersMayBeObjects) {
  const auto scorer = make_process_scorer("while read -r line; do echo '{\"score\": -2e-1, \"why\": \"so\"}'; done", 10);
  EXPECT_EQ(scorer->score(samples_of(2)), (std::vector<double>{-0.2, -0.2}));
}

// 20 MB there, 20 MB back, 20 MB of standard error, all larger than any pipe; twice, once answering line by line, once at the end.
TEST(ProcessScorer, TenThousandLargeSamplesDoNotDeadlock) {
  const auto samples = samples_of(10000, 2000);
  for (const char* role : {"line", "batch 10000"}) {
    const auto scorer = make_process_scorer(this_program(role), 60);
    const auto scores = scorer->score(samples);
    ASSERT_EQ(scores.size(), samples.size()) << role;
    for (std::size_t i = 0; i < scores.size(); ++i) ASSERT_EQ(scores[i], static_cast<double>(2000 + i % 97)) << role;
  }
}

TEST(ProcessScorer, OneSampleOfEightMegabytes) {
  const auto scorer = make_process_scorer(this_program("line"), 60);
  EXPECT_EQ(scorer->score(samples_of(1, 8 << 20)), (std::vector<double>{8 << 20}));
}

TEST(ProcessScorer, ADyingProgramIsNamedWithItsStatusAndLastWords) {
  const std::string exits = failure_of("read -r line; echo 1; read -r line; echo 'no such model' >&2; exit 3");
  EXPECT_THAT(exits, HasSubstr("exited with status 3"));
  EXPECT_THAT(exits, HasSubstr("sample 41 (2 of 3"));
  EXPECT_THAT(exits, HasSubstr("no such model"));
  EXPECT_THAT(failure_of("read -r line; kill -9 $$"), HasSubstr("was ended by signal 9"));
  EXPECT_THAT(failure_of("(no_such_program_at_all)"), HasSubstr("not found"));
  EXPECT_THAT(failure_of("exec >&-; sleep 30"), HasSubstr("closed its standard output"));
}

TEST(ProcessScorer, ABrokenPipeDoesNotEndUs) {
  const auto scorer = make_process_scorer("exit 5", 10);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_THAT(refusal([&] { scorer->score(samples_of(100, 100000)); }), HasSubstr("exited with status 5"));
  // It closes its input but lives on, so that we do write into the broken pipe.
  EXPECT_THAT(failure_of("exec <&-; sleep 30", 1000, 0.5), HasSubstr("within 0.5 seconds"));
  sigset_t pending;
  sigpending(&pending);
  EXPECT_FALSE(sigismember(&pending, SIGPIPE));
}

TEST(ProcessScorer, TheDeadlineHoldsForTheWholeBatch) {
  std::string message;
  const double silent = seconds_of([&] { message = failure_of("echo thinking >&2; while read -r line; do sleep 30; done", 3, 0.3); });
  EXPECT_THAT(message, HasSubstr("within 0.3 seconds"));
  EXPECT_THAT(message, HasSubstr("sample 40"));
  EXPECT_THAT(message, HasSubstr("thinking"));
  EXPECT_LT(silent, 5) << "and its sleep was ended with it";
  EXPECT_THAT(failure_of("while read -r line; do sleep 0.1; echo 1; done", 20, 0.45), HasSubstr("within 0.45 seconds"));
  EXPECT_THAT(failure_of("sleep 30", 100, 0.2), HasSubstr("within 0.2 seconds")) << "also while we write";
}

TEST(ProcessScorer, GarbageIsNeverAScore) {
  const auto answering = [](const std::string& second) {
    return failure_of("read -r line; echo 1; read -r line; printf '%s\\n' '" + second + "'; read -r line; echo 1; sleep 5");
  };
  for (const char* line : {"garbage", "", "1 2", "[1]", "{\"score\": \"1\"}", "{\"score\": null}", "{\"points\": 1}", "{\"score\": 1",
                           "0x10", "1e999", "true"}) {
    const std::string message = answering(line);
    EXPECT_THAT(message, HasSubstr("neither a number nor")) << line;
    EXPECT_THAT(message, HasSubstr(std::string("'") + line + "'"));
    EXPECT_THAT(message, HasSubstr("sample 41"));
  }
  for (const char* line : {"nan", "-inf", "inf"}) EXPECT_THAT(answering(line), HasSubstr("not finite")) << line;
  EXPECT_THAT(answering("{\"index\": 42, \"score\": 1}"), HasSubstr("out of order"));
}

TEST(ProcessScorer, TooFewOrTooManyLines) {
  EXPECT_THAT(failure_of("read -r a; echo 1; read -r b; echo 2; cat > /dev/null", 3, 0.3), HasSubstr("sample 42 (3 of 3"));
  EXPECT_THAT(failure_of("read -r a; read -r b; read -r c; printf '1\\n2\\n3\\n4\\n'; sleep 5"),
              HasSubstr("more than one line per sample"));
  EXPECT_THAT(failure_of("read -r a; read -r b; read -r c; printf '1\\n2\\n3\\n4'; sleep 5"), HasSubstr("more than one line per sample"));
  const auto late = make_process_scorer("read -r a; echo 1; sleep 0.05; echo extra; sleep 5", 10);
  EXPECT_EQ(late->score(samples_of(1)), std::vector<double>{1});
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_THAT(refusal([&] { late->score(samples_of(1)); }), HasSubstr("before it had been sent"));
  const auto endless = make_process_scorer("yes | tr -d '\\n'", 10);
  EXPECT_THAT(refusal([&] { endless->score(samples_of(1)); }), HasSubstr("more than 1 MiB"));
}

TEST(ProcessScorer, OnlyTheLastWordsAreKept) {
  const std::string message = failure_of("i=0; while [ $i -lt 5000 ]; do echo \"line $i of a long story\" >&2; i=$((i+1)); done; exit 1");
  EXPECT_THAT(message, HasSubstr("line 4999 of"));
  EXPECT_LT(message.size(), 6000u);
}

TEST(ProcessScorer, IsEndedWithItsWholeFamily) {
  const auto file = std::filesystem::temp_directory_path() / ("collimate_family_" + std::to_string(::getpid()));
  {
    const auto scorer = make_process_scorer("sleep 60 & echo $! > " + file.string() + "; read -r line; echo 1; wait", 10);
    EXPECT_EQ(scorer->score(samples_of(1)), std::vector<double>{1});
  }
  pid_t grandchild = 0;
  std::ifstream(file) >> grandchild;
  std::filesystem::remove(file);
  ASSERT_GT(grandchild, 0);
  // Ended means gone or waiting to be collected by whoever adopted it.
  std::string state;
  for (int i = 0; i < 100; ++i) {
    std::ifstream status("/proc/" + std::to_string(grandchild) + "/stat");
    std::string pid, name;
    state.clear();
    status >> pid >> name >> state;
    if (state.empty() || state == "Z") break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(state.empty() || state == "Z") << state;
}

TEST(ProcessScorer, BadSettingsAreRefused) {
  EXPECT_THROW(make_process_scorer("  ", 10), Error);
  EXPECT_THROW(make_process_scorer("cat", 0), Error);
  EXPECT_THROW(make_process_scorer("cat", std::nan("")), Error);
}

TEST(ProcessScorer, CommandsThatCannotBeStartedAreFoundAtOnce) {
  const auto complaint = [](const std::string& command) { return refusal([&] { check_scorer_command(command); }); };
  EXPECT_THAT(complaint("no-such-program --fast"), AllOf(HasSubstr("no program 'no-such-program'"), HasSubstr("--fast")));
  EXPECT_THAT(complaint(" ./no/such/file x"), HasSubstr("no file './no/such/file'; check the path"));
  EXPECT_THAT(complaint("/tmp"), HasSubstr("no file '/tmp'"));
  EXPECT_THAT(complaint("/etc/passwd"), HasSubstr("not executable"));
  for (const char* good : {"cat", "/bin/cat", "cd / && cat", "while read -r l; do echo 1; done", "exit 3", "X=1 nothing", "'no such'", "(cat)"})
    EXPECT_EQ(complaint(good), "accepted");
  // One that ends at once is found before it is sent anything.
  const auto scorer = make_process_scorer("echo out of cheese >&2; exit 3", 10), patient = make_process_scorer("cat", 10);
  std::string said;
  for (int i = 0; i < 500 && (said.empty() || said == "no error"); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    said = refusal([&] { scorer->check(); });
  }
  EXPECT_THAT(said, AllOf(HasSubstr("exited with status 3"), HasSubstr("out of cheese")));
  EXPECT_EQ(refusal([&] { patient->check(); }), "accepted");
}

}  // namespace
}  // namespace collimate::rlhf
