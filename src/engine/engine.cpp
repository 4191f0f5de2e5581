#include "collimate/engine/engine.hpp"

#include <algorithm>

#include "collimate/kernels/rows.hpp"

namespace collimate {

Engine::Engine(const std::string& name, const ModelConfig& config, Head head, int shards, const EngineUse& use, int data_ranks,
               Workspace& workspace)
    : use_(use),
      workspace_(&workspace),
      stream_(&workspace.plan().device().stream()),
      transformer_(config, head, shards, workspace.plan()),
      store_(name, transformer_.layout(), workspace.plan(), use.most_grains, data_ranks) {
  if (head == Head::policy)
    policy_.emplace(transformer_);
  else
    value_.emplace(transformer_);
  const auto measure = [&](auto take) {
    Arena arena(workspace.plan().device());
    take(arena);
    workspace.need(arena.used());
  };
  if (use_.rows) measure([&](Arena& arena) { take_score(arena); });
  if (use_.most_grains) measure([&](Arena& arena) { take_learn(arena); });
  if (use_.slots) measure([&](Arena& arena) { take_generate(arena); });
}

void Engine::prepare() {
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
  learn.grain = take_grain(arena, use_.rows);
  learn.activations = transformer_.take(arena, use_.rows, Transformer::Keep::all);
  learn.dhidden = arena.take({use_.rows, transformer_.config().width});
  if (policy_) {
    learn.head = policy_->take(arena, Transformer::Keep::all);
  } else {
    learn.values = arena.take({use_.rows});
    learn.dvalues = arena.take({use_.rows});
  }
  return learn;
}

Engine::Score Engine::take_score(Arena& arena) const {
  Score score;
  score.grain = take_grain(arena, use_.rows);
  score.activations = transformer_.take(arena, use_.rows, Transformer::Keep::nothing);
  if (policy_)
    score.head = policy_->take(arena, Transformer::Keep::nothing);
  else
    score.values = arena.take({use_.rows});
  return score;
}

GrainView Engine::upload(const GrainBuffers& buffers, const Grain& grain) {
  const auto rows = static_cast<std::int64_t>(grain.tokens.size());
  ensure(buffers.tokens && rows <= buffers.tokens[0] && kernels::padded_rows(rows) == rows,
         "a grain of {} rows does not fit an engine planned for {}", rows, use_.rows);
  const ModelConfig& config = transformer_.config();
  for (std::int64_t r = 0; r < rows; ++r) {  // what a kernel would take for padding, or read behind a table
    require(grain.tokens[r] < config.vocabulary && grain.targets[r] < config.vocabulary,
            "sample {} has token {} for the model {}, whose vocabulary ends at {}: its tokenizer is another one", grain.samples[r],
            std::max(grain.tokens[r], grain.targets[r]), store_.model(), config.vocabulary - 1);
    require(grain.positions[r] < config.context, "sample {} is longer than the context of {} tokens of the model {}: shorten it",
            grain.samples[r], config.context, store_.model());
  }
  const auto put = [&](const Tensor& tensor, auto span) {
    const Tensor part = tensor.slice(0, static_cast<std::int64_t>(span.size()));
    part.device().copy(part.data(), span.data(), span.size_bytes(), *stream_);
    return part;
  };
  return {put(buffers.tokens, grain.tokens), put(buffers.positions, grain.positions), put(buffers.targets, grain.targets),
          put(buffers.samples, grain.samples), put(buffers.offsets, grain.offsets)};
}

void Engine::score(const Grain& grain, float temperature, std::span<float> logprob, std::span<float> entropy) {
  ensure(policy_.has_value(), "model {} has another head", store_.model());
  const GrainView view = upload(score_.grain, grain);
  const Tensor hidden = transformer_.forward(score_.activations, store_, {.stream = *stream_, .grain = view});
  policy_->score(hidden, view.targets, temperature, score_.head, store_.fetch(transformer_.head_chunk()), *stream_, logprob, entropy);
}

void Engine::values(const Grain& grain, std::span<float> values) {
  ensure(value_.has_value(), "model {} has another head", store_.model());
  const GrainView view = upload(score_.grain, grain);
  const Tensor hidden = transformer_.forward(score_.activations, store_, {.stream = *stream_, .grain = view});
  const Tensor out = score_.values.slice(0, view.rows());
  value_->forward(out, hidden, store_.fetch(transformer_.head_chunk()), *stream_);
  out.device().copy(values.data(), out.data(), out.bytes(), *stream_);
  stream_->wait();
}

// The key of a step's dropout: the seed moved by the step, so that every step has its own masks.
Pass Engine::learning_pass(const GrainView& grain, const Dropout& dropout) {
  const std::uint64_t seed = dropout.seed + 0x9e3779b97f4a7c15ull * static_cast<std::uint64_t>(dropout.step);
  return {.stream = *stream_, .grain = grain, .dropout = dropout.probability, .key = RandomKey(seed, Purpose::dropout)};
}

void Engine::forward_backward(const Grain& grain, float temperature, const Dropout& dropout, const TokenLoss& loss) {
  ensure(policy_ && store_.learns(), "model {} has another head or was not planned to learn", store_.model());
  const GrainView view = upload(learn_.grain, grain);
  const Pass pass = learning_pass(view, dropout);
  store_.open_grain();
  const Tensor hidden = transformer_.forward(learn_.activations, store_, pass);
  const Tensor dhidden = learn_.dhidden.slice(0, view.rows());
  policy_->forward_backward(dhidden, hidden, view.targets, temperature, learn_.head, store_.fetch(transformer_.head_chunk()), *stream_,
                            loss);
  transformer_.backward(dhidden, learn_.activations, store_, pass);
  store_.close_grain();
}

void Engine::forward_backward(const Grain& grain, const Dropout& dropout, const ValueLoss& loss) {
  ensure(value_ && store_.learns(), "model {} has another head or was not planned to learn", store_.model());
  const GrainView view = upload(learn_.grain, grain);
  const Pass pass = learning_pass(view, dropout);
  const std::int64_t rows = view.rows();
  store_.open_grain();
  const Tensor hidden = transformer_.forward(learn_.activations, store_, pass);
  const Tensor values = learn_.values.slice(0, rows), dvalues = learn_.dvalues.slice(0, rows), dhidden = learn_.dhidden.slice(0, rows);
  const Lease head = store_.fetch(transformer_.head_chunk());
  value_->forward(values, hidden, head, *stream_);
  std::vector<float> host(rows), gradient(rows);
  values.device().copy(host.data(), values.data(), values.bytes(), *stream_);
  stream_->wait();
  loss(host, gradient);
  values.device().copy(dvalues.data(), gradient.data(), dvalues.bytes(), *stream_);
  value_->backward(dhidden, dvalues, hidden, head, *stream_);
  transformer_.backward(dhidden, learn_.activations, store_, pass);
  store_.close_grain();
}

std::vector<float> Engine::logits(const Grain& grain) {
  ensure(policy_.has_value(), "model {} has another head", store_.model());
  const GrainView view = upload(score_.grain, grain);
  const Tensor hidden = transformer_.forward(score_.activations, store_, {.stream = *stream_, .grain = view});
  std::vector<float> out(view.rows() * transformer_.config().vocabulary);
  policy_->logits(hidden, score_.head, store_.fetch(transformer_.head_chunk()), *stream_, out);
  return out;
}

}  // namespace collimate
