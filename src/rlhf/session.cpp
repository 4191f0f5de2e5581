#include "collimate/rlhf/session.hpp"

#include <algorithm>
#include <bit>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/base/text.hpp"
#include "collimate/collectives/all_reduce.hpp"
#include "collimate/engine/schedule.hpp"
#include "collimate/kernels/rows.hpp"
#include "collimate/rlhf/saved_models.hpp"
#include "collimate/rlhf/stage_names.hpp"
#include "collimate/rlhf/weights.hpp"

namespace collimate::rlhf {

std::string Session::path(const std::string& text) const {
  const std::string prepared = prepared_in.empty() ? text : replace_all(text, "{run}/data/", prepared_in + "/data/");
  return replace_all(prepared, "{run}", options.run.folder);
}

Dataset open_dataset(const Session& session, const std::string& option, const std::string& value, DatasetKind kind) {
  try {
    Dataset data(session.path(value));
    data.check_kind(kind);
    return data;
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", option, error.what()), error.place());
  }
}

void Session::metrics(const JsonLine& line) const {
  if (folder) folder->metrics().write(line);
}
void Session::timings(const JsonLine& line) const {
  if (folder) folder->timings().write(line);
}
void Session::sample(const JsonLine& line) const {
  if (folder) folder->samples().write(line);
}

std::int64_t Session::most_rows() const { return kernels::padded_rows(options.machine.grain_tokens); }

void Session::stop() const {
  throw AgreedError(ExitCode::requeue, fmt::format("stopped after {} (run.stop_after); continue with --restart auto", counted(steps_done, "step")));
}

void Session::check_fits(const MemoryPlan& plan) const {
  const MachineOptions& machine = options.machine;
  try {
    plan.check_caps(machine.caps());
  } catch (const Error& error) {
    std::vector<std::string> remedies = {"lower batch.grain_tokens"};
    if (machine.recompute != "full") remedies.push_back("set engine.recompute = full");
    const bool apart = machine.device_memory > 0 || !device.is_host();  // else the host's memory is what there is too little of
    if (apart && machine.moments != "host") remedies.push_back("set placement.moments = host and placement.gradients = host");
    else if (apart && machine.values != "host") remedies.push_back("set placement.values = host");
    if (division().placement().values && machine.rollouts == "held") remedies.push_back("set placement.rollouts = streamed");
    if (machine.zero < 3) remedies.push_back("raise params.zero on several replicas");
    if (!options.lora.on()) remedies.push_back("set lora.rank");
    remedies.push_back("share the model among more ranks (grid.tensor, grid.pipeline)");
    throw Error(error.code(), fmt::format("{}; to need less, {}", error.what(), join(remedies, ", ")), error.place());
  }
}

std::string Session::idle_ranks(const std::string& stage, std::int64_t grains) const {
  const int all = data().size();
  if (grains >= all) return "";
  return fmt::format("{} of {} ranks have no work in {}: a batch has {} (micro-batches of batch.grain_tokens); lower it or raise the batch", all - grains,
                     all, stage, counted(grains, "grain"));
}

void Session::warn_of_idle_ranks(const std::string& stage, std::int64_t grains) const {
  if (const std::string idle = idle_ranks(stage, grains); !idle.empty()) log.warning("{}", idle);
}

RecomputePlan Session::recompute() const {
  const std::string& how = options.machine.recompute;
  return {how == "full"        ? Recompute::full
          : how == "selective" ? Recompute::selective
                               : Recompute::none,
          static_cast<int>(options.machine.recompute_every)};
}

std::int64_t Session::group(std::int64_t grains) const {
  const auto group = static_cast<std::uint64_t>(options.machine.group);
  require(group == 0 || std::has_single_bit(group), "engine.group = {}: it must be a power of two, such as {}, or 0 for all grains", group, std::bit_floor(group));
  const auto each = static_cast<std::uint64_t>(std::max<std::int64_t>(1, of_a_replica(grains)));
  return static_cast<std::int64_t>(group == 0 ? std::bit_ceil(each) : std::min(group, std::bit_ceil(each)));
}

std::string describe_division(const Session& session, const Engine& engine, std::int64_t grains) {
  const Division division = session.division();
  const int data = division.ranks(Axis::data), stages = division.stages();
  const std::int64_t each = (grains + data - 1) / data;  // grains of a replica
  const std::int64_t group = session.group(grains), groups = (each + group - 1) / group;
  std::string out;
  if (stages > 1) {
    const ModelConfig& config = engine.transformer().config();
    out += fmt::format("  {}: blocks of the {} stages:", engine.store().model(), stages);
    for (int stage = 0; stage < stages; ++stage) {
      const Part blocks = stage_blocks(config, engine.transformer().head(), stage, stages);
      out += fmt::format(" {}-{}", blocks.begin, blocks.begin + blocks.count - 1);
    }
    const auto shown = static_cast<int>(std::min<std::int64_t>(groups, 8));
    out += fmt::format("; forwards and backwards of at most {} per replica{}\n{}",
                       group > 1 ? fmt::format("{} groups of {} grains", groups, group) : counted(each, "grain"), shown < groups ? " (the first 8)" : "",
                       schedule_text(stages, shown));
  }
  if (division.placement().gradients && data > 1) {
    const double mebibytes = static_cast<double>(engine.learning().layout().size()) * sizeof(float) / (1 << 20);
    const double values = &engine.learning() != &engine.store() ? 1 : static_cast<double>(size_of(session.values())) / sizeof(float);  // their size
    out += fmt::format(
        "  {}: params.zero = {} reduces gradients {}in each of {} micro-steps: {:.1f} MiB x {}/{} sent per rank and step, where params.zero = 1 "
        "sends {:.1f} MiB x 2 x {}/{} or a little more\n",
        engine.learning().model(), session.options.machine.zero, division.placement().values ? "and gathers values twice " : "", each,
        mebibytes * (static_cast<double>(each) + (division.placement().values ? 2 * static_cast<double>(groups) * values : values)), data - 1, data, mebibytes * (1 + values) / 2, data - 1, data);
  }
  return out;
}

std::string StepName::text() const {
  const std::string where = fmt::format("{} {} {}", stage, stage == "ppo" ? "iteration" : "step", step);
  return step == 0 ? "start of " + stage : update ? fmt::format("{}, update {}", where, update) : where;
}

std::string hash_text(const ParameterStore& store, const std::string& when) {
  return fmt::format("{:016x}", combine(store.layout(), store.hashes(Kind::value, when)));
}

std::string write_hashes(const Session& session, const StepName& name, const ParameterStore& store, Kind kind) {
  const std::vector<std::uint64_t> hashes = store.hashes(kind, name.text());
  if (session.folder) {
    JsonLine tensors, line;
    for (std::size_t p = 0; p < hashes.size(); ++p) tensors.add(store.layout().parameters()[p].name, fmt::format("{:016x}", hashes[p]));
    line.add("stage", name.stage).add("step", name.step);
    if (name.update) line.add("update", name.update);
    line.add("phase", name_of(kind)).add("model", store.model()).add_raw("tensors", tensors.text());
    session.folder->hashes().write(line);
  }
  return fmt::format("{:016x}", combine(store.layout(), hashes));
}

namespace {

const char* kind_of(Head head) { return head == Head::policy ? "a language model" : "a reward model (one with a value head)"; }

// A stage of this run that has not run yet: described by what it will start from, and by its data.
Source pending_source(const Session& session, const std::string& stage, Head head) {
  const Options& o = session.options;
  const std::string option = stage == "sft" ? "sft.init" : stage == "reward" ? "reward.init" : "ppo.actor";
  const std::string& init = stage == "sft" ? o.sft.init : stage == "reward" ? o.reward.init : o.ppo.actor;
  const Dataset data = stage == "sft"      ? open_dataset(session, "sft.data", o.sft.data, DatasetKind::supervised)
                       : stage == "reward" ? open_dataset(session, "reward.data", o.reward.data, DatasetKind::preference)
                                           : open_dataset(session, "ppo.prompts", o.ppo.prompts, DatasetKind::prompts);
  require(init != stage, "{} = {} starts from itself: name random, an earlier stage or a checkpoint folder", option, init);
  const Accept accept = stage == "reward" ? Accept::any_or_random : Accept::exact_or_random;
  Source source = find_source(session, option, init, Head::policy, accept, data);
  match_text(source, data, fmt::format("{} = {}", option, init));
  source.checkpoint.clear();
  source.card.head = stage == "reward" ? Head::value : stage == "ppo" ? head : Head::policy;
  return source;
}

Source stored_source(const Session& session, const std::string& folder, Head head) {
  const SavedModels saved(folder);
  const auto models = saved.models();
  const bool has = std::any_of(models.begin(), models.end(), [&](const std::string& model) { return saved.card(model).head == head; });
  Source source;
  source.checkpoint = folder;
  source.model = main_model_of(saved, has ? head : head == Head::policy ? Head::value : Head::policy);
  source.card = saved.card(source.model);
  source.card.adapters = {};  // to be merged
  source.text = saved.text_rules();
  const std::int64_t shards = session.options.machine.tensor_shards;
  require(source.card.shards == shards || saved.stage() == "import",
          "the checkpoint '{}' was trained with numerics.tensor_shards = {}, and the deck says {}: use the same, changing it changes results",
          folder, source.card.shards, shards);
  source.card.shards = static_cast<int>(shards);
  return source;
}

// The scores of a reward model are normalised at the end of its stage, and in the checkpoints that stay; PPO can do it itself.
void check_normalised(const std::string& folder, const std::string& option, const Options& o) {
  const SavedModels saved(folder);
  if (saved.stage() != "reward" || saved.complete() || o.ppo.normalise_samples > 0) return;
  require(nlohmann::json::parse(saved.progress()).value("normalised", false),
          "{}: the scores of '{}', a checkpoint of an unfinished stage, are not normalised: set ppo.normalise_samples, or name a finished one or "
          "one that run.keep_best or run.keep_every has kept",
          option, folder);
}

}  // namespace

std::optional<std::string> stored_checkpoint(const Session& session, const std::string& name) {
  if (name.empty() || name == "random" || (is_learning_stage(name) && session.replacing)) return std::nullopt;
  const std::string folder = is_learning_stage(name) ? session.checkpoint(name) : session.path(name);
  return std::filesystem::exists(folder) ? std::optional(folder) : std::nullopt;
}

Source find_source(const Session& session, const std::string& option, const std::string& name, Head head, Accept accept,
                   const Dataset& data) {
  const Options& o = session.options;
  if (name == "random") {
    require(accept != Accept::exact, "{} = random: this needs a trained model, {}; name a stage or a checkpoint folder", option,
            kind_of(head));
    Source source;
    source.name = name;
    source.card = {o.model.config(data.vocabulary()), head, static_cast<int>(o.machine.tensor_shards), {}};
    source.card.init_std = o.model.init_std;
    source.text = {data.tokenizer(), data.rules()};
    return source;
  }
  const bool stage = is_learning_stage(name);
  const std::string folder = stage ? session.checkpoint(name) : session.path(name);
  const auto stored = stored_checkpoint(session, name);
  const auto& stages = o.run.stages;
  require(stored || (stage && std::find(stages.begin(), stages.end(), name) != stages.end()), "{} = {}: '{}' does not exist; {}", option,
          name, folder,
          stage ? "add the stage to run.stages or name a checkpoint folder" : "name a checkpoint folder, or a stage of this run");
  Source source = stored ? stored_source(session, *stored, head) : pending_source(session, name, head);
  source.name = name;
  require(option != "ppo.reward" || source.model != "critic",
          "ppo.reward = {} is a PPO checkpoint, and its critic is not a reward model: name the checkpoint of a reward stage", name);
  if (stored && (option == "ppo.reward" || option == "ppo.critic")) check_normalised(*stored, option, o);
  require(accept == Accept::any_or_random || source.card.head == head, "{} must be {}; {} is {}", option, kind_of(head), name,
          kind_of(source.card.head));
  return source;
}

bool same_model(const Source& a, const Source& b) {
  std::error_code error;
  return a.name == b.name ||
         (!a.checkpoint.empty() && a.model == b.model && std::filesystem::equivalent(a.checkpoint, b.checkpoint, error));
}

void match_text(Source& source, const Dataset& data, const std::string& whose) {
  data.check_vocabulary(source.card.config.vocabulary);
  if (!source.text.has_tokenizer()) {
    source.text.tokenizer = data.tokenizer();
    source.text.rules = data.rules();
    source.text.settled = true;
    return;
  }
  if (!source.text.settled) source.text.rules = data.rules();
  source.text.settled = true;
  data.check_rules(source.text.rules, source.text.make_tokenizer()->fingerprint(), whose);
}

void check_lengths(const Session& session, const Dataset& data, const ModelConfig& config) {
  const std::int64_t grain_tokens = session.options.machine.grain_tokens;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    require(
        data.longest(i) <= config.context,
        "sample {} of '{}' has {} tokens, more than the model's context of {}: set --max-prompt-tokens and "
        "--max-response-tokens where its template is made (`import` or the first `prepare`), or take a model with a larger model.context",
        i, data.path(), data.longest(i), config.context);
    require(data.rows(i) <= grain_tokens, "sample {} of '{}' adds {} tokens to a grain, more than batch.grain_tokens = {}: raise it{}", i,
            data.path(), data.rows(i), grain_tokens,
            data.kind() == DatasetKind::preference ? ", or prepare the pairs of a prompt apart (--group-pairs none)" : "");
  }
}

void load_source(const Session& session, const Source& source, Engine& engine) {
  const auto seed = static_cast<std::uint64_t>(session.options.run.seed);
  ParameterStore& store = engine.store();
  if (engine.owns_store()) random_weights(store, source.card, seed, source.checkpoint.empty() ? RandomPart::all : RandomPart::head);
  if (engine.adapters()) random_weights(*engine.adapters(), source.card, seed);
  if (!source.checkpoint.empty()) {
    const SavedModels saved(source.checkpoint, session.options.lora.base);
    const bool adapted = source.card.adapters.lora.on();
    if (adapted)
      saved.load_base(source.model, store);
    else if (engine.owns_store())
      saved.load(source.model, store);
    if (adapted)
      saved.load_adapters(source.model, *engine.adapters(), store, false);
    else if (engine.adapters())
      saved.load_head(source.model, *engine.adapters());
  }
  if (!engine.owns_store()) return;
  store.round_values();
  std::uint64_t rounded = static_cast<std::uint64_t>(store.rounded());
  all_reduce(session.ranks(), std::span(&rounded, 1), session.device);
  if (rounded) session.log.info("{}: its parameters are rounded to bf16 (numerics.values); they are f32 in '{}'", store.model(), source.checkpoint);
}

AdapterNote note_of(const Session& session, const std::string& stage, const Source& source, Engine& engine) {
  if (!engine.adapters()) return {};
  AdapterNote note{engine.transformer().lora(), "", source.model, session.options.run.seed, base_hash(engine.store()), std::string(name_of(engine.store().values_type()))};
  if (source.checkpoint.empty()) {
    session.log.warning(
        "{}: the frozen parameters are random numbers, beside which adapters learn little: start from a checkpoint, or leave {} out "
        "of lora.stages",
        stage, stage);
    return note;
  }
  namespace fs = std::filesystem;  // a run folder can be moved with all its checkpoints
  const fs::path here = fs::absolute(session.checkpoint(stage)).lexically_normal(),
                 base = fs::absolute(source.checkpoint).lexically_normal();
  note.base = (base.parent_path() == here.parent_path() ? base.lexically_relative(here) : base).string();
  return note;
}

void Progress::begin(std::int64_t step) {
  now_ = step;
  line_ = JsonLine().add("stage", stage_).add("step", step);
  waited_ = session_->grid.waited();
  gathers_waited_ = session_->data().transfers_waited();
  step_.restart();
  phase_.restart();
}

void Progress::phase(const std::string& name, std::int64_t tokens) {
  session_->ranks().barrier();
  const double seconds = phase_.restart(), idle = std::min(1.0, (session_->grid.waited() - waited_) / seconds);
  session_->seconds[stage_ + "." + name] += seconds;
  line_.add(name + "_seconds", seconds).add(name + "_tokens_per_second", static_cast<double>(tokens) / seconds);
  line_.add(name + "_idle", std::span<const double>(gather_all(session_->ranks(), idle)));
  waited_ = session_->grid.waited();
}

void Progress::end(std::int64_t tokens, const std::string& details) {
  const double seconds = step_.seconds();
  if (session_->options.machine.zero == 3) line_.add("gather_wait_seconds", session_->data().transfers_waited() - gathers_waited_);
  session_->timings(line_.add("seconds", seconds).add("tokens_per_second", static_cast<double>(tokens) / seconds));
  tokens_ += tokens;
  seconds_ += seconds;
  if (now_ % every_ && now_ != last_) return;
  const double left = total_.seconds() / static_cast<double>(now_ - first_) * static_cast<double>(last_ - now_);
  session_->log.info("{:<6} {:>5}/{} {:>3.0f} %  {}  {:.0f} tokens/s  {} elapsed, {} left", stage_, now_, last_,
                     100.0 * static_cast<double>(now_) / static_cast<double>(last_), details, static_cast<double>(tokens_) / seconds_,
                     human_duration(session_->clock.seconds()), human_duration(left));
  tokens_ = 0;
  seconds_ = 0;
}

std::int64_t grain_bound(std::int64_t samples, std::int64_t tokens, std::int64_t grain_tokens) {
  return std::max<std::int64_t>(1, std::min(samples, 2 * tokens / grain_tokens + 1));
}

}  // namespace collimate::rlhf
