#include "collimate/engine/engine.hpp"

#include <algorithm>

#include "collimate/engine/schedule.hpp"
#include "collimate/kernels/rows.hpp"

namespace collimate {

Engine::Engine(const std::string& name, const ModelConfig& config, Head head, const Division& division, const EngineUse& use,
               Workspace& workspace)
    : use_(use),
      workspace_(&workspace),
      stream_(&workspace.plan().device().stream()),
      division_(division),
      transformer_(config, head, division, workspace.plan(), use.recompute, use.lora, std::max(use.rows, use.capacity)),
      store_(use.frozen) {
  if (!store_) {
    const StoreUse own{use.lora.on() ? 0 : use.most_grains, use.group, use.values, use.slots > 0 && use.holds_rollouts, &workspace.windows()};
    own_ = std::make_unique<ParameterStore>(name, transformer_.layout(), workspace.plan(), division, own);
    store_ = own_.get();
  }
  if (use.lora.on()) {
    Division with_state = division;  // adapters rest where they are stepped
    with_state.host.values = division.host.state;
    adapters_ = std::make_unique<ParameterStore>(name + " adapters", transformer_.adapter_layout(), workspace.plan(), with_state,
                                                 StoreUse{use.most_grains, use.group, DType::f32, use.slots > 0 && use.holds_rollouts, &workspace.adapter_windows()});
  }
  scoring_ = transformer_.forward_route();
  backward_ = transformer_.backward_route();
  if (division.last_stage()) make_head();
  const auto measure = [&](auto take) {
    Arena arena(workspace.plan().device());
    take(arena);
    workspace.need(arena.used());
  };
  if (use_.rows) measure([&](Arena& arena) { take_score(arena); });
  if (use_.most_grains) measure([&](Arena& arena) { take_learn(arena); });
  if (use_.slots) measure([&](Arena& arena) { take_generate(arena); });
}

void Engine::make_head() {
  const Part place = transformer_.head_layout().units_of(transformer_.head_place());
  const auto add = [&](Route& route, const std::vector<int>& head, bool first) {
    std::vector<int>& units = transformer_.head_apart() ? route.adapters : route.own;
    units.insert(first ? units.begin() : units.end(), head.begin(), head.end());
  };
  if (transformer_.head() == Head::value) {
    value_.emplace(transformer_);
    for (Route* route : {&scoring_, &backward_}) add(*route, {static_cast<int>(place.begin)}, route == &backward_);
    return;
  }
  const bool streams = store_->streams() || store_->gradients_leave();  // one unit at a time
  const bool twice = use_.sweeps.value_or(stream_->device().is_host() ? Sweeps::once : Sweeps::twice) == Sweeps::twice || (streams && place.count > 1);
  policy_.emplace(transformer_, twice ? Sweeps::twice : Sweeps::once);
  add(scoring_, policy_->scoring_route(), false);
  add(backward_, policy_->learning_route(), true);
}

void Engine::prepare() {
  if (own_) own_->clear();
  if (adapters_) adapters_->clear();
  transformer_.prepare(*stream_);
  const auto lay = [&](auto take) {
    Arena arena = workspace_->arena();
    return take(arena);
  };
  if (use_.rows) score_ = lay([&](Arena& arena) { return take_score(arena); });
  if (use_.most_grains) learn_ = lay([&](Arena& arena) { return take_learn(arena); });
  if (use_.slots) generate_ = lay([&](Arena& arena) { return take_generate(arena); });
}

Engine::GrainBuffers Engine::take_grain(Arena& arena, std::int64_t rows) const {
  return {arena.take({rows}, DType::i32), arena.take({rows}, DType::i32), arena.take({rows}, DType::i32), arena.take({rows}, DType::i64),
          arena.take({rows + 1}, DType::i32)};
}

Engine::Learn Engine::take_learn(Arena& arena) const {
  Learn learn;
  const std::int64_t width = transformer_.config().width;
  const int replicas = division_.ranks(Axis::data);
  const std::int64_t run = (use_.most_grains + replicas - 1) / replicas, group = group_of(run);
  const auto flights = std::min<std::int64_t>(groups_in_flight(division_.stage(), division_.stages()), (run + group - 1) / group);
  learn.sent.resize(static_cast<std::size_t>(group));
  for (std::int64_t f = 0; f < flights; ++f) {
    Group& flight = learn.flights.emplace_back();
    for (std::int64_t g = 0; g < group; ++g) {
      const Activations* first = f + g == 0 ? nullptr : &learn.flights[0][0].activations;
      GrainBuffers buffers = take_grain(arena, use_.rows);
      Activations activations = transformer_.take(arena, use_.rows, Transformer::Keep::all, first);
      if (first) activations.gradient = f ? learn.flights[0][g].activations.gradient : arena.take({use_.rows, width});
      flight.push_back({std::move(buffers), std::move(activations), {}, {}});
    }
  }
  for (std::int64_t g = 0; g < group; ++g) learn.dhidden.push_back(arena.take({use_.rows, width}));
  if (policy_) learn.head = policy_->take(arena, group, use_.rows, Transformer::Keep::all);
  if (value_) {
    learn.values = arena.take({use_.rows});
    learn.dvalues = arena.take({use_.rows});
    for (auto* host : {&learn.host_values, &learn.host_dvalues}) host->resize(arena.counts() ? 0 : static_cast<std::size_t>(use_.rows));
  }
  return learn;
}

Engine::Score Engine::take_score(Arena& arena) const {
  Score score;
  for (std::int64_t g = 0; g < use_.group; ++g) {
    GrainBuffers buffers = take_grain(arena, use_.rows);
    Activations activations = transformer_.take(arena, use_.rows, Transformer::Keep::nothing, g ? &score.grains[0].activations : nullptr);
    score.grains.push_back({std::move(buffers), std::move(activations), {}, {}});
  }
  if (policy_) score.head = policy_->take(arena, use_.group, use_.rows, Transformer::Keep::nothing);
  if (value_) score.values = arena.take({use_.rows});
  return score;
}

// Ranks that share a work wait for each other. So one that cannot do its part says so when the work is over, and goes on meanwhile with
// numbers that nobody will use.
bool Engine::attempt(const std::function<void()>& step) {
  try {
    step();
    return true;
  } catch (const Error& error) {
    if (!late_) late_.emplace(error);
    return false;
  }
}

void Engine::tell() {
  if (late_) throw *std::exchange(late_, std::nullopt);
}

/// Tokens that a kernel would take for padding, or read behind a table.
void Engine::check(const Grain& grain) const {
  const ModelConfig& config = transformer_.config();
  for (std::size_t r = 0; r < grain.tokens.size(); ++r) {
    require(grain.tokens[r] < config.vocabulary && grain.targets[r] < config.vocabulary,
            "sample {} has token {} for the model {}, whose vocabulary ends at {}: its tokenizer is another one", grain.samples[r],
            std::max(grain.tokens[r], grain.targets[r]), store_->model(), config.vocabulary - 1);
    require(grain.positions[r] < config.context, "sample {} is longer than the context of {} tokens of the model {}: shorten it",
            grain.samples[r], config.context, store_->model());
  }
}

/// The grains; in place of one that cannot be computed, as many rows of padding.
std::vector<Grain> Engine::checked(std::span<const Grain> grains) {
  std::vector<Grain> out(grains.begin(), grains.end());
  for (Grain& grain : out) {
    if (attempt([&] { check(grain); })) continue;
    padding_.resize(static_cast<std::size_t>(use_.rows), -1);
    const auto padding = std::span<const std::int32_t>(padding_).first(std::min(padding_.size(), grain.tokens.size()));
    grain = {padding, padding, padding, grain.offsets, grain.samples};
  }
  return out;
}

GrainView Engine::upload(const GrainBuffers& buffers, const Grain& grain) {
  const auto rows = static_cast<std::int64_t>(grain.tokens.size());
  ensure(buffers.tokens && rows <= buffers.tokens[0] && (rows == 0 || kernels::padded_rows(rows) == rows),
         "a grain of {} rows does not fit an engine planned for {}", rows, use_.rows);
  const auto put = [&](const Tensor& tensor, auto span) {
    const Tensor part = tensor.slice(0, std::ssize(span));
    staging().put(part, span, *stream_);
    return part;
  };
  return {{grain.tokens, put(buffers.tokens, grain.tokens)}, {grain.positions, put(buffers.positions, grain.positions)}, put(buffers.targets, grain.targets),
          put(buffers.samples, grain.samples), {grain.offsets, put(buffers.offsets, grain.offsets)}};
}

// Between stages: what a forward gives goes on, what a backward gives goes back; every rank speaks with the one of its own place among
// those that share its layers.
std::unique_ptr<Transfer> Engine::send_stage(Tensor data, int to) {
  const Message message{data, to};
  return division_.along(Axis::pipeline).start({&message, 1}, {}, *stream_);
}

void Engine::receive_stage(Tensor data, int from) { division_.along(Axis::pipeline).receive(data, from, *stream_); }

/// One more pass of which the stores know what it will fetch.
void Engine::announce(const Route& route) {
  store_->itinerary().add(route.own);
  if (adapters_) adapters_->itinerary().add(route.adapters);
}

void Engine::forget_routes() {
  store_->itinerary().clear();
  if (adapters_) adapters_->itinerary().clear();
}

/// This stage's part of the forward of a group.
void Engine::forward(Group& flight, std::span<const Grain> grains, const Dropout& dropout) {
  std::vector<Transformer::Grain> group;
  for (std::size_t g = 0; g < grains.size(); ++g) {
    InFlight& grain = flight[g];
    grain.sent.reset();  // what was sent may lie where the next one comes
    grain.view = upload(grain.buffers, grains[g]);
    const std::int64_t rows = grain.view.rows();
    if (rows && !division_.first_stage()) receive_stage(grain.activations.x[0].slice(0, rows), division_.stage() - 1);
    group.push_back({grain.activations, learning_pass(grain.view, dropout)});
  }
  transformer_.forward(group, weights());
  if (division_.last_stage()) return;
  for (std::size_t g = 0; g < grains.size(); ++g)
    if (const std::int64_t rows = flight[g].view.rows()) flight[g].sent = send_stage(transformer_.output(flight[g].activations, rows), division_.stage() + 1);
}

std::vector<PolicyHead::Grain> Engine::head_grains(const Group& flight, std::span<const Grain> grains) const {
  std::vector<PolicyHead::Grain> group;
  for (std::size_t g = 0; g < grains.size(); ++g)
    group.push_back({transformer_.output(flight[g].activations, flight[g].view.rows()), grains[g].targets});
  return group;
}

double Engine::traffic_of_scoring(std::int64_t grains) const {
  const double pass = store_->fetched_bytes(scoring_.own) + (adapters_ ? adapters_->fetched_bytes(scoring_.adapters) : 0);
  return pass * static_cast<double>((grains + use_.group - 1) / use_.group);
}

double Engine::traffic_of_step(std::int64_t grains) const {
  const std::int64_t group = group_of(grains);
  const Route& forward = transformer_.forward_route();
  double pass = store_->fetched_bytes(forward.own) + store_->fetched_bytes(backward_.own);
  if (adapters_) pass += adapters_->fetched_bytes(forward.adapters) + adapters_->fetched_bytes(backward_.adapters);
  return pass * static_cast<double>((grains + group - 1) / group) + learning().spilled_bytes(adapters_ ? backward_.adapters : backward_.own, (grains + group - 1) / group, grains);
}

void Engine::score_all(std::span<const Grain> all, const GroupHead& head) {
  const std::vector<Grain> grains = checked(all);
  const std::size_t most = score_.grains.size();
  forget_routes();
  for (std::size_t first = 0; first < grains.size(); first += most) announce(scoring_);
  for (std::size_t first = 0; first < grains.size(); first += most) {
    const auto group = std::span(grains).subspan(first, std::min(most, grains.size() - first));
    forward(score_.grains, group, {});
    if (division_.last_stage()) head(first, head_grains(score_.grains, group));
  }
  for (InFlight& grain : score_.grains) grain.sent.reset();
  tell();
}

void Engine::score(std::span<const Grain> grains, float temperature, const EachScored& each) {
  ensure(transformer_.head() == Head::policy, "model {} has another head", store_->model());
  score_all(grains, [&](std::size_t first, std::span<const PolicyHead::Grain> group) {
    policy_->score(group, temperature, score_.head, *store_, *stream_,
                   [&](std::size_t g, auto logprob, auto entropy) { each(first + g, logprob, entropy); });
  });
}

void Engine::values(std::span<const Grain> grains, const EachValued& each) {
  ensure(transformer_.head() == Head::value, "model {} has another head", store_->model());
  std::vector<float> values;
  score_all(grains, [&](std::size_t first, std::span<const PolicyHead::Grain> group) {
    const Lease lease = fetch_value_head();
    for (std::size_t g = 0; g < group.size(); ++g) {
      values.resize(group[g].targets.size());
      if (values.empty()) continue;
      const Tensor out = score_.values.slice(0, std::ssize(values));
      value_->forward(out, group[g].hidden, lease, *stream_);
      staging().get(values, out, *stream_);
      each(first + g, values);
    }
  });
}

void Engine::score(const Grain& grain, float temperature, std::span<float> logprob, std::span<float> entropy) {
  score({&grain, 1}, temperature, [&](std::size_t, auto l, auto e) {
    std::copy(l.begin(), l.end(), logprob.begin());
    std::copy(e.begin(), e.end(), entropy.begin());
  });
}

void Engine::values(const Grain& grain, std::span<float> values) {
  this->values({&grain, 1}, [&](std::size_t, auto v) { std::copy(v.begin(), v.end(), values.begin()); });
}

// The key of a step's dropout: the seed moved by the step, so that every step has its own masks.
Pass Engine::learning_pass(const GrainView& grain, const Dropout& dropout) {
  const std::uint64_t seed = dropout.seed + 0x9e3779b97f4a7c15ull * static_cast<std::uint64_t>(dropout.step);
  return {.stream = *stream_,
          .grain = grain,
          .dropout = dropout.probability,
          .adapter_dropout = dropout.adapters,
          .key = RandomKey(seed, Purpose::dropout)};
}

void Engine::train_backward(Group& flight, std::size_t first, std::span<const Grain> grains, const Dropout& dropout, const GroupHead& head) {
  std::vector<PolicyHead::Grain> of_head = head_grains(flight, grains);
  std::vector<Transformer::Grain> group;
  for (std::size_t g = 0; g < grains.size(); ++g) {
    const std::int64_t rows = flight[g].view.rows();
    learn_.sent[g].reset();
    of_head[g].dhidden = learn_.dhidden[g].slice(0, rows);
    group.push_back({flight[g].activations, learning_pass(flight[g].view, dropout), of_head[g].dhidden});
    if (rows && !division_.last_stage()) receive_stage(flight[g].activations.gradient.slice(0, rows), division_.stage() + 1);
  }
  if (division_.last_stage()) head(first, of_head);
  transformer_.backward(group, weights());
  if (division_.first_stage()) return;
  for (std::size_t g = 0; g < grains.size(); ++g)
    if (const std::int64_t rows = flight[g].view.rows()) learn_.sent[g] = send_stage(flight[g].activations.gradient.slice(0, rows), division_.stage() - 1);
}

void Engine::train(std::span<const Grain> all, const Dropout& dropout, const GroupHead& head) {
  ensure(learning().learns(), "model {} was not planned to learn", store_->model());
  const std::vector<Grain> grains = checked(all);
  const std::size_t most = learn_.dhidden.size();
  const auto actions = one_forward_one_backward(division_.stage(), division_.stages(), static_cast<int>((grains.size() + most - 1) / most));
  forget_routes();
  for (const Action& action : actions) announce(action.forward ? transformer_.forward_route() : backward_);
  for (const Action& action : actions) {
    const std::size_t first = static_cast<std::size_t>(action.group) * most;
    const auto group = std::span(grains).subspan(first, std::min(most, grains.size() - first));
    Group& flight = learn_.flights[static_cast<std::size_t>(action.group) % learn_.flights.size()];
    if (action.forward)
      forward(flight, group, dropout);
    else
      train_backward(flight, first, group, dropout, head);
  }
  for (auto& sent : learn_.sent) sent.reset();
  for (Group& flight : learn_.flights)
    for (InFlight& grain : flight) grain.sent.reset();
  tell();
}

void Engine::forward_backward(std::span<const Grain> grains, float temperature, const Dropout& dropout, const GrainTokenLoss& loss) {
  ensure(transformer_.head() == Head::policy, "model {} has another head", store_->model());
  train(grains, dropout, [&](std::size_t first, std::span<const PolicyHead::Grain> group) {
    policy_->forward_backward(group, temperature, learn_.head, *store_, *stream_,
                              [&](std::size_t g, std::int64_t row, auto logprob, auto entropy, auto dlogprob, auto dentropy) {
                                loss(first + g, row, logprob, entropy, dlogprob, dentropy);
                              });
  });
}

void Engine::forward_backward(std::span<const Grain> grains, const Dropout& dropout, const GrainValueLoss& loss) {
  ensure(transformer_.head() == Head::value, "model {} has another head", store_->model());
  train(grains, dropout, [&](std::size_t first, std::span<const PolicyHead::Grain> group) {
    Lease lease = fetch_value_head();
    ParameterStore& store = transformer_.head_store(weights());
    for (std::size_t g = 0; g < group.size(); ++g) {
      if (const std::size_t rows = group[g].targets.size()) {
        const Tensor hidden = group[g].hidden, values = learn_.values.slice(0, hidden[0]), dvalues = learn_.dvalues.slice(0, hidden[0]);
        value_->forward(values, hidden, lease, *stream_);
        const auto host = std::span(learn_.host_values).first(rows), gradient = std::span(learn_.host_dvalues).first(rows);
        staging().get(host, values, *stream_);
        std::ranges::fill(gradient, 0.0f);
        loss(first + g, host, gradient);
        staging().put(dvalues, std::span<const float>(gradient), *stream_);
        lease.gradient = store.gradient(value_head_unit()).gradient;
        value_->backward(group[g].dhidden, dvalues, hidden, lease, *stream_);
      }
      store.reduce(value_head_unit());
    }
  });
}

void Engine::forward_backward(const Grain& grain, float temperature, const Dropout& dropout, const TokenLoss& loss) {
  forward_backward({&grain, 1}, temperature, dropout,
                   [&](std::size_t, std::int64_t row, auto logprob, auto entropy, auto dlogprob, auto dentropy) {
                     loss(row, logprob, entropy, dlogprob, dentropy);
                   });
}

void Engine::forward_backward(const Grain& grain, const Dropout& dropout, const ValueLoss& loss) {
  forward_backward({&grain, 1}, dropout, [&](std::size_t, auto values, auto dvalues) { loss(values, dvalues); });
}

std::vector<float> Engine::logits(const Grain& grain) {
  ensure(policy_.has_value(), "model {} has another head", store_->model());
  check(grain);
  forget_routes();
  InFlight& one = score_.grains[0];
  forward(score_.grains, {&grain, 1}, {});
  const GrainView& view = one.view;
  const Tensor hidden = transformer_.output(one.activations, view.rows());
  std::vector<float> out(view.rows() * transformer_.config().vocabulary);
  policy_->logits(hidden, score_.head, *store_, *stream_, out);
  return out;
}

}  // namespace collimate
