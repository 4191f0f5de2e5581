#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace collimate {

/// One question of the quickstart task and its only right answer.
struct ExampleQuestion {
  std::string prompt, answer;
  bool held_out = false;  ///< one of the four phrasings of each fact is shown in no training file
};

/// The quickstart's closed world: 30 capitals and 30 opposites, each asked in four phrasings, 240 questions in a fixed order.
/// Held out are phrasings, not facts.
std::vector<ExampleQuestion> example_questions();

/// A good answer is polite, complete and right: "Sure! It is Paris." or "Of course! It is Paris.", ended by the end of the text.
bool preferred(std::string_view answer, std::string_view response);

struct ExampleFile {
  std::string name;
  std::int64_t rows = 0, bytes = 0;
};

/// Writes the quickstart's data as JSONL into a folder, less than 1,000,000 bytes in all; equal seeds give equal files.
/// sft.jsonl {prompt, response}: good 50 %, rude 20 %, curt 15 %, cut off 10 %, wrong 5 %.
/// preference.jsonl {prompt, chosen, rejected, kind}: chosen is good; kind of the rejected: wrong 30 %, curt 25 %, rude 25 %, cut 20 %.
/// prompts.jsonl {prompt, answer}: each training question once.
/// heldout-prompts.jsonl, heldout-sft.jsonl (6 rows a question), heldout-preference.jsonl (8 rows a question): held-out phrasings.
std::vector<ExampleFile> write_example(const std::string& folder, std::uint64_t seed);

}  // namespace collimate
