#include "collimate/rlhf/supervised_trainer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "collimate/rlhf/compute_grains.hpp"
#include "collimate/rlhf/losses.hpp"

namespace collimate::rlhf {

SupervisedTrainer::SupervisedTrainer(Session& session)
    : BatchTrainer(session, session.options.sft, {"sft", "policy", DatasetKind::supervised, Head::policy, Accept::exact_or_random}),
      options_(session.options.sft) {}

std::string SupervisedTrainer::describe() const {
  return fmt::format("sft: {} samples, {} tokens, {}, {}\n{}{}", data_.size(), data_.tokens(),
                     steps_text(steps_, options_.batch, data_.size(), "samples"), model_.describe(), memory_->plan.report(),
                     describe_division(session_, *model_.engine, grains_));
}

Batch SupervisedTrainer::load(const Session& session, const Dataset& data, std::span<const std::int64_t> samples) {
  std::vector<Sequence> sequences;
  for (const std::int64_t i : samples) {
    SupervisedSample sample = data.supervised(i);
    const auto first = std::find(sample.mask.begin(), sample.mask.end(), 1);
    const std::int64_t prompt = first - sample.mask.begin();
    const bool whole = std::find(first, sample.mask.end(), 0) == sample.mask.end();  // one answer, to the end
    sequences.push_back({i, std::move(sample.tokens), prompt, whole ? std::vector<std::uint8_t>() : std::move(sample.mask)});
  }
  return session.batch(std::move(sequences));
}

std::int64_t SupervisedTrainer::first_grains() const { return load(session_, data_, samples_of(1, options_.shuffle)).grains(); }

void SupervisedTrainer::learn(std::int64_t step) {
  const Batch batch = load(session_, data_, samples_of(step, options_.shuffle));
  const TokenCounts counts = count_tokens(batch.learned_lengths());
  const auto loss_of = [&](std::int64_t g, const PackedGrain& grain, GrainResult<SupervisedTotals>& result) -> TokenLoss {
    return [&, weight = row_weights(batch, g, grain, Aggregation::token_mean, counts)](std::int64_t row, auto logprob, auto, auto dlogprob,
                                                                                      auto) {
      const auto chunk = supervised_loss(logprob, std::span(weight).subspan(row, logprob.size()), dlogprob);
      if (chunk.first_bad_row >= 0 && result.bad_sample < 0) result.bad_sample = grain.samples[row + chunk.first_bad_row];
      result.totals += chunk;
    };
  };
  const auto totals = update<SupervisedTotals>(step, batch, loss_of, [&](const std::string& what, std::int64_t sample) {
    return fmt::format("the {} of sample {} of '{}' is not finite at sft step {}: lower sft.rate or look at the sample", what, sample,
                       data_.path(), step);
  });
  JsonLine line;
  line.add("stage", "sft").add("step", step).add("loss", totals.loss).add("rate", model_.last.rate);
  line.add("gradient_norm", model_.last.gradient_norm).add("tokens", counts.tokens).add("samples", step * options_.batch);
  report(step, line, batch.tokens(), fmt::format("loss {:.4f}", totals.loss));
}

namespace {
/// Bytes of the text that the learned tokens are, run by run.
std::int64_t learned_bytes(const Sequence& sequence, const Tokenizer& tokenizer) {
  const std::span<const std::int32_t> tokens(sequence.tokens);
  const auto learned = [&](std::size_t t) {
    return sequence.mask.empty() ? static_cast<std::int64_t>(t) >= std::max<std::int64_t>(1, sequence.prompt) : sequence.mask[t] != 0;
  };
  std::int64_t bytes = 0;
  for (std::size_t t = 1, end = 0; t < tokens.size(); t = end + 1) {
    end = t;
    while (end < tokens.size() && learned(end)) ++end;
    if (end > t) bytes += static_cast<std::int64_t>(tokenizer.decode_after(tokens.first(t), tokens.subspan(t, end - t)).size());
  }
  return bytes;
}
}  // namespace

void SupervisedTrainer::evaluate(std::int64_t step) {
  const PhaseTime timing(session_, "sft", "evaluate");
  double nats = 0;
  std::int64_t tokens = 0, bytes = 0;  // of what is learned; a response may be cut, so its bytes are those of its tokens
  const auto tokenizer = source_.text.make_tokenizer();
  for (std::int64_t begin = 0; begin < heldout_->size(); begin += 1024) {
    std::vector<std::int64_t> samples(std::min<std::int64_t>(1024, heldout_->size() - begin));
    std::iota(samples.begin(), samples.end(), begin);
    const Batch batch = load(session_, *heldout_, samples);
    for (const Sequence& sequence : batch.sequences()) bytes += learned_bytes(sequence, *tokenizer);
    for (const float logprob : token_logprobs(batch, session_.division(), *model_.engine, 1.0f)) {
      nats -= logprob;
      ++tokens;
    }
  }
  const double loss = nats / static_cast<double>(tokens);
  session_.summary.set("sft.eval_loss", loss);
  session_.summary.set("sft.eval_perplexity", std::exp(loss));
  JsonLine line;
  line.add("stage", "sft").add("step", step).add("eval_loss", loss).add("eval_tokens", tokens);
  std::string per_byte;
  if (bytes > 0) {  // comparable between tokenizers
    const double nats_per_byte = nats / static_cast<double>(bytes);
    session_.summary.set("sft.eval_nats_per_byte", nats_per_byte);
    line.add("eval_nats_per_byte", nats_per_byte).add("eval_bytes", bytes);
    per_byte = fmt::format(", {:.4f} nats per byte", nats_per_byte);
  }
  session_.metrics(line);
  session_.log.info("sft    held-out loss {:.4f} nats per token{}, perplexity {:.3f}, {} tokens", loss, per_byte, std::exp(loss), tokens);
}

}  // namespace collimate::rlhf
