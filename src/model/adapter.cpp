#include "collimate/model/adapter.hpp"

#include <algorithm>
#include <cmath>

#include "collimate/kernels/matmul.hpp"

namespace collimate {
namespace {

using kernels::Write;

int number_of(const std::string& target) {
  const auto& all = adapter_targets();
  return static_cast<int>(std::find(all.begin(), all.end(), target) - all.begin());
}

std::string name_of(int block, const std::string& target) { return "block." + std::to_string(block) + "." + target; }

// Adapters' places of dropout begin behind those of the model (block.cpp).
std::uint32_t site(int block, int number) { return (1u << 13) + static_cast<std::uint32_t>(7 * block + number); }

Tensor matrix(const Tensor& buffer, std::int64_t rows, std::int64_t columns) {
  return buffer.slice(0, rows * columns).reshape({rows, columns});
}

void product(Tensor y, Tensor x, Tensor w, const AdapterUse& use) {
  if (use.pass)
    kernels::linear_forward(y, x, w, {}, Write::replace, use.stream);
  else
    kernels::linear_decode(y, x, w, {}, use.stream);
}

bool drops(const AdapterUse& use) { return use.pass && use.pass->adapter_dropout > 0; }

void drop(Tensor y, Tensor x, int block, int number, std::int64_t first, const AdapterUse& use) {
  const Pass& pass = *use.pass;
  kernels::dropout(y, x, pass.adapter_dropout, pass.key, pass.grain.samples, pass.grain.positions.device, site(block, number), use.stream, first);
}

Tensor dropped(Tensor x, int block, int number, std::int64_t first, const AdapterUse& use) {
  if (!drops(use)) return x;
  const Tensor y = matrix(use.scratch.dropped, x[0], x[1]);
  drop(y, x, block, number, first, use);
  return y;
}

// dx += dropout(du A)
void add_input_gradient(Tensor dx, Tensor du, Tensor a, int block, int number, std::int64_t first, const AdapterUse& use) {
  const Tensor part = matrix(use.scratch.part, dx[0], dx[1]);
  kernels::linear_backward_input(part, du, a, Write::replace, use.stream);
  if (drops(use)) drop(part, part, block, number, first, use);
  kernels::add(dx, dx, part, use.stream);
}


}  // namespace

const std::vector<std::string>& adapter_targets() {
  static const std::vector<std::string> targets = {"query", "key", "value", "output", "gate", "up", "down"};
  return targets;
}

bool LoraConfig::has(const std::string& target) const { return on() && std::find(targets.begin(), targets.end(), target) != targets.end(); }

void LoraConfig::check(const ModelConfig& config) const {
  if (!on()) return;
  const std::int64_t narrowest = std::min({config.width, config.kv_heads * config.head_size, config.mlp});
  require(rank <= narrowest, "lora.rank = {} is more than the narrowest side of the model's matrices, {}: take a smaller rank", rank,
          narrowest);
  require(config.activation == Activation::swiglu || !has("gate"), "lora.targets names gate, and an MLP with GELU has none: leave it out");
  require(config.layers <= 1024, "a model of {} blocks has more adapters than dropout counts places: adapters reach to 1024 blocks",
          config.layers);
}

void declare_adapters(const LoraConfig& lora, const ParameterLayout& weights, const std::string& block, ParameterLayout& adapters) {
  for (const std::string& target : adapter_targets()) {
    const std::string name = block + "." + target;
    if (!lora.has(target)) continue;
    const Parameter& w = weights.parameter(name + ".weight");
    const Shape a{lora.rank, w.shape[1]}, b{w.shape[0], lora.rank};
    const Initial start{1 / std::sqrt(static_cast<double>(w.shape[1]))};
    if (w.split == Split::columns)
      adapters.add(name + ".lora_a", a, Split::columns, w.bounds, true, start);
    else
      adapters.add(name + ".lora_a", a, true, start);
    if (w.split == Split::rows)
      adapters.add(name + ".lora_b", b, Split::rows, w.bounds, true, {});
    else
      adapters.add(name + ".lora_b", b, true, {});
  }
}

AdapterScratch take_adapter_scratch(Arena& arena, std::int64_t rows, const LoraConfig& lora, const AdapterWidths& widths,
                                    const ShardTree& tree, bool backward) {
  AdapterScratch scratch;
  scratch.tree = tree;
  if (!widths.group) return scratch;
  const std::int64_t group = rows * widths.group;
  for (int v = 1; v < tree.shards; v *= 2) scratch.tree.room.push_back(arena.take({std::max(group, backward ? widths.shared : 0)}));
  for (int v = 0; v < tree.shards; ++v) scratch.partials.push_back(arena.take({group}));
  scratch.u = arena.take({group});
  scratch.part = arena.take({rows * widths.widest});
  if (!backward) return scratch;
  scratch.du = arena.take({group});
  if (lora.dropout > 0) scratch.dropped = arena.take({rows * widths.widest});
  for (int v = 0; widths.shared && v < tree.shards; ++v) scratch.shared.push_back(arena.take({widths.shared}));
  return scratch;
}

AdapterScratch AdapterScratch::rows(std::int64_t begin, std::int64_t count, std::int64_t all) const {
  const auto part_of_rows = [&](const Tensor& t) {
    const std::int64_t columns = t ? t.count() / all : 0;
    return t ? t.slice(begin * columns, count * columns) : Tensor();
  };
  AdapterScratch s;
  s.tree = tree;
  for (Tensor& room : s.tree.room) room = part_of_rows(room);
  for (const Tensor& partial : partials) s.partials.push_back(part_of_rows(partial));
  s.u = part_of_rows(u);
  s.part = part_of_rows(part);
  return s;
}

void InAdapters::add(const ParameterLayout& layout, const std::string& target, std::vector<Part> columns,
                     std::vector<std::int64_t> first_row) {
  if (!lora_.has(target)) return;
  const std::string name = name_of(block_, target);
  Target& t = targets_.emplace_back(Target{number_of(target), layout.view(name + ".lora_a"), {}, std::move(columns), std::move(first_row)});
  const Part held = layout.held();
  if (t.shared())
    t.b.push_back(layout.view(name + ".lora_b"));
  else
    for (std::int64_t v = held.begin; v < held.begin + held.count; ++v) t.b.push_back(layout.view(name + ".lora_b", static_cast<int>(v)));
}

AdapterWidths InAdapters::widths() const {
  AdapterWidths widths;
  widths.group = static_cast<std::int64_t>(targets_.size()) * lora_.rank;
  for (const Target& t : targets_) {
    widths.widest = std::max(widths.widest, t.a.shape[1]);
    for (const Part& columns : t.columns) widths.widest = std::max(widths.widest, columns.count);
    if (t.shared()) widths.shared = static_cast<std::int64_t>(targets_.size()) * t.b[0].count();
  }
  return widths;
}

/// The t-th matrix of u, du or a shard's part of it.
Tensor InAdapters::of(const Tensor& group, std::size_t t, std::int64_t rows) const {
  return group.slice(static_cast<std::int64_t>(t) * rows * lora_.rank, rows * lora_.rank).reshape({rows, lora_.rank});
}

Tensor InAdapters::rows_of_shard(Tensor b, const Target& target, int v) const {
  return target.shared() ? b.slice(target.first_row[v], target.columns[v].count) : b;
}

Tensor InAdapters::shared_gradient(std::size_t t, int v, const AdapterUse& use) const {
  const View& b = targets_[t].b[0];
  return use.scratch.shared[v].slice(static_cast<std::int64_t>(t) * b.count(), b.count()).reshape(b.shape);
}

void InAdapters::begin(Tensor x, const AdapterUse& use) const {
  if (off(use)) return;
  for (std::size_t t = 0; t < targets_.size(); ++t)
    product(of(use.scratch.u, t, x[0]), dropped(x, block_, targets_[t].number, 0, use), use.lease.at(targets_[t].a), use);
  kernels::scale(use.scratch.u.slice(0, static_cast<std::int64_t>(targets_.size()) * x[0] * lora_.rank), lora_.scale(), use.stream);
}

void InAdapters::forward(Tensor y, int v, const AdapterUse& use) const {
  if (off(use)) return;
  for (std::size_t t = 0; t < targets_.size(); ++t) {
    const Target& target = targets_[t];
    const Part columns = target.columns[v];
    if (columns.count == 0) continue;
    const Tensor part = matrix(use.scratch.part, y[0], columns.count);
    product(part, of(use.scratch.u, t, y[0]), rows_of_shard(use.lease.at(target.b[target.shared() ? 0 : v]), target, v), use);
    kernels::add_columns(y, columns.begin, part, 0, columns.count, use.stream);
  }
}

void InAdapters::backward(Tensor dy, int v, const AdapterUse& use) const {
  if (off(use)) return;
  Stream& stream = use.stream;
  for (std::size_t t = 0; t < targets_.size(); ++t) {
    const Target& target = targets_[t];
    const Part columns = target.columns[v];
    if (columns.count == 0) continue;
    const View& b = target.b[target.shared() ? 0 : v];
    const Tensor part = matrix(use.scratch.part, dy[0], columns.count);
    kernels::copy_columns(part, 0, dy, columns.begin, columns.count, stream);
    kernels::linear_backward_input(of(use.scratch.partials[v], t, dy[0]), part, rows_of_shard(use.lease.at(b), target, v), Write::replace,
                                   stream);
    const Tensor db = target.shared() ? shared_gradient(t, v, use) : use.lease.gradient_at(b);
    if (target.shared()) db.zero(stream);
    kernels::linear_backward_weight(rows_of_shard(db, target, v), part, of(use.scratch.u, t, dy[0]), Write::replace, stream);
  }
}

void InAdapters::finish_backward(Tensor dx, Tensor x, const AdapterUse& use) const {
  if (off(use)) return;
  Stream& stream = use.stream;
  const std::int64_t rows = x[0];
  const Tensor du = use.scratch.du.slice(0, static_cast<std::int64_t>(targets_.size()) * rows * lora_.rank);
  sum_over_shards(du, use.scratch.tree, stream, [&](int v, Tensor out) {
    for (std::size_t t = 0; t < targets_.size(); ++t)
      if (targets_[t].columns[v].count)
        copy(of(out, t, rows), of(use.scratch.partials[v], t, rows), stream);
      else
        of(out, t, rows).zero(stream);
  });
  kernels::scale(du, lora_.scale(), stream);
  for (std::size_t t = 0; t < targets_.size(); ++t) {
    const Target& target = targets_[t];
    const Tensor mine = of(du, t, rows);
    kernels::linear_backward_weight(use.lease.gradient_at(target.a), mine, dropped(x, block_, target.number, 0, use), Write::replace,
                                    stream);
    add_input_gradient(dx, mine, use.lease.at(target.a), block_, target.number, 0, use);
    if (!target.shared()) continue;
    const Tensor db = use.lease.gradient_at(target.b[0]);
    sum_over_shards(db.reshape({db.count()}), use.scratch.tree, stream, [&](int v, Tensor out) {
      if (target.columns[v].count)
        copy(out, shared_gradient(t, v, use), stream);
      else
        out.zero(stream);
    });
  }
}

OutAdapter::OutAdapter(const LoraConfig& lora, const ParameterLayout& layout, int block, const std::string& target)
    : lora_(lora), block_(block), number_(number_of(target)) {
  if (!lora.has(target)) return;
  const std::string name = name_of(block, target);
  const Parameter& a = layout.parameter(name + ".lora_a");
  const Part held = layout.held();
  for (std::int64_t v = held.begin; v < held.begin + held.count; ++v) {
    a_.push_back(a.parts[v]);
    first_column_.push_back((a.bounds[v] / 4 + v) * 4);  // no two shards meet in one draw of four
  }
  b_ = layout.view(name + ".lora_b");
}

AdapterWidths OutAdapter::widths() const {
  AdapterWidths widths;
  if (a_.empty()) return widths;
  widths.group = lora_.rank;
  widths.widest = b_.shape[0];
  for (const View& a : a_) widths.widest = std::max(widths.widest, a.shape[1]);
  return widths;
}

void OutAdapter::begin(Tensor x, int v, const AdapterUse& use) const {
  if (off(use) || x[1] == 0) return;
  product(matrix(use.scratch.partials[v], x[0], lora_.rank), dropped(x, block_, number_, first_column_[v], use), use.lease.at(a_[v]), use);
}

/// u: what the shards began, added up.
Tensor OutAdapter::sum(std::int64_t rows, const AdapterUse& use) const {
  const Tensor u = matrix(use.scratch.u, rows, lora_.rank);
  sum_over_shards(u.reshape({u.count()}), use.scratch.tree, use.stream, [&](int v, Tensor out) {
    if (a_[v].shape[1])
      copy(out, use.scratch.partials[v].slice(0, out.count()), use.stream);
    else
      out.zero(use.stream);
  });
  kernels::scale(u, lora_.scale(), use.stream);
  return u;
}

void OutAdapter::forward(Tensor y, const AdapterUse& use) const {
  if (off(use)) return;
  const Tensor part = matrix(use.scratch.part, y[0], y[1]);
  product(part, sum(y[0], use), use.lease.at(b_), use);
  kernels::add(y, y, part, use.stream);
}

void OutAdapter::begin_backward(Tensor dy, const AdapterUse& use) const {
  if (off(use)) return;
  kernels::linear_backward_weight(use.lease.gradient_at(b_), dy, sum(dy[0], use), Write::replace, use.stream);
  const Tensor du = matrix(use.scratch.du, dy[0], lora_.rank);
  kernels::linear_backward_input(du, dy, use.lease.at(b_), Write::replace, use.stream);
  kernels::scale(du, lora_.scale(), use.stream);
}

void OutAdapter::backward(Tensor dx, Tensor x, int v, const AdapterUse& use) const {
  if (off(use) || x[1] == 0) return;
  const Tensor du = matrix(use.scratch.du, x[0], lora_.rank);
  const std::int64_t first = first_column_[v];
  kernels::linear_backward_weight(use.lease.gradient_at(a_[v]), du, dropped(x, block_, number_, first, use), Write::replace, use.stream);
  add_input_gradient(dx, du, use.lease.at(a_[v]), block_, number_, first, use);
}

}  // namespace collimate
