#pragma once
#include <cmath>

#include "collimate/rlhf/compute_grains.hpp"
#include "collimate/rlhf/keeping.hpp"
#include "collimate/rlhf/saved_models.hpp"
#include "collimate/rlhf/session.hpp"

namespace collimate::rlhf {

/// A model that learns: its engine, its optimizer and the rate of its steps.
struct Learner {
  std::unique_ptr<Engine> engine;
  LearningRate rate;
  std::unique_ptr<Optimizer> optimizer;  ///< made once the memory plan is committed
  StepReport last;                       ///< what the last step did
  std::string state_hash = {};           ///< after the last step, where it was hashed

  ParameterStore& store() const { return engine->learning(); }  ///< what learns
  void start(const OptimizerOptions& options);  ///< engine and optimizer, once the memory plan is committed
  /// Goes on from a checkpoint of a stage, `steps` optimizer steps after its start; the engine is filled with what the stage started from.
  void resume(const SavedModels& saved, const std::string& model, std::int64_t steps);
  std::string describe() const;  ///< "1234 parameters", and how many of them learn
};

/// Optimizer steps of a stage: as many as the deck says, or as its epochs need. The last step is as large as the others: behind the last
/// sample that the epochs ask for it goes on with the next ones, so that every pass covers all samples.
std::int64_t steps_of(const TrainingOptions& options, std::int64_t samples);
/// "2 steps of 10 samples (1.43 passes)", and how many samples they leave out.
std::string steps_text(std::int64_t steps, std::int64_t batch, std::int64_t samples, const std::string& noun);

/// Whether other numbers of steps have other rates, behind the warm-up.
inline bool depends_on_steps(const LearningRate& rate) { return rate.shape != "constant" && rate.final_share != 1; }

/// A sentence where the warm-up that the deck calls `option` is longer than its stage, so that the rate never reaches its peak; or nothing.
std::vector<std::string> warmup_warnings(const std::string& option, const LearningRate& rate);

/// What one grain of an optimizer step found.
template <class Totals>
struct GrainResult {
  Totals totals;
  std::int64_t bad_sample = -1;  ///< the first whose loss is not finite
};

/// The first i in [0, n) such that fine(i + 1) is false; fine(n) is. By bisection.
std::int64_t first_without(std::int64_t n, const std::function<bool(std::int64_t)>& fine);

/// How the forward of an optimizer step runs.
struct StepOptions {
  float temperature = 1;
  Dropout dropout = {};
};

/// The gradients of a batch's grains, added in their order, and the totals of all grains on every rank. Of the sequences from `count` on
/// nothing is learned. See optimizer_step.
template <class Totals, class LossOf, class Sentence>
Totals add_gradients(const Session& session, Learner& model, const Batch& batch, std::int64_t count, const StepOptions& how,
                     const LossOf& loss_of, const Sentence& sentence) {
  const std::vector<PackedGrain> packed = batch.pack_mine();
  std::vector<GrainResult<Totals>> results(packed.size());
  std::vector<decltype(loss_of(0, packed[0], results[0]))> losses(packed.size());
  for (std::size_t i = 0; i < packed.size(); ++i)
    if (batch.mine()[i] >= 0) losses[i] = loss_of(batch.mine()[i], packed[i], results[i]);
  const auto learned = [&](std::size_t i, std::int64_t row, std::span<float> gradient) {
    batch.leave_out(count, batch.mine()[i], packed[i], row, gradient);
  };
  model.engine->begin_step(batch.grains());
  compute_grains(session.division(), [&] {
    if constexpr (std::is_same_v<decltype(loss_of(0, packed[0], results[0])), TokenLoss>)
      model.engine->forward_backward(views_of(packed), how.temperature, how.dropout,
                                     [&](std::size_t i, std::int64_t row, auto logprob, auto entropy, auto dlogprob, auto dentropy) {
                                       losses[i](row, logprob, entropy, dlogprob, dentropy);
                                       learned(i, row, dlogprob);
                                       learned(i, row, dentropy);
                                     });
    else
      model.engine->forward_backward(views_of(packed), how.dropout, [&](std::size_t i, auto values, auto dvalues) {
        losses[i](values, dvalues);
        learned(i, 0, dvalues);
      });
  });
  Totals sum;
  for (const auto& grain : batch.gather(results)) {
    if (grain.bad_sample >= 0) throw AgreedError(ExitCode::failure, sentence("loss", grain.bad_sample));
    sum += grain.totals;
  }
  model.engine->finish_step();
  return sum;
}

/// The optimizer step `name` of a global batch: the gradients of its grains, then the update.
/// `loss_of(g, grain, result)` gives the loss of grain g, a TokenLoss or a ValueLoss, which writes what it finds into the GrainResult; it
/// is called for the grains of this rank's replica, and the losses where the rank has the model's end. The totals of all grains come back
/// on every rank. A loss that is not finite stops all ranks with `sentence("loss", sample)`, a gradient that is not with
/// `sentence("gradient", sample)` (the first sample that makes it so, found by computing the step again with fewer), before anything is
/// changed. On the steps that run.hash_every names, gradient and new values are hashed.
template <class Totals, class LossOf, class Sentence>
Totals optimizer_step(const Session& session, Learner& model, const StepName& name, const Batch& batch, const StepOptions& how,
                      const LossOf& loss_of, const Sentence& sentence) {
  const auto add = [&](std::int64_t count) { return add_gradients<Totals>(session, model, batch, count, how, loss_of, sentence); };
  const auto all = static_cast<std::int64_t>(batch.sequences().size());
  const Totals sum = add(all);
  const bool hash = session.hash_due(name.step);
  if (hash) write_hashes(session, name, model.store(), Kind::gradient);
  const double rate = model.rate.at(model.optimizer->steps() + 1);
  try {
    model.last = model.optimizer->step(rate);
  } catch (const AgreedError&) {
    if (std::isfinite(model.store().gradient_squares())) throw;
    const std::int64_t broken = first_without(all, [&](std::int64_t count) {
      add(count);
      return std::isfinite(model.store().gradient_squares());
    });
    throw AgreedError(ExitCode::failure, sentence("gradient", batch.sequences()[broken].id));
  }
  model.state_hash = hash && session.hashes_values() ? write_hashes(session, name, model.store(), Kind::value) : "";
  return sum;
}

/// A line of the log where optimizer steps of this start were pending.
void tell_pending_steps(const Session& session, const std::string& stage, const std::vector<const Learner*>& models);

/// Hashes what a stage's engines (null: none) start with, frozen parameters and adapters included, if the deck wants hashes. Collective.
void hash_start(const Session& session, const std::string& stage, const std::vector<Engine*>& engines);

/// The weight of each row of a grain in a loss over `counts` tokens; 0 where nothing is learned.
std::vector<float> row_weights(const Batch& batch, std::int64_t g, const PackedGrain& grain, Aggregation aggregation,
                               const TokenCounts& counts);

/// The steps that a stage has before it, and what it does now and then.
struct Schedule {
  std::string stage;
  std::int64_t done = 0, steps = 0;
  std::int64_t evaluate_every = 0, checkpoint_every = 0;  ///< 0: never before the last step
};
/// Learns step after step, and evaluates, saves (not after the last step) and stops where schedule and deck say so. With run.keep_best the
/// checkpoint of an evaluation that is the best so far is saved, too.
void run_steps(Session& session, const Schedule& schedule, const std::function<void(std::int64_t)>& learn,
               const std::function<void(std::int64_t)>& evaluate, const std::function<void(std::int64_t)>& save);

/// A stage that trains one model on one dataset, a batch after the other: data, model, memory, and its run from start or checkpoint to the
/// last step. What is learned from a batch is the stage's own.
class BatchTrainer {
 public:
  virtual ~BatchTrainer() = default;
  virtual std::string describe() const = 0;  ///< data, steps and memory lines
  virtual std::int64_t first_grains() const = 0;  ///< of the first step's batch
  std::vector<std::string> warnings() const;      ///< of the deck's values, to be said before the run
  /// Plans the memory as the deck says now, without reading anything again; may be repeated before run. Throws where it does not fit (exit 3).
  void plan();
  const MemoryPlan& memory() const { return memory_->plan; }
  std::int64_t step_grains() const { return grains_; }  ///< most of an optimizer step, over all replicas
  Traffic traffic() const;
  void run();

 protected:
  struct Spec {
    std::string stage, model;
    DatasetKind data;
    Head head;
    Accept start;
  };
  BatchTrainer(Session& session, const TrainingOptions& options, Spec spec);
  virtual void learn(std::int64_t step) = 0;
  virtual void evaluate(std::int64_t step) = 0;  ///< on the held-out data, which are there
  /// Before a checkpoint: whole, one that others may start from, or one to go on from alone.
  virtual void finish(bool whole) { static_cast<void>(whole); }

  /// Numbers of the samples of a step's batch.
  std::vector<std::int64_t> samples_of(std::int64_t step, bool shuffle = true) const;
  Dropout dropout_of(std::int64_t step) const;
  /// optimizer_step of this stage's model, which is told of ranks without work at its first one.
  template <class Totals, class LossOf, class Sentence>
  Totals update(std::int64_t step, const Batch& batch, const LossOf& loss_of, const Sentence& sentence) {
    if (step == done_ + 1) session_.warn_of_idle_ranks(spec_.stage, batch.grains());
    return optimizer_step<Totals>(session_, model_, {spec_.stage, step}, batch, {.dropout = dropout_of(step)}, loss_of, sentence);
  }
  void report(std::int64_t step, JsonLine line, std::int64_t tokens, const std::string& details);

  Session& session_;
  Spec spec_;
  Dataset data_;
  std::optional<Dataset> heldout_;
  Source source_;
  std::int64_t steps_, done_ = 0, grains_ = 0;  // grains_: most of an optimizer step
  std::optional<StageMemory> memory_;
  Learner model_;

 private:
  void save(std::int64_t step, bool complete);
  void resume(const std::string& folder);

  const TrainingOptions& options_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace collimate::rlhf
