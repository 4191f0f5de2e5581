#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "child_process.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/rlhf/scorer.hpp"

namespace collimate::rlhf {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t longest_answer = 1 << 20;  ///< bytes of one line
constexpr std::size_t kept_errors = 4096;        ///< bytes of standard error

std::string request_of(const ScoredSample& sample) {
  nlohmann::ordered_json request = {{"index", sample.index},
                                    {"prompt", sample.prompt},
                                    {"response", sample.response},
                                    {"answer", sample.answer},
                                    {"finish", sample.finish}};
  if (!sample.prompt_ids.empty()) {
    request["prompt_ids"] = sample.prompt_ids;
    request["response_ids"] = sample.response_ids;
  }
  return request.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string shortened(std::string_view line) { return std::string(line.substr(0, 200)) + (line.size() > 200 ? "..." : ""); }

std::string words_of(std::string_view errors) {
  return errors.empty() ? "It wrote nothing on its standard error." : fmt::format("Its last lines on standard error:\n{}", errors);
}

/// Sends all samples of one batch and collects the answers, reading and writing whatever is ready, so that full pipes cannot stop
/// both sides.
class Exchange {
 public:
  Exchange(ChildProcess& child, const std::string& command, std::string& errors, std::span<const ScoredSample> samples, double deadline)
      : child_(child), command_(command), errors_(errors), samples_(samples), deadline_(deadline) {
    for (const ScoredSample& sample : samples) {
      requests_ += request_of(sample);
      ends_.push_back(requests_.size());
    }
  }

  std::vector<double> run() {
    const NoBrokenPipeSignal guard;
    const auto until = Clock::now() + std::chrono::duration<double>(deadline_);
    while (scores_.size() < samples_.size()) {
      const auto left = std::chrono::duration<double, std::milli>(until - Clock::now()).count();
      if (left <= 0)
        give_up(fmt::format(
            "did not finish its batch within {} seconds (it has to answer each line at once, and to flush, while its input stays open)",
            deadline_));
      wait(static_cast<int>(std::min(left + 1, 60000.0)));
    }
    if (!answers_.empty()) give_up_on_line(answers_, "wrote more than one line per sample");
    return std::move(scores_);
  }

 private:
  void wait(int milliseconds) {
    pollfd ends[3] = {
        {child_.output(), POLLIN, 0}, {error_open_ ? child_.errors() : -1, POLLIN, 0}, {writing() ? child_.input() : -1, POLLOUT, 0}};
    if (poll(ends, 3, milliseconds) < 0) {
      ensure(errno == EINTR, "poll on the scorer '{}' failed: {}", command_, std::strerror(errno));
      return;
    }
    if (ends[1].revents) read_errors();
    if (ends[0].revents) read_answers();
    if (ends[2].revents) write_requests();
  }

  bool writing() const { return input_open_ && written_ < requests_.size(); }

  void write_requests() {
    const ssize_t count = write(child_.input(), requests_.data() + written_, requests_.size() - written_);
    if (count > 0) written_ += static_cast<std::size_t>(count);
    // A program that no longer reads may still have lines in the other pipe: its end, or the deadline, is reported.
    if (count < 0 && errno == EPIPE) input_open_ = false;
  }

  bool read_errors() {
    char block[65536];
    const ssize_t count = read(child_.errors(), block, sizeof block);
    if (count == 0) error_open_ = false;
    if (count <= 0) return false;
    errors_.append(block, static_cast<std::size_t>(count));
    if (errors_.size() > kept_errors) errors_.erase(0, errors_.size() - kept_errors);
    return true;
  }

  void read_answers() {
    char block[65536];
    const ssize_t count = read(child_.output(), block, sizeof block);
    if (count < 0) return;  // EAGAIN, EINTR
    if (count == 0) give_up_on_end();
    answers_.append(block, static_cast<std::size_t>(count));
    std::size_t begin = 0;
    for (std::size_t end; (end = answers_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string_view line = trim(std::string_view(answers_).substr(begin, end - begin));
      if (scores_.size() == samples_.size()) give_up_on_line(line, "wrote more than one line per sample");
      if (written_ < ends_[scores_.size()]) give_up_on_line(line, "wrote a line before it had been sent the sample");
      scores_.push_back(score_of(line));
    }
    answers_.erase(0, begin);
    if (answers_.size() > longest_answer) give_up_on_line(answers_, "wrote a line of more than 1 MiB");
  }

  double score_of(std::string_view line) {
    double score = 0;
    const auto [stop, problem] = std::from_chars(line.data(), line.data() + line.size(), score);
    if (line.empty() || problem != std::errc() || stop != line.data() + line.size()) {
      const auto answer = nlohmann::json::parse(line, nullptr, false);
      if (!answer.is_object() || !answer.contains("score") || !answer["score"].is_number())
        give_up_on_line(line, "wrote a line that is neither a number nor {\"score\": number}");
      const auto index = answer.find("index");
      if (index != answer.end() && *index != samples_[scores_.size()].index) give_up_on_line(line, "answered out of order");
      score = answer["score"].get<double>();
    }
    if (!std::isfinite(score)) give_up_on_line(line, "gave a score that is not finite");
    return score;
  }

  [[noreturn]] void give_up_on_line(std::string_view line, const std::string& what) {
    give_up(fmt::format("{}: '{}'", what, shortened(line)));
  }

  [[noreturn]] void give_up_on_end() {
    const std::string ending = child_.ending(0.5);
    give_up(ending.empty() ? "closed its standard output" : ending);
  }

  [[noreturn]] void give_up(const std::string& what) {
    child_.end();
    while (read_errors()) {  // what is left in the pipe
    }
    const std::size_t done = std::min(scores_.size(), samples_.size() - 1);
    const std::string_view last = trim(errors_);
    fail("the scorer '{}' {}; sample {} ({} of {} in its batch) has no valid score. {}", command_, what, samples_[done].index, done + 1,
         samples_.size(), words_of(last));
  }

  ChildProcess& child_;
  const std::string& command_;
  std::string& errors_;
  std::span<const ScoredSample> samples_;
  double deadline_;
  std::string requests_, answers_;
  std::vector<std::size_t> ends_;  ///< of each sample in requests_
  std::size_t written_ = 0;
  bool input_open_ = true, error_open_ = true;
  std::vector<double> scores_;
};

class ProcessScorer final : public Scorer {
 public:
  ProcessScorer(const std::string& command, double deadline) : command_(command), deadline_(deadline), child_(command) {}

  std::vector<double> score(std::span<const ScoredSample> samples) override {
    require(!failed_, "the scorer '{}' has failed before and is not started again", command_);
    if (samples.empty()) return {};
    failed_ = true;
    std::vector<double> scores = Exchange(child_, command_, errors_, samples, deadline_).run();
    failed_ = false;
    return scores;
  }

  void check() override {
    const std::string ending = child_.ending(0);
    if (ending.empty()) return;
    char block[kept_errors];
    const ssize_t count = read(child_.errors(), block, sizeof block);
    const std::string_view last = count > 0 ? trim({block, static_cast<std::size_t>(count)}) : "";
    fail("the scorer '{}' {} before it was sent sample 0. {}", command_, ending, words_of(last));
  }

  std::string finish() override {
    failed_ = true;
    child_.close_input();
    const std::string ending = child_.ending(2);
    if (ending.empty() || ending.ends_with(" status 0")) return "";
    char block[kept_errors];
    for (ssize_t count; (count = read(child_.errors(), block, sizeof block)) > 0;) errors_.append(block, static_cast<std::size_t>(count));
    const std::string_view last = trim(std::string_view(errors_).substr(errors_.size() - std::min(errors_.size(), kept_errors)));
    return fmt::format("the scorer '{}' {} after its last score; all its scores were taken, so see whether they are right. {}", command_, ending,
                       words_of(last));
  }

 private:
  std::string command_;
  double deadline_;
  std::string errors_;  ///< the end of what it wrote on its standard error so far
  bool failed_ = false;
  ChildProcess child_;
};

}  // namespace

void check_scorer_command(const std::string& command) {
  require(!trim(command).empty(), "the scorer's command is empty; give a command line");
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./@%:,";
  const std::string first = split(trim(command), ' ')[0];
  if (first.find_first_not_of(plain) != std::string::npos) return;
  std::error_code error;
  if (first.find('/') == std::string::npos) {
    require(std::system(fmt::format("command -v -- {} >/dev/null 2>&1", first).c_str()) == 0,
            "there is no program '{}' to run the scorer '{}': install it, or give its path", first, command);
  } else {
    require(std::filesystem::is_regular_file(first, error), "the scorer '{}' cannot be started: there is no file '{}'; check the path", command,
            first);
    require(access(first.c_str(), X_OK) == 0, "the scorer '{}' cannot be started: '{}' is not executable; make it so with chmod +x", command,
            first);
  }
}

std::unique_ptr<Scorer> make_process_scorer(const std::string& command, double deadline_seconds) {
  check_scorer_command(command);
  require(deadline_seconds > 0 && std::isfinite(deadline_seconds), "the scorer's deadline is {} seconds; give a positive number",
          deadline_seconds);
  return std::make_unique<ProcessScorer>(command, deadline_seconds);
}

}  // namespace collimate::rlhf
