#include "data/sample_maker.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"

namespace collimate {
namespace {

/// What stands behind the first `from` bytes.
TemplateText behind(const TemplateText& text, std::size_t from) {
  TemplateText out{text.text.substr(from)};
  for (const TextRange& own : text.own)
    if (own.end > from) out.own.push_back({own.begin > from ? own.begin - from : 0, own.end - from});
  return out;
}

/// Where an answer ends in a later prompt of its dialogue.
struct AnswerEnd {
  std::size_t bytes = 0;     ///< of the later prompt, up to what stands behind the answer
  bool suffix = false;       ///< the later prompt has the end that a response has, which counts as the answer's own
  bool end_of_text = false;  ///< and its end of text
};

/// before: the prompt of the answer; later: a longer one, which goes on behind it; eos: the text of the end of text, or "".
AnswerEnd end_of_answer(const Template& rules, const Example& asked, const TemplateText& before, const std::string& answer,
                        const TemplateText& later, std::string_view eos) {
  Template bare = rules;
  bare.response_prefix = bare.response_suffix = "";
  const std::string words = bare.response_text(asked, answer).text;
  std::string_view rest = later.text;
  const bool goes_on = rest.starts_with(before.text);
  if (goes_on) rest.remove_prefix(before.text.size());
  require(
      goes_on && rest.starts_with(words),
      "{}: the template writes an answer in the middle of a dialogue otherwise than at its end, so --learn all cannot be used with it; use "
      "--learn last",
      asked.place);
  AnswerEnd end;
  const auto take = [&](std::string_view part) {
    const bool there = !part.empty() && rest.starts_with(part);
    if (there) rest.remove_prefix(part.size());
    return there;
  };
  rest.remove_prefix(words.size());
  end.suffix = take(rules.response_suffix);
  end.end_of_text = take(eos);
  end.bytes = later.text.size() - rest.size();
  return end;
}

}  // namespace

std::vector<SupervisedSample> SampleMaker::supervised(const Example& example, LengthCounts& counts) const {
  if (example.is_text && text_window_ > 0) return windows(example, counts);
  if (std::any_of(example.turns.begin(), example.turns.end(), [](const Turn& turn) { return turn.learned.has_value(); }))
    return dialogue(example, counts);
  SupervisedSample sample;
  std::vector<std::int32_t> response;
  TemplateText prompt = encoder_.rules().prompt_text(example), answer = encoder_.rules().response_text(example, *example.response);
  special_.look_at(prompt);
  special_.look_at(answer);
  if (!encoder_.prompt(prompt, example.place, sample.tokens, counts)) return {};
  if (!encoder_.response(answer, sample.tokens, example.place, response, counts)) return {};
  if (example.is_text && sample.tokens.size() == 1 && response.front() == sample.tokens.front())
    response.erase(response.begin());  // a text that begins with BOS itself
  sample.prompt = std::move(prompt.text);
  sample.response = std::move(answer.text);
  sample.mask.assign(sample.tokens.size(), 0);
  sample.mask.resize(sample.tokens.size() + response.size(), 1);
  sample.tokens.insert(sample.tokens.end(), response.begin(), response.end());
  require(sample.tokens.size() > 1, "{}: a sample of one token has nothing to learn; take it out or let a BOS be added", example.place);
  return {std::move(sample)};
}

PreferenceGroup SampleMaker::preference(const std::vector<Example>& examples, LengthCounts& counts) const {
  PreferenceGroup group;
  TemplateText prompt = encoder_.rules().prompt_text(examples.front());
  special_.look_at(prompt);
  if (!encoder_.prompt(prompt, examples.front().place, group.prompt, counts)) return {};
  for (const Example& example : examples) {
    PreferencePair pair;
    TemplateText chosen = encoder_.rules().response_text(example, *example.chosen);
    TemplateText rejected = encoder_.rules().response_text(example, *example.rejected);
    special_.look_at(chosen);
    special_.look_at(rejected);
    pair.margin = example.margin;
    pair.category = example.category;
    require(chosen.text != rejected.text, "{}: 'chosen' and 'rejected' are equal; take the record out", example.place);
    if (!encoder_.response(chosen, group.prompt, example.place, pair.chosen, counts)) continue;
    if (!encoder_.response(rejected, group.prompt, example.place, pair.rejected, counts)) continue;
    if (pair.chosen == pair.rejected) {  // what told them apart was cut off
      ++counts.dropped;
      continue;
    }
    pair.chosen_text = std::move(chosen.text);
    pair.rejected_text = std::move(rejected.text);
    group.pairs.push_back(std::move(pair));
  }
  group.text = std::move(prompt.text);
  return group;
}

PromptSample SampleMaker::prompt(const Example& example, LengthCounts& counts) const {
  PromptSample sample;
  TemplateText text = encoder_.rules().prompt_text(example);
  special_.look_at(text);
  sample.answer = example.answer.value_or("");
  if (!encoder_.prompt(text, example.place, sample.tokens, counts)) return {};
  require(!sample.tokens.empty(), "{}: the prompt has no token; take it out or let a BOS be added", example.place);
  sample.text = std::move(text.text);
  return sample;
}

/// Consecutive samples of plain text. Each starts with the token before it (BOS, or the text's first token, in the first one), which
/// is not learned again, so every later token is learned exactly once.
std::vector<SupervisedSample> SampleMaker::windows(const Example& example, LengthCounts& counts) const {
  const Tokenizer& tokenizer = encoder_.tokenizer();
  TemplateText text = encoder_.rules().response_text(example, *example.response);
  special_.look_at(text);
  std::vector<std::int32_t> tokens = tokenizer.encode(text.text, text.own);
  counts.unknown += encoder_.count_unknown(tokens);
  const Template& rules = encoder_.rules();
  if (rules.starts_with_bos(true) && (tokens.empty() || tokens.front() != tokenizer.bos())) tokens.insert(tokens.begin(), *tokenizer.bos());
  if (rules.ends_with_eos(true) && (tokens.empty() || tokens.back() != tokenizer.eos())) tokens.push_back(*tokenizer.eos());
  std::vector<SupervisedSample> samples;
  const std::size_t step = static_cast<std::size_t>(text_window_) - 1;
  for (std::size_t first = 0; first + 1 < tokens.size(); first += step) {
    const auto all = std::span<const std::int32_t>(tokens), window = all.subspan(first, std::min(step + 1, all.size() - first));
    SupervisedSample& sample = samples.emplace_back();
    sample.tokens.assign(window.begin(), window.end());
    sample.mask.assign(window.size(), 1);
    sample.mask[0] = 0;
    sample.prompt = tokenizer.decode_after(all.first(first), window.first(1));
    sample.response = tokenizer.decode_after(all.first(first + 1), window.subspan(1));
  }
  require(!samples.empty(), "{}: a text of one token has nothing to learn; take it out", example.place);
  return samples;
}

/// A dialogue in which every answer ends as a response does, learned or not. An end of text that is only added stands in the middle where
/// nothing else ends the answers.
std::vector<SupervisedSample> SampleMaker::dialogue(const Example& example, LengthCounts& counts) const {
  const Template& rules = encoder_.rules();
  const Tokenizer& tokenizer = encoder_.tokenizer();
  const std::string eos = rules.add_eos ? tokenizer.piece(*tokenizer.eos()) : "";
  SupervisedSample sample;
  std::vector<Turn> turns = example.turns;
  turns.push_back({"assistant", *example.response, true});
  std::vector<std::int32_t> ids;
  TemplateText before, answer;
  Example asked = example;
  bool eos_added = false;
  const auto add = [&](bool learned) {
    sample.tokens.insert(sample.tokens.end(), ids.begin(), ids.end());
    sample.mask.resize(sample.tokens.size(), learned);
  };
  for (std::size_t t = 0; t < turns.size(); ++t) {
    if (turns[t].role != "assistant") continue;
    Example next = example;
    next.turns.assign(turns.begin(), turns.begin() + static_cast<std::ptrdiff_t>(t));
    TemplateText prompt = rules.prompt_text(next);
    if (sample.tokens.empty()) {
      TemplateText first = prompt;
      special_.look_at(first);
      ids = encoder_.prompt_tokens(first, counts);
    } else {
      const AnswerEnd end = end_of_answer(rules, asked, before, turns[asked.turns.size()].text, prompt, eos);
      if (eos_added && end.suffix && !end.end_of_text) sample.tokens.pop_back(), sample.mask.pop_back();
      TemplateText rest = behind(prompt, end.bytes);
      special_.look_at(rest);
      ids = encoder_.tokens_after(sample.tokens, rest, counts);
    }
    add(false);
    answer = rules.response_text(next, turns[t].text);
    special_.look_at(answer);
    LengthCounts once;
    const std::size_t own = encoder_.tokens_after(sample.tokens, answer, once).size();
    if (!encoder_.response(answer, sample.tokens, example.place, ids, counts)) return {};
    eos_added = ids.size() > own;
    add(turns[t].learned.value_or(false));
    before = std::move(prompt);
    asked = std::move(next);
  }
  if (!fit_before(sample, ids.size(), example, counts)) return {};
  sample.prompt = std::move(before.text);
  sample.response = std::move(answer.text);
  return {std::move(sample)};
}

/// Applies the limit of prompts to all that stands before the last answer. An answer that lost its beginning is not learned.
bool SampleMaker::fit_before(SupervisedSample& sample, std::size_t response, const Example& example, LengthCounts& counts) const {
  const std::size_t before = sample.tokens.size() - response;
  std::vector<std::int32_t> prompt(sample.tokens.begin(), sample.tokens.begin() + static_cast<std::ptrdiff_t>(before));
  if (!encoder_.fit_prompt(prompt, encoder_.rules().add_bos, example.place, counts)) return false;
  const std::size_t gone = before - prompt.size();
  if (gone == 0) return true;
  const std::size_t keep = std::min<std::size_t>(encoder_.rules().add_bos, prompt.size());
  for (std::size_t i = keep + gone; i < before && sample.mask[i] && sample.mask[keep + gone - 1]; ++i) sample.mask[i] = 0;
  const auto cut = [&](auto& values) {
    values.erase(values.begin() + static_cast<std::ptrdiff_t>(keep), values.begin() + static_cast<std::ptrdiff_t>(keep + gone));
  };
  cut(sample.tokens), cut(sample.mask);
  return true;
}

}  // namespace collimate
