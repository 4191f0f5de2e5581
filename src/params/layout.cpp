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

void ParameterLayout::open_chunk(std::string name, Presence presence, std::int64_t unit) {
  ensure(!open_ && ties_.empty() && unit % kernels::chunk_block == 0, "chunk '{}' was opened inside another or after a tie", name);
  unit_ = unit;
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
  const int index = static_cast<int>(chunks_.size()) - 1;
  places_.push_back({std::ssize(units_), 0});
  const auto add = [&](std::int64_t begin, std::int64_t count) {
    const int unit = static_cast<int>(units_.size());
    units_.push_back({index, unit, begin, count, size_ + begin});
    ++places_.back().count;
  };
  for (std::size_t section = 0; unit_ && section < fill_.size(); ++section)
    for (std::int64_t begin = chunk.sections[section]; begin < chunk.sections[section + 1]; begin += unit_)
      add(begin, std::min(unit_, chunk.sections[section + 1] - begin));
  if (places_.back().count == 0) add(0, chunk.size);
  chunk_units_ = static_cast<int>(units_.size());
  size_ += chunk.size;
  gradient_size_ = size_;
  open_ = false;
  return index;
}

int ParameterLayout::tie(int chunk, bool here) {
  const bool apart = here && chunks_[chunk].held && !chunks_[chunk].copy;
  ties_.push_back({chunk, apart ? gradient_size_ : chunks_[chunk].offset, apart});
  const Part values = places_[chunk];
  places_.push_back({std::ssize(units_), values.count});
  for (std::int64_t u = values.begin; u < values.begin + values.count; ++u) {
    Unit unit = units_[u];
    unit.gradient = ties_.back().offset + unit.begin;
    units_.push_back(unit);
  }
  if (apart) gradient_size_ += chunks_[chunk].size;
  return static_cast<int>(chunks_.size() + ties_.size()) - 1;
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

std::vector<bool> ParameterLayout::last_units(double share) const {
  std::vector<bool> last;
  const double kept = (1 - share) * static_cast<double>(size_);
  std::int64_t sum = 0;
  for (int u = 0; u < chunk_units_; ++u) {
    sum += units_[u].count;
    last.push_back(static_cast<double>(sum) > kept);
  }
  return last;
}

std::int64_t ParameterLayout::largest_unit() const {
  std::int64_t largest = 0;
  for (const Unit& unit : units_) largest = std::max(largest, unit.count);
  return largest;
}

std::vector<TableRows> ParameterLayout::table_rows(const std::string& name, int place) const {
  const Parameter& table = parameter(name);
  const std::int64_t columns = table.shape[1];
  std::vector<TableRows> out;
  for (std::int64_t u = units_of(place).begin; u < units_of(place).begin + units_of(place).count; ++u)
    for (int v = 0; v < std::ssize(table.parts); ++v) {
      const View& part = table.parts[v];
      const std::int64_t begin = std::max(units_[u].begin, part.offset), end = std::min(units_[u].begin + units_[u].count, part.offset + part.count());
      if (!part.held() || begin >= end) continue;
      ensure((begin - part.offset) % columns == 0 && (end - begin) % columns == 0, "a unit of '{}' does not begin with a row", name);
      out.push_back({static_cast<int>(u), v, table.bounds[v] + (begin - part.offset) / columns, {begin, {(end - begin) / columns, columns}}});
    }
  return out;
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
