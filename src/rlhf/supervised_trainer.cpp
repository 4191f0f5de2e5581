#include "collimate/rlhf/supervised_trainer.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "collimate/data/order.hpp"
#include "collimate/rlhf/losses.hpp"

namespace collimate::rlhf {

std::int64_t steps_of(std::int64_t steps, double epochs, std::int64_t n, std::int64_t batch) {
  return steps ? steps : std::max<std::int64_t>(1, std::llround(epochs * static_cast<double>(n) / static_cast<double>(batch)));
}

std::int64_t most_tokens(const Dataset& data, std::int64_t batch) {
  std::vector<std::int64_t> rows(data.size());
  for (std::int64_t i = 0; i < data.size(); ++i) rows[i] = data.rows(i);
  std::sort(rows.begin(), rows.end(), std::greater<>());
  const std::int64_t epochs = batch / data.size(), rest = batch % data.size();
  const auto sum = [&](auto end) { return std::accumulate(rows.begin(), end, std::int64_t{0}); };
  return epochs * sum(rows.end()) + sum(rows.begin() + rest);
}

SupervisedTrainer::SupervisedTrainer(Session& session)
    : session_(session),
      options_(session.options.sft),
      data_(session.path(options_.data)),
      source_(find_source(session, "sft.init", options_.init, Head::policy, Accept::exact_or_random, data_)),
      steps_(steps_of(options_.steps, options_.epochs, data_.size(), options_.batch)),
      plan_(session.device),
      workspace_(plan_),
      rate_(options_.optimizer.learning_rate(steps_)) {
  data_.check_kind(DatasetKind::supervised);
  match_text(source_, data_, "sft.init = " + options_.init);
  check_lengths(session, data_, source_.card.config);
  if (!options_.heldout.empty()) {
    heldout_.emplace(session.path(options_.heldout));
    heldout_->check_kind(DatasetKind::supervised);
    match_text(source_, *heldout_, "sft.data");
    check_lengths(session, *heldout_, source_.card.config);
  }
  const std::int64_t grains = grain_bound(options_.batch, most_tokens(data_, options_.batch), session.options.machine.grain_tokens);
  engine_ = std::make_unique<Engine>("policy", source_.card.config, Head::policy, source_.card.shards,
                                     EngineUse{.rows = session.most_rows(), .most_grains = grains}, session.data().size(), workspace_);
  workspace_.reserve();
  plan_.check_limit(static_cast<std::size_t>(session.options.machine.device_memory));
}

std::string SupervisedTrainer::describe() const {
  return fmt::format("sft: {} samples, {} tokens, {} steps of {} samples, {} parameters\n{}", data_.size(), data_.tokens(), steps_,
                     options_.batch, engine_->store().layout().parameter_count(), plan_.report());
}

std::vector<Sequence> SupervisedTrainer::load(const Dataset& data, std::span<const std::int64_t> samples) const {
  std::vector<Sequence> out;
  for (const std::int64_t i : samples) {
    SupervisedSample sample = data.supervised(i);
    const auto prompt = std::find(sample.mask.begin(), sample.mask.end(), 1) - sample.mask.begin();
    out.push_back({i, std::move(sample.tokens), prompt});
  }
  return out;
}

void SupervisedTrainer::run() {
  plan_.commit(static_cast<std::size_t>(session_.options.machine.device_memory));
  engine_->prepare();
  optimizer_ = std::make_unique<Optimizer>(engine_->store(), options_.optimizer.how(), options_.optimizer.clip);
  if (const auto found = find_resume(session_, "sft"))
    resume(found->folder);
  else
    load_source(session_, source_, engine_->store());
  session_.log.info("{}", describe());
  const Stopwatch watch;
  progress_ = std::make_unique<Progress>(session_, "sft", first_, steps_, options_.log_every);
  for (std::int64_t step = first_ + 1; step <= steps_; ++step) {
    learn(step);
    const bool last = step == steps_;
    if (heldout_ && (last || (options_.evaluate_every && step % options_.evaluate_every == 0))) evaluate(step);
    ++session_.steps_done;
    if (!last && (session_.stop_due() || (options_.checkpoint_every && step % options_.checkpoint_every == 0))) save(step, false);
    if (!last && session_.stop_due()) session_.stop();
  }
  session_.timings(JsonLine().add("stage", "sft").add("stage_seconds", watch.seconds()));
  session_.summary.set("sft.state_hash", hash_text(engine_->store(), session_.device));
  save(steps_, true);
}

void SupervisedTrainer::learn(std::int64_t step) {
  const auto seed = static_cast<std::uint64_t>(session_.options.run.seed);
  const auto samples = take(data_.size(), seed, (step - 1) * options_.batch, options_.batch, options_.shuffle);
  const Batch batch(load(data_, samples), session_.options.machine.grain_tokens, session_.data());
  if (step == first_ + 1) session_.warn_of_idle_ranks("sft", batch.grains());
  const TokenCounts counts = count_tokens(batch.learned_lengths());
  const Dropout dropout{source_.card.config.dropout, seed, step};
  engine_->begin_step(batch.first());
  const auto grains = over_grains(batch, session_.data(), [&](std::int64_t g) -> std::vector<double> {
    const PackedGrain grain = batch.pack(g);
    std::vector<float> weight(grain.tokens.size());
    for (std::size_t r = 0; r < weight.size(); ++r)
      weight[r] = grain.targets[r] >= 0 ? token_weight(Aggregation::token_mean, 1, counts) : 0;
    SupervisedTotals totals;
    double bad = -1;
    engine_->forward_backward(view_of(grain), 1.0f, dropout, [&](std::int64_t row, auto logprob, auto, auto dlogprob, auto) {
      const auto chunk = supervised_loss(logprob, std::span(weight).subspan(row, logprob.size()), dlogprob);
      if (chunk.first_bad_row >= 0 && bad < 0) bad = static_cast<double>(grain.samples[row + chunk.first_bad_row]);
      totals += chunk;
    });
    return {totals.loss, totals.nats, static_cast<double>(totals.tokens), bad};
  });
  double loss = 0;
  for (const auto& grain : grains) {
    if (grain[3] >= 0)
      throw AgreedError(
          ExitCode::failure,
          fmt::format("the loss of sample {} of '{}' is not finite at sft step {}: lower sft.rate or look at the sample", grain[3],
                      data_.path(), step));
    loss += grain[0];
  }
  engine_->finish_step(session_.data(), batch.grains());
  const StepReport report = optimizer_->step(rate_.at(step), session_.device.stream());
  JsonLine line;
  line.add("stage", "sft").add("step", step).add("loss", loss).add("rate", report.rate).add("gradient_norm", report.gradient_norm);
  line.add("tokens", counts.tokens).add("samples", step * options_.batch);
  const std::int64_t every = session_.options.run.hash_every;
  if (every && step % every == 0) line.add("state_hash", hash_text(engine_->store(), session_.device));
  session_.metrics(line);
  progress_->step(step, batch.tokens(), fmt::format("loss {:.4f}  norm {:.3f}  rate {:.2e}", loss, report.gradient_norm, report.rate));
}

void SupervisedTrainer::evaluate(std::int64_t step) {
  double nats = 0;
  std::int64_t tokens = 0, bytes = 0;  // of what is learned; a response may be cut, so its bytes are those of its tokens
  std::vector<float> entropy;
  const auto tokenizer = source_.text.make_tokenizer();
  for (std::int64_t begin = 0; begin < heldout_->size(); begin += 1024) {
    std::vector<std::int64_t> samples(std::min<std::int64_t>(1024, heldout_->size() - begin));
    std::iota(samples.begin(), samples.end(), begin);
    const Batch batch(load(*heldout_, samples), session_.options.machine.grain_tokens, session_.data());
    for (const Sequence& sequence : batch.sequences()) {
      const std::span<const std::int32_t> tokens(sequence.tokens);
      const std::size_t first = tokens.size() - static_cast<std::size_t>(sequence.learned());
      bytes += static_cast<std::int64_t>(tokenizer->decode_after(tokens.first(first), tokens.subspan(first)).size());
    }
    for (const float logprob : per_token(batch, session_.data(), [&](const Grain&grain, std::span<float> out) {
           entropy.resize(out.size());
           engine_->score(grain, 1.0f, out, entropy);
         })) {
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

void SupervisedTrainer::save(std::int64_t step, bool complete) {
  save_stage(session_, "sft", step, complete, {{"policy", source_.card, &engine_->store(), !complete}}, source_.text);
}

void SupervisedTrainer::resume(const std::string& folder) {
  const SavedModels saved(folder);
  first_ = nlohmann::json::parse(saved.progress())["step"];
  saved.load("policy", engine_->store(), true);
  optimizer_->set_steps(first_);
  session_.log.info("sft    goes on after step {} of {}", first_, folder);
}

}  // namespace collimate::rlhf
