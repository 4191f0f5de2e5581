#include <algorithm>
#include <cmath>
#include <numeric>

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
  g.logits = arena.take({batch, vocabulary});
  g.scratch = arena.take({batch * vocabulary});
  g.tokens = arena.take({batch}, DType::i32);
  g.slots = arena.take({batch}, DType::i32);
  g.positions = arena.take({batch}, DType::i32);
  g.uniforms = arena.take({batch}, DType::f64);
  g.logprobs = arena.take({batch});
  return g;
}

// A model that fits the caches is decoded by each thread for some of the sequences; the weights of a larger one are read once for all, and
// its threads share the kernels.
void Engine::share(std::int64_t sequences, const std::function<void(std::int64_t begin, std::int64_t count)>& body) const {
  constexpr std::int64_t most_elements = 2 << 20;
  if (store_.layout().size() <= most_elements)
    kernels::in_parts(sequences, body);
  else
    body(0, sequences);
}

// Draws the next token of each active sequence from hidden[0..n) and appends it to its continuation.
void Engine::draw(std::span<Active> active, const GenerateOptions& how, std::span<const Prompt> prompts, std::vector<Continuation>& out) {
  const auto n = static_cast<std::int64_t>(active.size());
  Device& device = workspace_->plan().device();
  std::vector<double> uniforms(n);
  for (std::int64_t b = 0; b < n; ++b)
    uniforms[b] =
        how.key.uniform(prompts[active[b].index].sample, static_cast<std::uint32_t>(out[active[b].index].tokens.size()), how.round);
  device.copy(generate_.uniforms.data(), uniforms.data(), n * sizeof(double), *stream_);
  const Tensor tokens = generate_.tokens.slice(0, n), logprobs = generate_.logprobs.slice(0, n);
  share(n, [&](std::int64_t begin, std::int64_t count) {
    const std::int64_t vocabulary = generate_.logits[1];
    const Tensor logits = generate_.logits.slice(begin, count), scratch = generate_.scratch.slice(begin * vocabulary, count * vocabulary);
    policy_->decode(logits, generate_.hidden.slice(begin, count), scratch, store_.fetch(transformer_.head_chunk()), *stream_);
    kernels::sample_tokens(tokens.slice(begin, count), logprobs.slice(begin, count), logits, generate_.uniforms.slice(begin, count),
                           how.sampling, *stream_);
  });
  std::vector<std::int32_t> drawn(n);
  std::vector<float> logprob(n);
  device.copy(drawn.data(), tokens.data(), n * sizeof(std::int32_t), *stream_);
  device.copy(logprob.data(), logprobs.data(), n * sizeof(float), *stream_);
  stream_->wait();
  for (std::int64_t b = 0; b < n; ++b) {
    const Prompt& prompt = prompts[active[b].index];
    if (!std::isfinite(logprob[b]))
      fail_with(ExitCode::failure, "model {}: sample {} has logits that are not finite at token {}: its weights are broken", store_.model(),
                prompt.sample, prompt.tokens.size() + out[active[b].index].tokens.size());
    active[b].last = drawn[b];
    out[active[b].index].tokens.push_back(drawn[b]);
    out[active[b].index].logprobs.push_back(logprob[b]);
  }
}

// Packs the admitted prompts into grains, fills their cache slots and draws their first tokens.
void Engine::prefill(std::span<const Prompt> prompts, std::span<Active> admitted, const GenerateOptions& how,
                     std::vector<Continuation>& out) {
  Device& device = workspace_->plan().device();
  const std::int64_t width = transformer_.config().width;
  for (std::size_t begin = 0; begin < admitted.size();) {
    std::vector<std::int32_t> tokens, positions, offsets{0}, slots;
    std::size_t end = begin;
    while (end < admitted.size()) {
      const auto& prompt = prompts[admitted[end].index].tokens;
      if (end > begin && kernels::padded_rows(static_cast<std::int64_t>(tokens.size() + prompt.size())) > use_.rows) break;
      tokens.insert(tokens.end(), prompt.begin(), prompt.end());
      for (std::size_t t = 0; t < prompt.size(); ++t) positions.push_back(static_cast<std::int32_t>(t));
      offsets.push_back(static_cast<std::int32_t>(tokens.size()));
      slots.push_back(admitted[end++].slot);
    }
    const auto rows = static_cast<std::size_t>(kernels::padded_rows(static_cast<std::int64_t>(tokens.size())));
    tokens.resize(rows, -1);
    positions.resize(rows, -1);
    const std::vector<std::int32_t> targets(rows, -1);
    const std::vector<std::int64_t> samples(rows, 0);
    const GrainView view = upload(generate_.grain, {tokens, positions, targets, offsets, samples});
    const auto count = static_cast<std::int64_t>(end - begin);
    device.copy(generate_.slots.data(), slots.data(), slots.size() * sizeof(std::int32_t), *stream_);
    const Tensor hidden =
        transformer_.forward(generate_.activations, store_,
                             {.stream = *stream_, .grain = view, .cache = &generate_.cache, .slots = generate_.slots.slice(0, count)});
    for (std::int64_t s = 0; s < count; ++s)
      device.copy(generate_.hidden.slice(s, 1).data(), hidden.slice(offsets[s + 1] - 1, 1).data(), width * sizeof(float), *stream_);
    draw(admitted.subspan(begin, count), how, prompts, out);
    begin = end;
  }
}

void Engine::decode(std::span<Active> active, const GenerateOptions& how, std::span<const Prompt> prompts, std::vector<Continuation>& out) {
  const auto n = static_cast<std::int64_t>(active.size());
  Device& device = workspace_->plan().device();
  std::vector<std::int32_t> tokens, slots, positions;
  for (const Active& a : active) {
    tokens.push_back(a.last);
    slots.push_back(a.slot);
    positions.push_back(a.length);
  }
  device.copy(generate_.tokens.data(), tokens.data(), n * sizeof(std::int32_t), *stream_);
  device.copy(generate_.slots.data(), slots.data(), n * sizeof(std::int32_t), *stream_);
  device.copy(generate_.positions.data(), positions.data(), n * sizeof(std::int32_t), *stream_);
  share(n, [&](std::int64_t begin, std::int64_t count) {
    const Tensor hidden =
        transformer_.decode(generate_.activations.rows(begin, count), store_, generate_.cache, generate_.tokens.slice(begin, count),
                            generate_.slots.slice(begin, count), generate_.positions.slice(begin, count), *stream_);
    device.copy(generate_.hidden.slice(begin, count).data(), hidden.data(), hidden.bytes(), *stream_);
  });
  for (Active& a : active) ++a.length;
  draw(active, how, prompts, out);
}

std::vector<Continuation> Engine::generate(std::span<const Prompt> prompts, const GenerateOptions& how) {
  ensure(use_.slots > 0 && policy_, "model {} was not planned to generate", store_.model());
  std::vector<Continuation> out(prompts.size());
  for (const Prompt& prompt : prompts) {
    const auto length = static_cast<std::int64_t>(prompt.tokens.size());
    require(length > 0, "sample {} has an empty prompt: give it at least a BOS token", prompt.sample);
    require(length + how.max_new <= use_.capacity && kernels::padded_rows(length) <= use_.rows,
            "sample {} has a prompt of {} tokens, and {} new ones do not fit the {} tokens planned for a sequence", prompt.sample, length,
            how.max_new, use_.capacity);
    const ModelConfig& config = transformer_.config();
    require(length + how.max_new <= config.context + 1,  // the last new token is not read
            "sample {} has a prompt of {} tokens, and {} new ones do not fit the model's context of {}", prompt.sample, length, how.max_new,
            config.context);
    for (const std::int32_t token : prompt.tokens)
      require(token >= 0 && token < config.vocabulary, "sample {} has the token {} in its prompt, and the model's vocabulary has {}",
              prompt.sample, token, config.vocabulary);
  }
  if (how.max_new == 0) return out;
  std::vector<std::int32_t> free(use_.slots);
  std::iota(free.rbegin(), free.rend(), 0);
  std::vector<Active> active;
  const auto retire = [&] {  // sequences that ended give their slots back
    std::erase_if(active, [&](const Active& a) {
      Continuation& c = out[a.index];
      const bool ended = std::find(how.stop.begin(), how.stop.end(), a.last) != how.stop.end();
      if (ended) c.finish = Finish::end_of_text;
      if (!ended && static_cast<std::int64_t>(c.tokens.size()) < how.max_new) return false;
      free.push_back(a.slot);
      return true;
    });
  };
  std::size_t next = 0;
  while (next < prompts.size() || !active.empty()) {
    // Few free slots are not worth a forward of their own.
    if (next < prompts.size() && (active.empty() || free.size() * 4 >= static_cast<std::size_t>(use_.slots))) {
      std::vector<Active> admitted;
      for (; next < prompts.size() && !free.empty(); ++next) {
        admitted.push_back({next, free.back(), static_cast<std::int32_t>(prompts[next].tokens.size()), 0});
        free.pop_back();
      }
      prefill(prompts, admitted, how, out);
      active.insert(active.end(), admitted.begin(), admitted.end());
    } else {
      decode(active, how, prompts, out);
    }
    retire();
  }
  return out;
}

}  // namespace collimate
