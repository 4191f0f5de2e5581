#include <algorithm>
#include <cmath>
#include <utility>

#include "collimate/collectives/all_reduce.hpp"
#include "collimate/engine/engine.hpp"
#include "collimate/kernels/rows.hpp"

namespace collimate {

Engine::Generate Engine::take_generate(Arena& arena) const {
  const std::int64_t batch = use_.slots, vocabulary = transformer_.config().vocabulary;
  Generate g;
  g.cache = transformer_.take_cache(arena, use_.slots, use_.capacity);
  g.grain = take_grain(arena, use_.rows);
  g.activations = transformer_.take(arena, std::max(use_.rows, batch), Transformer::Keep::nothing);
  g.hidden = arena.take({batch, transformer_.config().width});
  if (policy_) {
    g.logits = arena.take({batch, vocabulary});
    g.scratch = arena.take({policy_->decode_scratch(batch)});
  }
  g.tokens = arena.take({batch}, DType::i32);
  g.drawn = arena.take({batch}, DType::i32);
  g.slots = arena.take({batch}, DType::i32);
  g.positions = arena.take({batch}, DType::i32);
  g.uniforms = arena.take({batch}, DType::f64);
  g.logprobs = arena.take({batch});
  return g;
}

// The next work of some sequences: prompts that fit into one grain, or one token more for all of its active sequences.
//
// Stages work on the groups in turn, so that each has something to do while the tokens of a group's last work are drawn at the end of the
// pipeline and come back. All ranks of a replica keep the same books, because they learn the same tokens.
class Engine::Sequences {
 public:
  Sequences(std::size_t next, std::size_t end, std::int32_t first_slot, std::int32_t slots) : next_(next), end_(end), slots_(slots) {
    for (std::int32_t slot = first_slot + slots; slot-- > first_slot;) free_.push_back(slot);
  }
  bool done() const { return next_ == end_ && admitted_.empty() && active_.empty(); }
  bool waits() const { return !work.empty(); }

  /// Chooses the next work; true: prompts, false: a token each.
  bool choose(std::span<const Prompt> prompts, std::int64_t rows) {
    // Few free slots are not worth a forward of their own.
    if (admitted_.empty() && next_ < end_ && (active_.empty() || free_.size() * 4 >= static_cast<std::size_t>(slots_)))
      for (; next_ < end_ && !free_.empty(); ++next_) {
        admitted_.push_back({next_, free_.back(), static_cast<std::int32_t>(prompts[next_].tokens.size()), 0});
        free_.pop_back();
      }
    if (admitted_.empty()) {
      work = std::exchange(active_, {});
      return false;
    }
    std::int64_t tokens = 0;
    std::size_t count = 0;
    for (; count < admitted_.size(); ++count) {
      tokens += admitted_[count].length;
      if (count && kernels::padded_rows(tokens) > rows) break;
    }
    work.assign(admitted_.begin(), admitted_.begin() + static_cast<std::ptrdiff_t>(count));
    admitted_.erase(admitted_.begin(), admitted_.begin() + static_cast<std::ptrdiff_t>(count));
    return true;
  }

  /// Takes the tokens of the last work; sequences that ended give their slots back.
  void settle(std::span<const std::int32_t> tokens, const GenerateOptions& how, std::vector<Continuation>& out) {
    for (std::size_t i = 0; i < work.size(); ++i) {
      Active& a = work[i];
      a.last = tokens[i];
      if (how.each) how.each(a.index, a.last);
      Continuation& c = out[a.index];
      c.tokens.push_back(a.last);
      const bool ended = std::find(how.stop.begin(), how.stop.end(), a.last) != how.stop.end();
      if (ended) c.finish = Finish::end_of_text;
      if (ended || static_cast<std::int64_t>(c.tokens.size()) >= how.max_new)
        free_.push_back(a.slot);
      else
        active_.push_back(a);
    }
    work.clear();
  }

  std::vector<Active> work;           ///< what is under way
  std::vector<std::int32_t> drawn;    ///< last stage: its tokens
  std::unique_ptr<Transfer> sending;  ///< last stage: of them

 private:
  std::size_t next_, end_;
  std::int32_t slots_;
  std::vector<std::int32_t> free_;
  std::vector<Active> active_, admitted_;
};

// A model that fits the caches is decoded by each thread for some of the sequences; the weights of a larger one are read once for all, and
// its threads share the kernels. So do those of ranks that share layers: only one thread may talk to the others.
void Engine::share(std::int64_t sequences, const std::function<void(std::int64_t begin, std::int64_t count)>& body) const {
  constexpr std::int64_t most_elements = 2 << 20;
  if (stream_->device().is_host() && !streams() && store_->layout().size() <= most_elements && division_.ranks(Axis::tensor) == 1)
    kernels::in_parts(sequences, body);
  else
    body(0, sequences);
}

// Draws the next token of each sequence from hidden[0..n), on the last stage.
std::vector<std::int32_t> Engine::draw(std::span<const Active> work, const GenerateOptions& how, std::span<const Prompt> prompts,
                                       std::vector<Continuation>& out) {
  const auto n = static_cast<std::int64_t>(work.size());
  std::vector<double> uniforms(n);
  for (std::int64_t b = 0; b < n; ++b)
    uniforms[b] = how.key.uniform(prompts[work[b].index].sample, static_cast<std::uint32_t>(out[work[b].index].tokens.size()), how.round);
  staging().put(generate_.uniforms.slice(0, n), uniforms, *stream_);
  const Tensor tokens = generate_.tokens.slice(0, n), logprobs = generate_.logprobs.slice(0, n);
  share(n, [&](std::int64_t begin, std::int64_t count) {
    const std::int64_t each = policy_->decode_scratch(1);
    const Tensor logits = generate_.logits.slice(begin, count), scratch = generate_.scratch.slice(begin * each, count * each);
    policy_->decode(logits, generate_.hidden.slice(begin, count), scratch, *store_, *stream_);
    kernels::sample_tokens(tokens.slice(begin, count), logprobs.slice(begin, count), logits, generate_.uniforms.slice(begin, count),
                           how.sampling, *stream_);
  });
  std::vector<std::int32_t> drawn(n);
  std::vector<float> logprob(n);
  staging().get(drawn, tokens, *stream_);
  staging().get(logprob, logprobs, *stream_);
  for (std::int64_t b = 0; b < n; ++b) {
    const Prompt& prompt = prompts[work[b].index];
    attempt([&] {
      if (!std::isfinite(logprob[b]))
        fail_with(ExitCode::failure, "model {}: sample {} has logits that are not finite at token {}: its weights are broken",
                  store_->model(), prompt.sample, prompt.tokens.size() + out[work[b].index].tokens.size());
    });
    out[work[b].index].logprobs.push_back(logprob[b]);
  }
  return drawn;
}

// This stage's part of a work; on the last stage the hidden states of the last tokens come out of it.
void Engine::prefill(std::span<const Active> work, std::span<const Prompt> prompts) {
  std::vector<std::int32_t> tokens, positions, offsets{0}, slots;
  for (const Active& a : work) {
    const auto& prompt = prompts[a.index].tokens;
    tokens.insert(tokens.end(), prompt.begin(), prompt.end());
    for (std::size_t t = 0; t < prompt.size(); ++t) positions.push_back(static_cast<std::int32_t>(t));
    offsets.push_back(static_cast<std::int32_t>(tokens.size()));
    slots.push_back(a.slot);
  }
  const auto rows = static_cast<std::size_t>(kernels::padded_rows(static_cast<std::int64_t>(tokens.size())));
  tokens.resize(rows, -1);
  positions.resize(rows, -1);
  const std::vector<std::int32_t> targets(rows, -1);
  const std::vector<std::int64_t> samples(rows, 0);
  const GrainView view = upload(generate_.grain, {tokens, positions, targets, offsets, samples});
  const auto count = static_cast<std::int64_t>(work.size());
  const kernels::Ragged at{slots, generate_.slots.slice(0, count)};
  staging().put(at.device, slots, *stream_);
  if (!division_.first_stage()) receive_stage(generate_.activations.x[0].slice(0, view.rows()), division_.stage() - 1);
  const Transformer::Grain grain{generate_.activations, {.stream = *stream_, .grain = view, .cache = &generate_.cache, .slots = at}};
  transformer_.forward({&grain, 1}, weights());
  const Tensor hidden = transformer_.output(generate_.activations, view.rows());
  if (!division_.last_stage()) {
    generate_.sent = send_stage(hidden, division_.stage() + 1);
    return;
  }
  for (std::int64_t s = 0; s < count; ++s) copy(generate_.hidden.slice(s, 1), hidden.slice(offsets[s + 1] - 1, 1), *stream_);
}

void Engine::decode(std::span<Active> work) {
  const auto n = static_cast<std::int64_t>(work.size());
  std::vector<std::int32_t> tokens, slots, positions;
  for (Active& a : work) {
    tokens.push_back(a.last);
    slots.push_back(a.slot);
    positions.push_back(a.length++);
  }
  const kernels::Ragged last{tokens, generate_.tokens.slice(0, n)}, at{slots, generate_.slots.slice(0, n)},
      places{positions, generate_.positions.slice(0, n)};
  staging().put(last.device, tokens, *stream_);
  staging().put(at.device, slots, *stream_);
  staging().put(places.device, positions, *stream_);
  if (!division_.first_stage()) receive_stage(generate_.activations.x[0].slice(0, n), division_.stage() - 1);
  share(n, [&](std::int64_t begin, std::int64_t count) {
    const Tensor hidden =
        transformer_.decode(generate_.activations.rows(begin, count), weights(), generate_.cache, last.slice(begin, count),
                            at.slice(begin, count), places.slice(begin, count), *stream_);
    copy(generate_.hidden.slice(begin, count), hidden, *stream_);
  });
  if (!division_.last_stage()) generate_.sent = send_stage(generate_.hidden.slice(0, n), division_.stage() + 1);
}

/// Where values are gathered for each pass: whether any replica still has work. All of them make the same passes.
bool Engine::any_replica(bool mine) const {
  if (!gathers()) return mine;
  std::int64_t some = mine;
  all_reduce(division_.along(Axis::data), std::span(&some, 1), stream_->device());
  return some > 0;
}

/// A pass without a row, for replicas that have some: fetches what they fetch.
void Engine::take_part() {
  const GrainView view = upload(generate_.grain, {});
  const Transformer::Grain nothing{generate_.activations, {.stream = *stream_, .grain = view}};
  transformer_.forward({&nothing, 1}, weights());
  if (!division_.last_stage()) return;
  for (const int unit : policy_->scoring_route()) store_->fetch(unit);
}

// The last stage tells the others what it drew.
void Engine::send_drawn(Sequences& group) {
  const Tensor tokens = on_host(std::span(group.drawn), workspace_->plan().device());
  std::vector<Message> messages;
  for (int stage = 0; stage + 1 < division_.stages(); ++stage) messages.push_back({tokens, stage});
  if (!messages.empty()) group.sending = division_.along(Axis::pipeline).start(messages, {}, *stream_);
}

void Engine::check(std::span<const Prompt> prompts, const GenerateOptions& how) const {
  const ModelConfig& config = transformer_.config();
  for (const Prompt& prompt : prompts) {
    const auto length = static_cast<std::int64_t>(prompt.tokens.size());
    require(length > 0, "sample {} has an empty prompt: give it at least a BOS token", prompt.sample);
    require(length + how.max_new <= use_.capacity && kernels::padded_rows(length) <= use_.rows,
            "sample {} has a prompt of {} tokens, and {} new ones do not fit the {} tokens planned for a sequence", prompt.sample, length,
            how.max_new, use_.capacity);
    require(length + how.max_new <= config.context + 1,  // the last new token is not read
            "sample {} has a prompt of {} tokens, and {} new ones do not fit the model's context of {}", prompt.sample, length, how.max_new,
            config.context);
    for (const std::int32_t token : prompt.tokens)
      require(token >= 0 && token < config.vocabulary, "sample {} has the token {} in its prompt, and the model's vocabulary has {}",
              prompt.sample, token, config.vocabulary);
  }
}

std::vector<Continuation> Engine::generate(std::span<const Prompt> prompts, const GenerateOptions& how) {
  ensure(use_.slots > 0 && transformer_.head() == Head::policy, "model {} was not planned to generate", store_->model());
  if (!attempt([&] { check(prompts, how); })) prompts = {};
  std::vector<Continuation> out(prompts.size());
  forget_routes();
  store_->hold_all();
  if (adapters_) adapters_->hold_all();
  if (!streams()) learning().settle();  // several threads may fetch
  std::vector<Sequences> groups;
  const int count = static_cast<int>(std::min<std::int64_t>(division_.stages(), use_.slots));
  for (int g = 0; how.max_new > 0 && g < count; ++g) {
    const Part share = part_of(std::ssize(prompts), g, count), slots = part_of(use_.slots, g, count);
    groups.emplace_back(share.begin, share.begin + share.count, static_cast<std::int32_t>(slots.begin),
                        static_cast<std::int32_t>(slots.count));
  }
  while (any_replica(std::any_of(groups.begin(), groups.end(), [](const Sequences& group) { return !group.done() || group.waits(); })))
    for (Sequences& group : groups) {
      if (group.waits()) {
        if (!division_.last_stage()) {
          const Tensor tokens = generate_.drawn.slice(0, std::ssize(group.work));
          receive_stage(tokens, division_.stages() - 1);
          group.drawn.resize(group.work.size());
          staging().get(group.drawn, tokens, *stream_);
        }
        group.settle(group.drawn, how, out);
      }
      if (!any_replica(!group.done())) continue;
      generate_.sent.reset();  // what was sent may lie where the next one comes
      if (streams()) {
        forget_routes();
        announce(scoring_);
      }
      if (group.done()) {
        take_part();
        continue;
      }
      if (group.choose(prompts, use_.rows))
        prefill(group.work, prompts);
      else
        decode(group.work);
      if (!division_.last_stage()) continue;
      group.sending.reset();
      group.drawn = draw(group.work, how, prompts, out);
      send_drawn(group);
    }
  generate_.sent.reset();
  forget_routes();
  store_->release_all();
  if (adapters_) adapters_->release_all();
  tell();
  return out;
}

}  // namespace collimate
