#include "collimate/rlhf/rollout.hpp"

#include <algorithm>
#include <bit>

#include "collimate/rlhf/compute_grains.hpp"

namespace collimate::rlhf {
namespace {

// Continuations of consecutive samples as numbers, and back: count, finish, then (token, bits of its log-probability) pairs.
std::vector<std::int32_t> flatten(const std::vector<Continuation>& continuations) {
  std::vector<std::int32_t> flat;
  for (const Continuation& c : continuations) {
    flat.push_back(static_cast<std::int32_t>(c.tokens.size()));
    flat.push_back(c.finish == Finish::end_of_text);
    for (std::size_t t = 0; t < c.tokens.size(); ++t) {
      flat.push_back(c.tokens[t]);
      flat.push_back(std::bit_cast<std::int32_t>(c.logprobs[t]));
    }
  }
  return flat;
}

void append(Rollout& rollout, const std::vector<std::int32_t>& flat, const Tokenizer* tokenizer) {
  for (std::size_t at = 0; at < flat.size();) {
    Sequence& sequence = rollout.sequences[rollout.finish.size()];
    const auto count = static_cast<std::size_t>(flat[at]);
    rollout.finish.push_back(flat[at + 1] ? Finish::end_of_text : Finish::length);
    at += 2;
    std::vector<std::int32_t> tokens;
    for (std::size_t t = 0; t < count; ++t, at += 2) {
      tokens.push_back(flat[at]);
      rollout.sampler_logprob.push_back(std::bit_cast<float>(flat[at + 1]));
    }
    rollout.responses.push_back(tokenizer ? tokenizer->decode_after(sequence.tokens, tokens) : "");
    sequence.tokens.insert(sequence.tokens.end(), tokens.begin(), tokens.end());
    rollout.offsets.push_back(rollout.offsets.back() + static_cast<std::int64_t>(count));
  }
}

}  // namespace

std::vector<std::int64_t> Rollout::lengths() const {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < size(); ++i) out.push_back(offsets[i + 1] - offsets[i]);
  return out;
}

std::vector<std::int32_t> Rollout::prompt_ids(std::int64_t sample) const {
  const std::vector<std::int32_t>& all = sequences[sample].tokens;
  return {all.begin(), all.end() - (offsets[sample + 1] - offsets[sample])};
}

std::vector<std::int32_t> Rollout::response_ids(std::int64_t sample) const {
  const std::vector<std::int32_t>& all = sequences[sample].tokens;
  return {all.end() - (offsets[sample + 1] - offsets[sample]), all.end()};
}

std::int64_t Rollout::tokens() const {
  std::int64_t sum = 0;
  for (const Sequence& sequence : sequences) sum += static_cast<std::int64_t>(sequence.tokens.size());
  return sum;
}

std::int64_t longest_prompt(const Dataset& prompts) {
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < prompts.size(); ++i) longest = std::max(longest, prompts.rows(i));
  return longest;
}

Rollout sample_responses(const Session& session, Engine& policy, const TextRules& text, std::vector<PromptSample> prompts,
                         std::span<const std::int64_t> ids, const RolloutOptions& how) {
  const auto tokenizer = text.has_tokenizer() ? text.make_tokenizer() : nullptr;
  GenerateOptions options;
  options.sampling.temperature = how.temperature;
  options.max_new = how.max_new;
  options.key = how.key;
  options.stop = text.stops(tokenizer.get());
  Rollout rollout;
  rollout.ids.assign(ids.begin(), ids.end());
  rollout.offsets.push_back(0);
  for (std::size_t i = 0; i < prompts.size(); ++i)
    rollout.sequences.push_back({ids[i], prompts[i].tokens, static_cast<std::int64_t>(prompts[i].tokens.size())});
  const Part share = part_of(rollout.size(), session.data().rank(), session.data().size());
  std::vector<Prompt> mine;
  for (std::int64_t i = share.begin; i < share.begin + share.count; ++i)
    mine.push_back({rollout.sequences[i].tokens, static_cast<std::uint64_t>(ids[i])});
  std::vector<Continuation> sampled;
  compute_grains(session.division(), [&] { sampled = policy.generate(mine, options); });
  std::vector<std::vector<std::int32_t>> by_replica(session.data().size());
  const auto all = gather_all(session.ranks(), session.grid.speaks() ? flatten(sampled) : std::vector<std::int32_t>());
  for (int rank = 0; rank < static_cast<int>(all.size()); ++rank)
    if (!all[rank].empty()) by_replica[session.grid.coord_of(rank).data] = all[rank];
  for (const auto& flat : by_replica) append(rollout, flat, tokenizer.get());
  rollout.prompts = std::move(prompts);
  return rollout;
}

void add_ids(const Session& session, JsonLine& line, const Rollout& rollout, std::int64_t i) {
  if (!session.options.run.sample_ids) return;
  for (const auto& [key, ids] : {std::pair("prompt_ids", rollout.prompt_ids(i)), std::pair("response_ids", rollout.response_ids(i))})
    line.add(key, std::span<const std::int64_t>(std::vector<std::int64_t>(ids.begin(), ids.end())));
}

}  // namespace collimate::rlhf
