#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace collimate::rlhf {

/// What a scorer may look at.
struct ScoredSample {
  std::int64_t index = 0;   ///< the sample's number, as in samples.jsonl; errors name it
  std::string prompt, response;
  std::string answer;       ///< the reference answer; empty if the data has none
  std::string finish;       ///< why the response ended: "eos", "length" or "stop"
  std::int64_t tokens = 0;  ///< of the response
};

/// Gives every response a score by a rule instead of a reward model. Runs on rank 0 only; the caller broadcasts the scores.
///
///   const auto scorer = make_lexicon_scorer("AFINN-en-165.txt", 1);
///   const std::vector<double> scores = scorer->score(samples);    // finite, one per sample, in their order
///
/// A score that cannot be had is an Error that names the sample, never a 0.
class Scorer {
 public:
  virtual ~Scorer() = default;
  virtual std::vector<double> score(std::span<const ScoredSample> samples) = 0;
  virtual void check() {}  ///< throws where it is known already that there will be no score
  /// No sample follows. What is odd about how the scorer ends, in a sentence; "" where nothing is.
  virtual std::string finish() { return ""; }
};

/// factor * sum of the values of all words found in the response. The file holds lines "word<TAB>value" (the format of AFINN, Nielsen
/// 2011); a factor of -1 turns the aim around. Words are runs of letters and digits, without regard to the case of A-Z; an entry of
/// several words, with a blank, a hyphen or an apostrophe between them ("can't stand"), is found where the text has the same ones.
/// At each place the entry with the most words wins and its words are used up: "not good" counts once, and not as "good". So "well-made"
/// is worth well + made where the file has no entry for the whole.
std::unique_ptr<Scorer> make_lexicon_scorer(const std::string& file, double factor = 1);

enum class ExpressionCount { once, every };
/// value if the Perl-compatible expression matches in the response, else 0; with `every`, value * number of matches that do not
/// overlap and are not empty. Character classes know Unicode.
std::unique_ptr<Scorer> make_expression_scorer(const std::string& expression, double value = 1,
                                               ExpressionCount count = ExpressionCount::once);

enum class LengthUnit { characters, tokens };
/// -|length - target| / target: 0 at the target, -1 for an empty response. Characters are Unicode code points.
std::unique_ptr<Scorer> make_length_scorer(std::int64_t target, LengthUnit unit);

/// 1 if the response's final number equals that of the reference answer, else 0. A reference answer without a number is an error. With
/// `fall_back` a response without "####" is judged by its last number.
std::unique_ptr<Scorer> make_final_number_scorer(bool fall_back = false);

/// The number after the first "####" (GSM8K's mark), or, if there is no mark and fall_back is set, the last number of the text. Blanks
/// and $ before it and commas in it are dropped, as are leading zeros and trailing decimal ones: "#### $1,450.50" gives "1450.5".
std::optional<std::string> final_number(std::string_view text, bool fall_back);

/// Asks a program. `command` is run by /bin/sh at once and lives as long as the scorer; call this on rank 0 BEFORE MPI_Init (many
/// network libraries do not survive a fork after it). For every sample it gets one JSON line
///   {"index": 3, "prompt": "...", "response": "...", "answer": "...", "finish": "eos"}
/// on its standard input (bytes that are not UTF-8 arrive as U+FFFD), and for each, in the same order, it must write and flush one line:
/// a number, or {"score": 0.5}, or {"index": 3, "score": 0.5} (then the index is checked). It must write nothing else there; its
/// standard error is free, and its last lines are part of every error. It may read all samples of a batch before it answers. A program
/// that ends, writes anything else or a number that is not finite, or needs more than `deadline_seconds` for a batch, is an Error and is
/// ended; it is not started again. When no sample follows, `finish` ends its standard input; one that ends by itself with another status
/// than 0, then or after its last score, has its scores taken and is told of. One that goes on for two seconds is ended.
/// It is not started where check_scorer_command refuses the command.
std::unique_ptr<Scorer> make_process_scorer(const std::string& command, double deadline_seconds);
/// Throws where the program that a command names first is not there or cannot be run. A command that begins with more than a plain word,
/// such as an assignment or a quote, is left to the shell. Before MPI_Init, as above.
void check_scorer_command(const std::string& command);

}  // namespace collimate::rlhf
