#include "collimate/data/example.hpp"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/random.hpp"
#include "collimate/data/order.hpp"

namespace collimate {
namespace {

struct Fact {
  std::string_view subject, answer;
};

constexpr Fact capitals[] = {
    {"Austria", "Vienna"},   {"Bolivia", "Sucre"},    {"Brazil", "Brasilia"}, {"Bulgaria", "Sofia"},   {"Canada", "Ottawa"},
    {"Chile", "Santiago"},   {"China", "Beijing"},    {"Croatia", "Zagreb"},  {"Cuba", "Havana"},      {"Denmark", "Copenhagen"},
    {"Egypt", "Cairo"},      {"Finland", "Helsinki"}, {"France", "Paris"},    {"Germany", "Berlin"},   {"Greece", "Athens"},
    {"Hungary", "Budapest"}, {"India", "Delhi"},      {"Ireland", "Dublin"},  {"Italy", "Rome"},       {"Japan", "Tokyo"},
    {"Kenya", "Nairobi"},    {"Nepal", "Kathmandu"},  {"Norway", "Oslo"},     {"Peru", "Lima"},        {"Poland", "Warsaw"},
    {"Portugal", "Lisbon"},  {"Senegal", "Dakar"},    {"Spain", "Madrid"},    {"Sweden", "Stockholm"}, {"Thailand", "Bangkok"}};
constexpr Fact opposites[] = {{"big", "small"},   {"bitter", "sweet"}, {"bright", "dim"},  {"cheap", "costly"}, {"clean", "dirty"},
                              {"cold", "hot"},    {"deep", "shallow"}, {"dry", "wet"},     {"early", "late"},   {"empty", "full"},
                              {"far", "near"},    {"fast", "slow"},    {"first", "last"},  {"happy", "sad"},    {"hard", "soft"},
                              {"heavy", "light"}, {"high", "low"},     {"left", "right"},  {"long", "short"},   {"loud", "quiet"},
                              {"new", "old"},     {"north", "south"},  {"open", "closed"}, {"push", "pull"},    {"rough", "smooth"},
                              {"start", "end"},   {"strong", "weak"},  {"true", "false"},  {"up", "down"},      {"wide", "narrow"}};

/// Four ways to ask: what comes before and behind the subject.
constexpr std::pair<std::string_view, std::string_view> ask_capital[] = {
    {"What is the capital of ", "?"}, {"Name the capital of ", "."}, {"capital of ", ""}, {"Which city is the capital of ", "?"}};
constexpr std::pair<std::string_view, std::string_view> ask_opposite[] = {
    {"What is the opposite of ", "?"}, {"Name the opposite of ", "."}, {"opposite of ", ""}, {"Which word is the opposite of ", "?"}};
constexpr std::string_view polite[] = {"Sure! It is ", "Of course! It is "};

constexpr std::int64_t sft_rows = 6000, preference_rows = 4000, heldout_sft_rows = 6, heldout_preference_rows = 8;
enum class File : std::uint32_t { sft, preference, heldout_sft, heldout_preference };

struct Share {
  std::string_view kind;
  int percent;
};
constexpr Share sft_mix[] = {{"good", 50}, {"rude", 20}, {"curt", 15}, {"cut", 10}, {"wrong", 5}};
constexpr Share rejected_mix[] = {{"wrong", 30}, {"curt", 25}, {"rude", 25}, {"cut", 20}};

/// The random numbers of one row of one file, drawn in turn.
class Draws {
 public:
  Draws(std::uint64_t seed, File file, std::int64_t row) : key_(seed, Purpose::example_data), file_(file), row_(row) {}
  std::uint64_t below(std::uint64_t n) {
    return key_.below(n, static_cast<std::uint64_t>(row_), static_cast<std::uint32_t>(file_), next_++);
  }
  std::string_view kind(std::span<const Share> mix) {
    int at = static_cast<int>(below(100));
    for (const Share& share : mix) {
      at -= share.percent;
      if (at < 0) return share.kind;
    }
    return mix.back().kind;
  }

 private:
  RandomKey key_;
  File file_;
  std::int64_t row_;
  std::uint32_t next_ = 0;
};

std::string good(std::string_view answer, Draws& draws) { return fmt::format("{}{}.", polite[draws.below(2)], answer); }

/// An answer to another question of the same sort.
std::string wrong_answer(const ExampleQuestion& question, Draws& draws) {
  const bool is_capital = question.prompt.find("capital") != std::string::npos;
  const std::span<const Fact> facts = is_capital ? std::span<const Fact>(capitals) : std::span<const Fact>(opposites);
  const std::size_t at = draws.below(facts.size() - 1);
  const std::string_view answer = facts[at].answer;
  return std::string(answer == question.answer ? facts.back().answer : answer);
}

std::string response(const ExampleQuestion& question, std::string_view kind, Draws& draws) {
  if (kind == "good") return good(question.answer, draws);
  if (kind == "wrong") return good(wrong_answer(question, draws), draws);
  if (kind == "curt") return question.answer;
  if (kind == "rude") return fmt::format("{}{}.", draws.below(2) ? "Ugh. It is " : "Duh. ", question.answer);
  const std::string_view opening = polite[draws.below(2)];  // cut off behind "Sure!" or behind "It is"
  return std::string(opening.substr(0, draws.below(2) ? opening.find('!') + 1 : opening.size() - 1));
}

/// JSON lines, keys in the given order.
class Lines {
 public:
  void add(std::initializer_list<std::pair<const char*, std::string_view>> fields) {
    nlohmann::ordered_json row;
    for (const auto& [key, value] : fields) row[key] = value;
    text_ += row.dump() + "\n";
    ++rows_;
  }
  void add_sft(const ExampleQuestion& question, Draws draws) {
    const std::string_view kind = draws.kind(sft_mix);
    add({{"prompt", question.prompt}, {"response", response(question, kind, draws)}});
  }
  void add_preference(const ExampleQuestion& question, Draws draws) {
    const std::string_view kind = draws.kind(rejected_mix);
    const std::string chosen = good(question.answer, draws), rejected = response(question, kind, draws);
    add({{"prompt", question.prompt}, {"chosen", chosen}, {"rejected", rejected}, {"kind", kind}});
  }
  ExampleFile write(const std::string& folder, const std::string& name) const {
    write_file((std::filesystem::path(folder) / name).string(), text_);
    return {name, rows_, static_cast<std::int64_t>(text_.size())};
  }

 private:
  std::string text_;
  std::int64_t rows_ = 0;
};

}  // namespace

std::vector<ExampleQuestion> example_questions() {
  std::vector<ExampleQuestion> questions;
  std::size_t number = 0;
  const auto ask = [&](std::span<const Fact> facts, const auto& phrasings) {
    for (const Fact& fact : facts) {
      for (std::size_t phrasing = 0; phrasing < 4; ++phrasing)
        questions.push_back({fmt::format("{}{}{}", phrasings[phrasing].first, fact.subject, phrasings[phrasing].second),
                             std::string(fact.answer), phrasing == number % 4});
      ++number;
    }
  };
  ask(capitals, ask_capital);
  ask(opposites, ask_opposite);
  return questions;
}

bool preferred(std::string_view answer, std::string_view response) {
  for (const std::string_view opening : polite)
    if (response == fmt::format("{}{}.", opening, answer)) return true;
  return false;
}

std::vector<ExampleFile> write_example(const std::string& folder, std::uint64_t seed) {
  std::vector<ExampleQuestion> train, held_out;
  for (ExampleQuestion& question : example_questions()) (question.held_out ? held_out : train).push_back(std::move(question));
  const auto questions = static_cast<std::int64_t>(train.size());
  Lines sft, preference, prompts, heldout_prompts, heldout_sft, heldout_preference;
  // Each pass over the questions has its own order, so all are asked equally often.
  const auto sft_order = take(questions, seed, 0, sft_rows), preference_order = take(questions, seed, sft_rows, preference_rows);
  for (std::int64_t row = 0; row < sft_rows; ++row) sft.add_sft(train[sft_order[row]], {seed, File::sft, row});
  for (std::int64_t row = 0; row < preference_rows; ++row)
    preference.add_preference(train[preference_order[row]], {seed, File::preference, row});
  for (const ExampleQuestion& question : train) prompts.add({{"prompt", question.prompt}, {"answer", question.answer}});
  for (const ExampleQuestion& question : held_out) heldout_prompts.add({{"prompt", question.prompt}, {"answer", question.answer}});
  const auto asked = static_cast<std::int64_t>(held_out.size());
  for (std::int64_t row = 0; row < asked * heldout_sft_rows; ++row)
    heldout_sft.add_sft(held_out[row % asked], {seed, File::heldout_sft, row});
  for (std::int64_t row = 0; row < asked * heldout_preference_rows; ++row)
    heldout_preference.add_preference(held_out[row % asked], {seed, File::heldout_preference, row});
  return {sft.write(folder, "sft.jsonl"),
          preference.write(folder, "preference.jsonl"),
          prompts.write(folder, "prompts.jsonl"),
          heldout_prompts.write(folder, "heldout-prompts.jsonl"),
          heldout_sft.write(folder, "heldout-sft.jsonl"),
          heldout_preference.write(folder, "heldout-preference.jsonl")};
}

}  // namespace collimate
