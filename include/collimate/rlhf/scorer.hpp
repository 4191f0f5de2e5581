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
  std::vector<std::int32_t> prompt_ids = {}, response_ids = {};  ///< with run.sample_ids
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
  virtual std::string remark() const { return ""; }  ///< what is odd about a file that it has read, in a sentence
  /// The likely reason why all of these samples have one score; "" where it knows none.
  virtual std::string why_equal(std::span<const ScoredSample>) const { return ""; }
  /// No sample follows. What is odd about how the scorer ends, in a sentence; "" where nothing is.
  virtual std::string finish() { return ""; }
};

/// Which columns of a word list hold words and values, counted from 1. value 0: the list has two, and column 2 holds them.
struct LexiconColumns {
  std::int64_t word = 1, value = 0;
};
/// factor * sum of the values of all words found in the response. The file holds lines "word<TAB>value" (the format of AFINN, Nielsen
/// 2011), or more columns (VADER, Hutto and Gilbert 2014); a factor of -1 turns the aim around. Words are runs of letters and digits in any
/// case (Unicode's); an emoji is a word. An entry of several words, with a blank, a hyphen or an apostrophe between them ("can't stand"), is
/// found where the text has the same ones. At each place the entry with the most words wins and its words are used up: "not good" counts
/// once, and not as "good". So "well-made" is worth well + made where the file has no entry for the whole. An entry with other characters
/// (":-)", "h&k") is found where it stands between blanks. Two values for one word are refused; where columns are named, as VADER's list
/// needs, the word in small letters counts, of two such the last.
std::unique_ptr<Scorer> make_lexicon_scorer(const std::string& file, double factor = 1, const LexiconColumns& columns = {});

enum class ExpressionCount { once, every };
/// value if the Perl-compatible expression matches in the response, else 0; with `every`, value * number of matches that do not
/// overlap and are not empty. Character classes know Unicode.
std::unique_ptr<Scorer> make_expression_scorer(const std::string& expression, double value = 1,
                                               ExpressionCount count = ExpressionCount::once);

enum class LengthUnit { characters, tokens };
/// -|length - target| / target: 0 at the target, -1 for an empty response. Characters are Unicode code points.
std::unique_ptr<Scorer> make_length_scorer(std::int64_t target, LengthUnit unit);

/// Where the number of a response is looked for: behind its mark alone, or, where no mark has one, at its end.
enum class AnswerForm { marked, last_number };
/// 1 if the response's number equals that of the reference answer, else 0. A reference answer without a number is an error.
std::unique_ptr<Scorer> make_final_number_scorer(AnswerForm form = AnswerForm::marked);

/// The number behind the last "####" (GSM8K's mark) that a number follows: a heading "#### Plan" is passed over. Blanks and currency signs
/// before a number and commas in it are dropped, as are leading zeros and trailing decimal ones: "#### $1,450.50" gives "1450.5".
std::optional<std::string> marked_number(std::string_view text);
std::optional<std::string> last_number(std::string_view text);
/// Of a reference answer: the marked number, or the last one where there is no mark at all.
std::optional<std::string> reference_number(std::string_view answer);

/// Asks a program. `command` is run by /bin/sh at once and lives as long as the scorer; call this on rank 0 BEFORE MPI_Init (many
/// network libraries do not survive a fork after it). For every sample it gets one JSON line
///   {"index": 3, "prompt": "...", "response": "...", "answer": "...", "finish": "eos"}
/// on its standard input (bytes that are not UTF-8 arrive as U+FFFD; with token ids also "prompt_ids" and "response_ids"), and for each, in the same order, it must write and flush one line:
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
