#include "collimate/rlhf/options.hpp"

#include <algorithm>
#include <charconv>

#include "collimate/base/error.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/model/families.hpp"
#include "collimate/rlhf/stage_names.hpp"
#include "collimate/rlhf/strategies.hpp"

namespace collimate::rlhf {
namespace {

// Far more than any run, and few enough to be counted together.
constexpr double most_steps = 1e9, most_epochs = 1e6, most_tokens = 2147483647;

}  // namespace

void RunOptions::declare(OptionTable& t) {
  t.add("run.folder", folder, "folder the run writes to: deck, log, metrics, samples, checkpoints, summary", path_to_write());
  t.add("run.stages", stages,
        "stages, in order: prepare (makes the quickstart's data), sft, reward, ppo, evaluate (a finished model; PPO evaluates by itself)",
        one_of({"prepare", "sft", "reward", "ppo", "evaluate"}));
  t.add("run.seed", seed, "random seed of the run", at_least(0));
  t.add("run.hash_every", hash_every,
        "steps (PPO: iterations) between hashes of every gradient and parameter; replicas are compared too (0: at the end only)",
        at_least(0), "steps");
  t.add("run.hash", hash, "what these hash: all, or gradients alone; values are hashed once more at the end in any case", one_of({"all", "gradients"}));
  t.add("restart", restart,
        "auto: continue from the last checkpoint in run.folder; replace: delete the old run and start over; none: refuse a folder that "
        "holds a run",
        one_of({"none", "auto", "replace"}));
  t.add("run.stop_after", stop_after,
        "optimizer steps (PPO: iterations) of this start after which the run saves and exits with code 75 (0: never)", at_least(0),
        "steps");
  t.add("run.sample_ids", sample_ids, "write the token ids of prompts and responses to samples.jsonl and to the scorer program");
  t.add("run.keep_last", keep_last, "checkpoints kept of each stage, its final one included; a running stage keeps at least two",
        between(1, 1 << 30));
  t.add("run.keep_every", keep_every, "write and keep a checkpoint every n steps (PPO: iterations) (0: off)", at_least(0), "steps");
  t.add("run.keep_best", keep_best,
        "keep the best checkpoint of each stage: by held-out loss (sft), accuracy (reward) or reward (ppo)");
  t.add("allow-new-bits", allow_new_bits, "allow a restart on another instruction set; results then differ in their last bits");
  t.add("check", check, "check the deck, files, tokenizers and memory, print the plan and exit");
  t.command_line_only({"restart", "allow-new-bits", "check"});
}

void MachineOptions::declare(OptionTable& t) {
  t.add("grid.tensor", tensor, "tensor-parallel ranks; must divide numerics.tensor_shards", between(1, 1 << 20), "ranks");
  t.add("grid.data", data, "data-parallel replicas (0: all remaining ranks)", between(0, 1 << 20), "ranks");
  t.add("grid.pipeline", pipeline, "pipeline stages", between(1, 1 << 20), "ranks");
  t.add("grid.order", order, "order of the axes over the ranks, fastest first", one_of({"tensor", "data", "pipeline"}));
  t.add("params.zero", zero, "ZeRO stage: 0 off, 1 shards the optimizer state, 2 also gradients, 3 also parameters", between(0, 3));
  t.add("engine.recompute", recompute,
        "activation checkpointing: none, selective (inputs of attention and activation), full (whole blocks)",
        one_of({"none", "selective", "full"}));
  t.add("engine.recompute_every", recompute_every, "recompute only every n-th block", between(1, 4096), "blocks");
  t.add("engine.group", group,
        "grains that a rank computes together, block by block, a power of two (0: all of a step): parameters and gradients travel once for all of "
        "them and sums of gradients take less memory, activations more",
        between(0, 1 << 20), "grains");
  t.add("numerics.mode", mode,
        "exact: the same bits on every grid; fast: sums in the quickest order, so results depend on the number of ranks",
        one_of({"exact", "fast"}));
  t.add("numerics.values", value_type,
        "in which parameters rest and travel, f32 or bf16; bf16 takes half the memory, and models that learn step f32 masters, which are rounded. "
        "Adapters are f32. Changes results, but for frozen models that are bf16 in their file",
        one_of({"f32", "bf16"}));
  t.add("numerics.tensor_shards", tensor_shards,
        "the largest tensor-parallel degree you will ever use, a power of two; changing it changes results in the last bits",
        between(1, 64));
  t.add("batch.grain_tokens", grain_tokens, "tokens of one grain (micro-batch); changing it changes results in the last bits",
        between(16, 1e12), "tokens");
  t.add("memory.device", device_memory, "most memory of the device that a rank may use (0: what there is)", at_least(0), "bytes");
  t.add("memory.host", host_memory, "most memory of the host that a rank may use for what placement.* puts there (0: what there is)", at_least(0), "bytes");
  t.renamed("device.memory", "memory.device");
  t.add("strategy", strategy,
        "ZeRO stage and placement in one word, instead of params.zero and placement.*: " + strategies_text() + "; each also with colossalai_ before");
  t.command_line_only({"strategy"});
  t.add("placement.layout", layout,
        "manual: as the options below say; auto: everything on the device but what memory.device has no room for: first the optimizer's state goes "
        "to the host, then parameters",
        one_of({"manual", "auto"}));
  t.add("placement.values", values,
        "where parameters rest: device, host (they are brought to the device as they are used), or host:0.75, that share of their bytes");
  t.add("placement.moments", moments, "where the optimizer's moments rest, in the same words; on the host they are stepped there, with masters beside them");
  t.add("placement.gradients", gradients, "where sums of gradients rest; they go with the moments");
  t.add("placement.rollouts", rollouts,
        "how ranks generate with parameters that replicas share (params.zero = 3): held: gathered whole once per rollout; streamed: gathered for each "
        "token, part by part, which is slower and needs less of the device",
        one_of({"held", "streamed"}));
  t.add("placement.steps", steps,
        "pending: an optimizer step of what rests on the host is done part by part, when the parameters are used next; at_once: at its end",
        one_of({"pending", "at_once"}));
}

HostShares MachineOptions::host_shares() const {
  const auto share = [](const std::string& option, const std::string& place) {
    if (place == "device") return 0.0;
    if (place == "host") return 1.0;
    double value = -1;
    const char* const end = place.data() + place.size();
    if (place.starts_with("host:"))
      if (const auto [stop, wrong] = std::from_chars(place.data() + 5, end, value); wrong != std::errc() || stop != end) value = -1;
    require(value >= 0 && value <= 1, "placement.{} = {} is no place: device, host, or host: and a share from 0 to 1, such as host:0.75", option, place);
    return value;
  };
  const HostShares shares{share("values", values), share("moments", moments)};
  require(moments == gradients, "placement.moments = {} and placement.gradients = {}: they rest together; set both to one", moments, gradients);
  return shares;
}

void ModelOptions::declare(OptionTable& t) {
  t.add("model.family", family, "architecture of a model that starts from random weights", one_of(family_names()));
  t.add("model.layers", layers, "blocks", at_least(1));
  t.add("model.width", width, "width of the residual stream", at_least(1));
  t.add("model.heads", heads, "query heads", at_least(1));
  t.add("model.kv_heads", kv_heads, "key/value heads (0: as many as query heads)", at_least(0));
  t.add("model.head_size", head_size, "head dimension (0: width / heads)", at_least(0));
  t.add("model.mlp", mlp, "inner width of the MLP (0: 4 x width for gpt2, 8/3 x width down to a multiple of 8 for the others)", at_least(0));
  t.add("model.context", context, "longest sequence", at_least(2), "tokens");
  t.add("model.tied", tied, "tie the output head to the embedding");
  t.add("model.rope_theta", rope_theta, "base of the rotary position embedding", more_than(1));
  t.add("model.rope_scaling", rope_scaling, "scaling of the rotary positions for long contexts: none, linear, or llama3 (as LLaMA 3.1)",
        one_of({"none", "linear", "llama3"}));
  t.add("model.rope_factor", rope.factor, "factor of the rotary scaling", at_least(1));
  t.add("model.rope_low_frequency", rope.low_frequency,
        "llama3: wavelengths above rope_original_context / this many tokens are scaled by the whole factor", more_than(0));
  t.add("model.rope_high_frequency", rope.high_frequency,
        "llama3: wavelengths below rope_original_context / this many tokens are not scaled", more_than(0));
  t.add("model.rope_original_context", rope.original_context, "llama3: the context before scaling", at_least(1), "tokens");
  t.add("model.dropout", dropout,
        "dropout on embedding and residual branches, not on attention probabilities, in SFT and reward training (PPO uses none)",
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
  t.add("lora.rank", rank, "rank of the LoRA adapters; the model's own parameters are then frozen (0: no adapters)",
        at_least(0));
  t.add("lora.alpha", alpha, "LoRA scaling: adapters are scaled by alpha / rank", more_than(0));
  t.add("lora.dropout", dropout, "dropout on the input of an adapter in SFT and reward training (PPO uses none)", between(0, 0.9));
  t.add("lora.targets", targets, "matrices of each block that get an adapter", one_of(adapter_targets()));
  t.add("lora.stages", stages, "stages that train adapters; the others train whole models",
        one_of({learning_stages.begin(), learning_stages.end()}));
  t.add("lora.base", base,
        "base model of a checkpoint with adapters, where it is no longer where the checkpoint says");
}

LoraConfig LoraOptions::of(const std::string& stage) const {
  return std::find(stages.begin(), stages.end(), stage) == stages.end() ? LoraConfig{} : static_cast<const LoraConfig&>(*this);
}

void OptimizerOptions::declare(OptionTable& t, const std::string& p) {
  t.add(p + "rate", rate, "peak learning rate of AdamW", at_least(0));
  t.add(p + "warmup", warmup, "steps of linear warm-up", between(0, most_steps), "steps");
  t.add(p + "schedule", schedule, "shape of the rate after the warm-up", one_of({"constant", "linear", "cosine"}));
  t.add(p + "final_share", final_share, "final rate as a share of the peak, reached one step after the last", between(0, 1));
  t.add(p + "clip", clip, "gradient clipping: largest global norm (0: off)", at_least(0));
  t.add(p + "beta1", adamw.beta1, "AdamW beta1", at_least_below(0, 1));
  t.add(p + "beta2", adamw.beta2, "AdamW beta2", at_least_below(0, 1));
  t.add(p + "epsilon", adamw.epsilon, "AdamW epsilon", more_than(0));
  t.add(p + "epsilon_form", epsilon_form, "where epsilon is added: after the bias correction (torch) or before (tf)",
        one_of({"torch", "tf"}));
  t.add(p + "weight_decay", adamw.decay, "decoupled weight decay; not applied to norms and biases", at_least(0));
}

kernels::AdamW OptimizerOptions::how() const {
  kernels::AdamW result = adamw;
  result.form = epsilon_form == "tf" ? kernels::EpsilonForm::tf : kernels::EpsilonForm::torch;
  return result;
}

LearningRate OptimizerOptions::learning_rate(std::int64_t steps) const { return {rate, warmup, steps, schedule, final_share}; }

namespace {

const char* const init_help = "initial weights: random, a stage of this run (sft, reward, ppo) or a checkpoint folder";

void declare_length(OptionTable& t, const std::string& p, TrainingOptions& o, const std::string& unit) {
  t.add(p + "steps", o.steps, "optimizer steps (0: as many as `epochs` needs); with a constant rate a restart may raise them",
        between(0, most_steps), "steps");
  t.add(p + "epochs", o.epochs, "passes over the data where steps is 0; the last step reaches into the next pass",
        {.low = 0, .high = most_epochs, .low_included = false});
  t.add(p + "batch", o.batch, unit + " per optimizer step, over all ranks", between(1, most_samples), unit);
}

void declare_schedule(OptionTable& t, const std::string& p, TrainingOptions& o) {
  t.add(p + "evaluate_every", o.evaluate_every, "steps between evaluations (0: at the end only)", at_least(0), "steps");
  t.add(p + "checkpoint_every", o.checkpoint_every, "steps between checkpoints (0: at the end only)", at_least(0), "steps");
  t.add(p + "log_every", o.log_every, "steps between log lines", at_least(1), "steps");
}

}  // namespace

void SupervisedOptions::declare(OptionTable& t) {
  t.add("sft.init", init, init_help);
  t.add("sft.data", data, "dataset made by `collimate prepare`; {run} stands for run.folder");
  t.add("sft.heldout", heldout, "dataset for the evaluation loss (empty: none)");
  declare_length(t, "sft.", *this, "samples");
  t.add("sft.shuffle", shuffle, "shuffle the data in each epoch");
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
  t.add("ppo.scorer", kind, "source of the reward: a reward model or a built-in scorer",
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
        "program that scores samples: it reads one JSON line per sample and answers each at once with a score on a line");
  t.add("ppo.scorer_deadline", deadline, "time limit of the program for one batch", more_than(0), "seconds");
  t.add("ppo.scorer_sign", sign, "factor on the score of a built-in scorer");
}

void PpoOptions::declare(OptionTable& t) {
  t.add("ppo.actor", actor, "policy to train: a stage of this run or a checkpoint folder");
  t.add("ppo.critic", critic, "initial critic: a reward model (with its head) or a policy (value head from zero)");
  t.add("ppo.reference", reference, "frozen reference policy of the KL penalty");
  t.add("ppo.reward", reward, "reward model, used with ppo.scorer = model");
  t.add("ppo.prompts", prompts, "dataset of prompts");
  t.add("ppo.iterations", iterations, "PPO iterations: a rollout and its updates (0: evaluate only)",
        between(0, most_steps));
  t.add("ppo.batch", batch, "prompts per iteration, over all ranks", between(1, most_samples), "samples");
  t.add("ppo.minibatch", minibatch, "samples per optimizer step", between(1, most_samples), "samples");
  t.add("ppo.epochs", epochs, "passes over each rollout", between(1, most_epochs));
  t.add("ppo.max_new", max_new, "longest response", between(1, most_tokens), "tokens");
  t.add("ppo.slots", slots, "sequences generated at once per rank; does not change results", between(1, most_samples), "samples");
  t.add("ppo.temperature", temperature, "sampling temperature; the loss uses it too",
        between(kernels::lowest_temperature, kernels::highest_temperature));
  t.add("ppo.gamma", gamma, "discount factor", between(0, 1));
  t.add("ppo.lambda", lambda, "lambda of GAE", between(0, 1));
  t.add("ppo.kl", kl.beta, "coefficient of the KL penalty in the reward", between(0, 1e6));
  t.add("ppo.kl_target", kl.target, "adaptive KL: target KL per sample (0: fixed coefficient)", at_least(0), "nats");
  t.add("ppo.kl_horizon", kl.horizon, "adaptive KL: horizon", more_than(0), "samples");
  t.add("ppo.kl_estimator", kl_estimator, "KL estimator of the penalty", one_of({"k1", "k2", "k3"}));
  t.add("ppo.kl_loss", policy.kl_coefficient, "coefficient of a KL term in the loss (k2 estimator; 0: none)", between(0, 1e6));
  t.add("ppo.clip_low", policy.clip_low, "lower clip range of the ratio: 1 - clip_low", between(0, 1));
  t.add("ppo.clip_high", policy.clip_high, "upper clip range of the ratio: 1 + clip_high", at_least(0));
  t.add("ppo.dual_clip", policy.dual_clip, "dual-clip PPO: bound c on the loss where the advantage is negative (0: off)", at_least(0));
  t.add("ppo.entropy", policy.entropy_coefficient, "coefficient of the entropy bonus", between(0, 1e6));
  t.add("ppo.value_clip", value.clip, "clip range of the value loss (0: off)", at_least(0));
  t.add("ppo.value_coefficient", value.coefficient, "coefficient of the value loss, on top of its factor 0.5", between(0, 1e6));
  t.add("ppo.aggregation", aggregation, "how losses are averaged",
        one_of({"token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum"}));
  t.add("ppo.reward_clip", score.clip, "clip scores to this magnitude before the KL penalty (0: off)", at_least(0));
  t.add("ppo.missing_eos", missing_eos, "score of a response that was cut at max_new: ignore (keep), subtract or replace",
        one_of({"ignore", "subtract", "replace"}));
  t.add("ppo.missing_eos_value", score.missing_eos_value, "the amount subtracted, or the replacement");
  t.add("ppo.whiten", whiten, "whiten advantages: mean 0 and variance 1 over the tokens of the batch");
  t.add("ppo.whiten_rewards", whiten_rewards, "whiten per-token rewards: variance 1, mean kept");
  t.add("ppo.target_kl", target_kl, "early stop of an iteration's updates above this KL from the old policy (0: off)", at_least(0),
        "nats");
  t.add("ppo.freeze_actor", freeze_actor, "first iterations in which only the critic is trained", at_least(0));
  t.add("ppo.normalise_samples", normalise_samples,
        "samples of the initial policy used to normalise scores to mean 0 and std 1 (0: keep the reward model's normalisation)",
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
  t.add("evaluate.model", model, "model of the stage `evaluate`: a stage of this run or a checkpoint folder");
  t.add("evaluate.reference", reference, "reference policy for the KL of the stage `evaluate` (empty: no KL)");
  t.add("evaluate.temperature", temperature, "sampling temperature of evaluations (0: greedy)",
        zero_or_between(kernels::lowest_temperature, kernels::highest_temperature));
  t.add("evaluate.samples", samples, "samples per prompt", between(1, most_samples), "samples");
  t.add("evaluate.max_new", max_new, "longest response (0: ppo.max_new)", between(0, most_tokens), "tokens");
  t.add("evaluate.preferred", preferred, "count responses in the quickstart's preferred form; only for its prompts");
  t.add("evaluate.shown", shown, "samples shown at the end of the run", at_least(0), "samples");
}

void PrepareStageOptions::declare(OptionTable& t) {
  t.add("prepare.vocabulary", vocabulary, "vocabulary size of the BPE tokenizer that the stage prepare trains", between(257, most_tokens),
        "tokens");
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
