#include "collimate/rlhf/options.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/model/families.hpp"

namespace collimate::rlhf {
namespace {

// Far more than any run, and few enough to be counted together.
constexpr double most_steps = 1e9, most_epochs = 1e6, most_tokens = 2147483647;

}  // namespace

void RunOptions::declare(OptionTable& t) {
  t.add("run.folder", folder, "where the run writes: deck, log, metrics, samples, checkpoints, summary", path_to_write());
  t.add("run.stages", stages, "stages in order: prepare (makes the quickstart's data), sft, reward, ppo, evaluate",
        one_of({"prepare", "sft", "reward", "ppo", "evaluate"}));
  t.add("run.seed", seed, "seed of every random number of the run", at_least(0));
  t.add("run.hash_every", hash_every,
        "gradient and values of every tensor are hashed, and replicas compared, every so many steps and PPO iterations (0: at the end only)",
        at_least(0), "steps");
  t.add("restart", restart,
        "auto: go on from the last checkpoint in run.folder; replace: start over; none: refuse a folder that holds a run",
        one_of({"none", "auto", "replace"}));
  t.add("run.stop_after", stop_after,
        "save, and end with exit code 75, after so many optimizer steps or PPO iterations of this start (0: never)", at_least(0), "steps");
  t.add("run.sample_ids", sample_ids, "samples.jsonl, and what a scorer's program reads, have the token ids of prompts and responses too");
  t.add("run.keep_last", keep_last, "checkpoints of each stage that stay, the one of its end included; while a stage runs it has at least two",
        between(1, 1 << 30));
  t.add("run.keep_every", keep_every, "a checkpoint of every so many-th step or PPO iteration is written and stays (0: none)", at_least(0), "steps");
  t.add("run.keep_best", keep_best,
        "the checkpoint of the best evaluation of each stage stays: by held-out loss (sft), accuracy (reward) or reward (ppo)");
  t.add("allow-new-bits", allow_new_bits, "restart on another instruction set although the numbers will differ in their last bits");
  t.add("check", check, "check deck, files, tokenizers and memory, print them and exit");
  t.command_line_only({"restart", "allow-new-bits", "check"});
}

void MachineOptions::declare(OptionTable& t) {
  t.add("grid.tensor", tensor, "ranks that share each layer; divides numerics.tensor_shards", between(1, 1 << 20), "ranks");
  t.add("grid.data", data, "replicas that share each batch (0: all ranks)", between(0, 1 << 20), "ranks");
  t.add("grid.pipeline", pipeline, "stages into which the blocks of each model are divided", between(1, 1 << 20), "ranks");
  t.add("grid.order", order, "the axes in the order in which they vary from rank to rank, the fastest first",
        one_of({"tensor", "data", "pipeline"}));
  t.add("params.zero", zero,
        "what each replica holds only its share of: 0 nothing, 1 optimizer state, 2 gradients too, 3 values too (ZeRO)", between(0, 3));
  t.add("engine.recompute", recompute,
        "computed again in the backward instead of kept: nothing, the inputs of attention and activation, or all of a block",
        one_of({"none", "selective", "full"}));
  t.add("engine.recompute_every", recompute_every, "only every so many-th block computes again", between(1, 4096), "blocks");
  t.add("numerics.mode", mode,
        "exact: the same bits on every grid; fast: sums in whatever order is quickest, so that numbers depend on the ranks",
        one_of({"exact", "fast"}));
  t.add("numerics.tensor_shards", tensor_shards, "virtual shards V of each layer, a power of two: a part of the numbers' definition",
        between(1, 64));
  t.add("batch.grain_tokens", grain_tokens, "tokens computed at once by one replica: a part of the numbers' definition", between(16, 1e12),
        "tokens");
  t.add("device.memory", device_memory, "most memory to use per rank (0: no limit)", at_least(0), "bytes");
}

void ModelOptions::declare(OptionTable& t) {
  t.add("model.family", family, "architecture of a model that starts from random numbers", one_of(family_names()));
  t.add("model.layers", layers, "blocks", at_least(1));
  t.add("model.width", width, "width of the residual stream", at_least(1));
  t.add("model.heads", heads, "query heads", at_least(1));
  t.add("model.kv_heads", kv_heads, "key/value heads (0: as many as query heads)", at_least(0));
  t.add("model.head_size", head_size, "columns of a head (0: width / heads)", at_least(0));
  t.add("model.mlp", mlp, "inner width of the MLP (0: 4 x width for gpt2, 8/3 x width down to a multiple of 8 for the others)", at_least(0));
  t.add("model.context", context, "most tokens of a sequence", at_least(2), "tokens");
  t.add("model.tied", tied, "the head is the embedding");
  t.add("model.rope_theta", rope_theta, "base of the rotary positions", more_than(1));
  t.add("model.rope_scaling", rope_scaling, "how rotary positions are slowed down for long contexts: not at all, linear, or as LLaMA 3.1 does",
        one_of({"none", "linear", "llama3"}));
  t.add("model.rope_factor", rope.factor, "by how much", at_least(1));
  t.add("model.rope_low_frequency", rope.low_frequency,
        "llama3: turns of more than model.rope_original_context / this many tokens are slowed by the whole factor", more_than(0));
  t.add("model.rope_high_frequency", rope.high_frequency,
        "llama3: turns of fewer than model.rope_original_context / this many tokens are not slowed", more_than(0));
  t.add("model.rope_original_context", rope.original_context, "llama3: the context before the slowing", at_least(1), "tokens");
  t.add("model.dropout", dropout,
        "dropout of embedding and residual branches, not of attention probabilities, in supervised and reward training (0 in PPO)",
        between(0, 0.9));
  t.add("model.init_std", init_std,
        "standard deviation of random weights; of output and down, / sqrt(2 x layers); transformers: 0.02 (0: 1 / sqrt(inputs) of each matrix)",
        between(0, 1));
}

ModelConfig ModelOptions::config(std::int64_t vocabulary) const {
  ModelConfig c = of_family(family);
  const bool gpt2 = family == "gpt2";
  c.vocabulary = vocabulary;
  c.context = context;
  c.layers = layers;
  c.width = width;
  c.heads = heads;
  c.kv_heads = kv_heads ? kv_heads : heads;
  require(head_size || width % heads == 0, "model.width = {} is not a multiple of model.heads = {}: change one or set model.head_size",
          width, heads);
  c.head_size = head_size ? head_size : width / heads;
  c.mlp = mlp ? mlp : gpt2 ? 4 * width : 8 * width / 3 / 8 * 8;
  c.tied = tied;
  c.rope_theta = rope_theta;
  if (rope_scaling != "none") {
    require(c.positions == Positions::rotary, "model.rope_scaling = {}, and {} has no rotary positions: leave it out", rope_scaling, family);
    c.rope_scaling = rope;
    c.rope_scaling.type = rope_scaling == "linear" ? RopeScaling::Type::linear : RopeScaling::Type::llama3;
  }
  c.dropout = dropout;
  c.check();
  return c;
}

void LoraOptions::declare(OptionTable& t) {
  t.add("lora.rank", rank, "rank of the low-rank adapters that learn instead of a model's own, then frozen parameters (0: none)",
        at_least(0));
  t.add("lora.alpha", alpha, "an adapter's product counts alpha / rank times", more_than(0));
  t.add("lora.dropout", dropout, "dropout of an adapter's input in supervised and reward training (0 in PPO)", between(0, 0.9));
  t.add("lora.targets", targets, "the matrices of a block that get an adapter", one_of(adapter_targets()));
  t.add("lora.stages", stages, "the stages in which adapters learn; in the others whole models do", one_of({"sft", "reward", "ppo"}));
  t.add("lora.base", base,
        "where to look for the base of a checkpoint with adapters that is not where the checkpoint says (empty: nowhere)");
}

LoraConfig LoraOptions::of(const std::string& stage) const {
  return std::find(stages.begin(), stages.end(), stage) == stages.end() ? LoraConfig{} : static_cast<const LoraConfig&>(*this);
}

void OptimizerOptions::declare(OptionTable& t, const std::string& p) {
  t.add(p + "rate", rate, "peak learning rate of AdamW", at_least(0));
  t.add(p + "warmup", warmup, "steps of linear warm-up", between(0, most_steps), "steps");
  t.add(p + "schedule", schedule, "shape of the rate after the warm-up", one_of({"constant", "linear", "cosine"}));
  t.add(p + "final_share", final_share, "what the rate falls to, as a share of the peak; the step after the last would have it", between(0, 1));
  t.add(p + "clip", clip, "largest global gradient norm (0: no clipping)", at_least(0));
  t.add(p + "beta1", adamw.beta1, "AdamW's first decay", at_least_below(0, 1));
  t.add(p + "beta2", adamw.beta2, "AdamW's second decay", at_least_below(0, 1));
  t.add(p + "epsilon", adamw.epsilon, "AdamW's epsilon", more_than(0));
  t.add(p + "epsilon_form", epsilon_form, "where epsilon is added: after the bias correction (torch) or before (tf)",
        one_of({"torch", "tf"}));
  t.add(p + "weight_decay", adamw.decay, "decoupled weight decay; never on norms and biases", at_least(0));
}

kernels::AdamW OptimizerOptions::how() const {
  kernels::AdamW result = adamw;
  result.form = epsilon_form == "tf" ? kernels::EpsilonForm::tf : kernels::EpsilonForm::torch;
  return result;
}

LearningRate OptimizerOptions::learning_rate(std::int64_t steps) const { return {rate, warmup, steps, schedule, final_share}; }

namespace {

const char* const init_help = "where the weights start: random, a stage of this run (sft, reward, ppo) or a checkpoint folder";

void declare_length(OptionTable& t, const std::string& p, TrainingOptions& o, const std::string& unit) {
  t.add(p + "steps", o.steps, "optimizer steps (0: as many as the epochs need); with a constant rate a restart may raise them", between(0, most_steps), "steps");
  t.add(p + "epochs", o.epochs, "passes over the data where steps is 0, each over all of it; the last step goes on into the next pass", {.low = 0, .high = most_epochs, .low_included = false});
  t.add(p + "batch", o.batch, unit + " of one optimizer step, over all ranks", between(1, most_samples), unit);
}

void declare_schedule(OptionTable& t, const std::string& p, TrainingOptions& o) {
  t.add(p + "evaluate_every", o.evaluate_every, "steps between evaluations (0: at the end only)", at_least(0), "steps");
  t.add(p + "checkpoint_every", o.checkpoint_every, "steps between checkpoints (0: at the end only)", at_least(0), "steps");
  t.add(p + "log_every", o.log_every, "steps between lines of the log", at_least(1), "steps");
}

}  // namespace

void SupervisedOptions::declare(OptionTable& t) {
  t.add("sft.init", init, init_help);
  t.add("sft.data", data, "dataset made by `collimate prepare`; {run} stands for run.folder");
  t.add("sft.heldout", heldout, "dataset for the evaluation loss (empty: none)");
  declare_length(t, "sft.", *this, "samples");
  t.add("sft.shuffle", shuffle, "new order each epoch, from the seed");
  optimizer.declare(t, "sft.");
  declare_schedule(t, "sft.", *this);
}

void RewardOptions::declare(OptionTable& t) {
  t.add("reward.init", init, init_help);
  t.add("reward.data", data, "preference dataset made by `collimate prepare`");
  t.add("reward.heldout", heldout, "preference dataset for the held-out accuracy (empty: none)");
  declare_length(t, "reward.", *this, "prompts");
  optimizer.declare(t, "reward.");
  declare_schedule(t, "reward.", *this);
}

void ScorerOptions::declare(OptionTable& t) {
  t.add("ppo.scorer", kind, "what gives the reward: a reward model or a built-in scorer",
        one_of({"model", "lexicon", "regex", "length", "exact", "process"}));
  t.add("ppo.scorer_lexicon", lexicon, "file of lines word, tab, value (AFINN's format), or of more columns");
  t.add("ppo.scorer_word_column", word_column, "column of ppo.scorer_lexicon that holds the words", between(1, 1 << 20));
  t.add("ppo.scorer_value_column", value_column, "and the one that holds the values; VADER's list: 2 (0: there are two columns)", between(0, 1 << 20));
  t.add("ppo.scorer_pattern", pattern, "regular expression (PCRE2) whose matches are counted");
  t.add("ppo.scorer_length", length, "target length of a response", at_least(1), "characters");
  t.add("ppo.exact_answer", exact_answer,
        "where the scorer exact looks for a response's number: behind its last mark #### alone, or, where no mark has one, its last number",
        one_of({"marked", "last_number"}));
  t.add("ppo.scorer_command", command,
        "command that reads one JSON line per sample and answers each at once with one score on a line, until its input ends");
  t.add("ppo.scorer_deadline", deadline, "longest wait for the command to score one batch", more_than(0), "seconds");
  t.add("ppo.scorer_sign", sign, "factor on the score of a scorer that is no model");
}

void PpoOptions::declare(OptionTable& t) {
  t.add("ppo.actor", actor, "policy to improve: a stage of this run or a checkpoint folder");
  t.add("ppo.critic", critic, "where the critic starts: a reward model (its normalised head included) or a policy (head from zero)");
  t.add("ppo.reference", reference, "frozen policy that the KL penalty refers to");
  t.add("ppo.reward", reward, "reward model, where ppo.scorer is model");
  t.add("ppo.prompts", prompts, "dataset of prompts");
  t.add("ppo.iterations", iterations, "rollouts, each followed by its updates (0: the actor is evaluated and stays as it is)",
        between(0, most_steps));
  t.add("ppo.batch", batch, "prompts of one iteration, over all ranks", between(1, most_samples), "samples");
  t.add("ppo.minibatch", minibatch, "samples of one optimizer step", between(1, most_samples), "samples");
  t.add("ppo.epochs", epochs, "passes over a rollout", between(1, most_epochs));
  t.add("ppo.max_new", max_new, "most tokens of a response", between(1, most_tokens), "tokens");
  t.add("ppo.slots", slots, "sequences generated at once per rank; changes no number", between(1, most_samples), "samples");
  t.add("ppo.temperature", temperature, "temperature of sampling; the loss divides the logits by it too",
        between(kernels::lowest_temperature, kernels::highest_temperature));
  t.add("ppo.gamma", gamma, "discount", between(0, 1));
  t.add("ppo.lambda", lambda, "GAE's lambda", between(0, 1));
  t.add("ppo.kl", kl.beta, "coefficient of the KL penalty in the reward", between(0, 1e6));
  t.add("ppo.kl_target", kl.target, "KL per sample that the coefficient adapts to (0: fixed)", at_least(0), "nats");
  t.add("ppo.kl_horizon", kl.horizon, "horizon of the adaptive coefficient", more_than(0), "samples");
  t.add("ppo.kl_estimator", kl_estimator, "estimator of the KL in the reward", one_of({"k1", "k2", "k3"}));
  t.add("ppo.kl_loss", policy.kl_coefficient, "coefficient of a KL term in the loss (k2; 0: none)", between(0, 1e6));
  t.add("ppo.clip_low", policy.clip_low, "ratio is clipped to 1 - clip_low", between(0, 1));
  t.add("ppo.clip_high", policy.clip_high, "ratio is clipped to 1 + clip_high", at_least(0));
  t.add("ppo.dual_clip", policy.dual_clip, "bound c of the loss of negative advantages (0: off)", at_least(0));
  t.add("ppo.entropy", policy.entropy_coefficient, "coefficient of the entropy bonus", between(0, 1e6));
  t.add("ppo.value_clip", value.clip, "how far a value may move from the old one (0: off)", at_least(0));
  t.add("ppo.value_coefficient", value.coefficient, "coefficient of the value loss, beside its 0.5", between(0, 1e6));
  t.add("ppo.aggregation", aggregation, "what the losses average over",
        one_of({"token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum"}));
  t.add("ppo.reward_clip", score.clip, "scores are clipped to this before the KL penalty (0: off)", at_least(0));
  t.add("ppo.missing_eos", missing_eos, "a response without end-of-text: ignore, subtract from or replace its score",
        one_of({"ignore", "subtract", "replace"}));
  t.add("ppo.missing_eos_value", score.missing_eos_value, "by or with this");
  t.add("ppo.whiten", whiten, "advantages get mean 0 and variance 1 over the tokens of the batch");
  t.add("ppo.whiten_rewards", whiten_rewards, "per-token rewards get variance 1, their mean kept");
  t.add("ppo.target_kl", target_kl, "an iteration's updates stop where the KL from the old policy exceeds this (0: never)", at_least(0),
        "nats");
  t.add("ppo.freeze_actor", freeze_actor, "iterations in which only the critic learns", at_least(0));
  t.add("ppo.normalise_samples", normalise_samples,
        "scores get mean 0 and std 1 over this many samples of the actor's first policy (0: as the reward model says)",
        zero_or_between(2, most_samples),
        "samples");
  actor_optimizer.declare(t, "ppo.actor_");
  critic_optimizer.declare(t, "ppo.critic_");
  t.add("ppo.evaluate_every", evaluate_every, "iterations between evaluations (0: before and after only)", at_least(0));
  t.add("ppo.checkpoint_every", checkpoint_every, "iterations between checkpoints (0: at the end only)", at_least(0));
  t.add("ppo.samples_logged", samples_logged, "samples of each iteration written to samples.jsonl (0: all)", at_least(0), "samples");
  scorer.declare(t);
}

void EvaluateOptions::declare(OptionTable& t) {
  t.add("evaluate.prompts", prompts, "held-out prompts (empty: no evaluation)");
  t.add("evaluate.model", model, "what a stage `evaluate` evaluates: a stage of this run or a checkpoint folder");
  t.add("evaluate.reference", reference, "policy that the KL of a stage `evaluate` refers to (empty: no KL); PPO's own is ppo.reference");
  t.add("evaluate.temperature", temperature, "temperature of evaluation samples; 0: always the most probable token",
        zero_or_between(kernels::lowest_temperature, kernels::highest_temperature));
  t.add("evaluate.samples", samples, "samples per prompt", between(1, most_samples), "samples");
  t.add("evaluate.max_new", max_new, "most tokens of a response (0: ppo.max_new)", between(0, most_tokens), "tokens");
  t.add("evaluate.preferred", preferred, "also count the responses that have the quickstart's preferred form; only for its prompts");
  t.add("evaluate.shown", shown, "samples in the table at the end", at_least(0), "samples");
}

void PrepareStageOptions::declare(OptionTable& t) {
  t.add("prepare.vocabulary", vocabulary, "tokens of the byte-level BPE that the stage prepare trains", between(257, most_tokens), "tokens");
  t.add("prepare.seed", seed, "seed of the quickstart's data", at_least(0));
}

void Options::declare(OptionTable& table) {
  run.declare(table);
  machine.declare(table);
  model.declare(table);
  lora.declare(table);
  prepare.declare(table);
  sft.declare(table);
  reward.declare(table);
  ppo.declare(table);
  evaluate.declare(table);
}

}  // namespace collimate::rlhf
