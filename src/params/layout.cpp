#include "collimate/params/layout.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"

namespace collimate {
namespace {

std::int64_t whole_blocks(std::int64_t n) { return (n + kernels::chunk_block - 1) / kernels::chunk_block * kernels::chunk_block; }

}  // namespace

std::vector<std::int64_t> shard_bounds(std::int64_t n, int shards, std::int64_t unit) {
  std::vector<std::int64_t> bounds(shards + 1);
  for (int v = 0; v <= shards; ++v) bounds[v] = n * v / shards * unit;
  return bounds;
}

void ParameterLayout::open_chunk(std::string name, Presence presence) {
  ensure(!open_ && ties_.empty(), "chunk '{}' was opened inside another or after a tie", name);
  open_ = true;
  first_open_ = parameters_.size();
  fill_.assign(shards_ + 1, 0);
  chunks_.push_back({std::move(name), size_, 0, {}, presence != Presence::no, presence == Presence::copy});
}

void ParameterLayout::add(std::string name, Shape shape, bool decays, Initial initial) {
  ensure(open_ && !has(name), "parameter '{}' was added twice or outside a chunk", name);
  const int chunk = static_cast<int>(chunks_.size()) - 1;
  parameters_.push_back({std::move(name), shape, Split::none, decays, initial, chunk, {}, {{fill_[0], shape}}});
  fill_[0] += shape.count();
}

void ParameterLayout::add(std::string name, Shape shape, Split split, std::vector<std::int64_t> bounds, bool decays, Initial initial) {
  ensure(open_ && !has(name), "parameter '{}' was added twice or outside a chunk", name);
  const int axis = split == Split::rows ? 0 : 1;
  ensure(split != Split::none && shape.rank() > axis && static_cast<int>(bounds.size()) == shards_ + 1 && bounds.back() == shape[axis],
         "parameter '{}' of shape {} cannot be split so", name, shape.text());
  Parameter parameter{std::move(name), shape, split, decays, initial, static_cast<int>(chunks_.size()) - 1, std::move(bounds), {}};
  for (int v = 0; v < shards_; ++v) {
    const std::int64_t extent = parameter.bounds[v + 1] - parameter.bounds[v];
    const Shape part = shape.rank() == 1 ? Shape{extent} : axis == 0 ? Shape{extent, shape[1]} : Shape{shape[0], extent};
    parameter.parts.push_back({fill_[v + 1], part});
    fill_[v + 1] += part.count();
  }
  parameters_.push_back(std::move(parameter));
}

int ParameterLayout::close_chunk() {
  Chunk& chunk = chunks_.back();
  chunk.sections.assign(1, 0);
  const auto holds = [&](std::size_t section) { return chunk.held && (section == 0 || held(static_cast<int>(section) - 1)); };
  for (std::size_t section = 0; section < fill_.size(); ++section)
    chunk.sections.push_back(chunk.sections.back() + (holds(section) ? whole_blocks(fill_[section]) : 0));
  chunk.size = chunk.sections.back();
  for (std::size_t i = first_open_; i < parameters_.size(); ++i)
    for (std::size_t v = 0; v < parameters_[i].parts.size(); ++v) {
      const std::size_t section = parameters_[i].split == Split::none ? 0 : v + 1;
      std::int64_t& offset = parameters_[i].parts[v].offset;
      offset = holds(section) ? offset + chunk.sections[section] : -1;
    }
  size_ += chunk.size;
  gradient_size_ = size_;
  open_ = false;
  return static_cast<int>(chunks_.size()) - 1;
}

int ParameterLayout::tie(int chunk, bool here) {
  const bool apart = here && chunks_[chunk].held && !chunks_[chunk].copy;
  ties_.push_back({chunk, apart ? gradient_size_ : chunks_[chunk].offset, apart});
  if (apart) gradient_size_ += chunks_[chunk].size;
  return static_cast<int>(chunks_.size() + ties_.size()) - 1;
}

std::int64_t ParameterLayout::gradient_offset(int index) const {
  const int chunks = static_cast<int>(chunks_.size());
  return index < chunks ? chunks_[index].offset : ties_[index - chunks].offset;
}

bool ParameterLayout::has(const std::string& name) const {
  return std::any_of(parameters_.begin(), parameters_.end(), [&](const Parameter& p) { return p.name == name; });
}

const Parameter& ParameterLayout::parameter(const std::string& name) const {
  for (const Parameter& parameter : parameters_)
    if (parameter.name == name) return parameter;
  fail_with(ExitCode::failure, "the model has no parameter '{}'", name);
}

std::int64_t ParameterLayout::parameter_count() const {
  std::int64_t n = 0;
  for (const Parameter& parameter : parameters_) n += parameter.shape.count();
  return n;
}

std::int64_t ParameterLayout::largest_chunk() const {
  std::int64_t largest = 0;
  for (const Chunk& chunk : chunks_) largest = std::max(largest, chunk.size);
  return largest;
}

View ParameterLayout::fused(const std::vector<std::string>& names, int shard) const {
  View all = view(names.front(), shard);
  for (std::size_t i = 1; i < names.size(); ++i) {
    const View next = view(names[i], shard);
    ensure(next.offset == all.offset + all.count(), "parameter '{}' does not lie behind '{}'", names[i], names[i - 1]);
    all.shape = all.shape.rank() == 1 ? Shape{all.shape[0] + next.shape[0]} : Shape{all.shape[0] + next.shape[0], all.shape[1]};
  }
  return all;
}

void ParameterLayout::for_each_run(const Parameter& parameter, std::int64_t begin, std::int64_t count, const Run& run) const {
  ensure(begin >= 0 && count >= 0 && begin + count <= parameter.shape.count(), "elements [{}, {}) are not in '{}'", begin, begin + count,
         parameter.name);
  const std::int64_t base = chunks_[parameter.chunk].offset, end = begin + count;
  if (parameter.parts.size() == 1) {
    if (count && parameter.parts[0].held()) run(begin, base + parameter.parts[0].offset + begin, count);
    return;
  }
  const std::int64_t width = parameter.shape.rank() == 1 ? 1 : parameter.shape[1];
  for (std::size_t v = 0; v < parameter.parts.size(); ++v) {
    if (!parameter.parts[v].held()) continue;
    const std::int64_t low = parameter.bounds[v], high = parameter.bounds[v + 1], part = base + parameter.parts[v].offset;
    if (parameter.split == Split::rows) {
      const std::int64_t from = std::max(begin, low * width), to = std::min(end, high * width);
      if (from < to) run(from, part + from - low * width, to - from);
      continue;
    }
    for (std::int64_t row = begin / width; row * width < end; ++row) {
      const std::int64_t from = std::max(begin, row * width + low), to = std::min(end, row * width + high);
      if (from < to) run(from, part + row * (high - low) + from - row * width - low, to - from);
    }
  }
}

}  // namespace collimate
