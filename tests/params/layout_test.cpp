#include "collimate/params/layout.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "collimate/base/error.hpp"
#include "collimate/params/store.hpp"
#include "support/numbers.hpp"

namespace collimate {
namespace {

/// Two chunks with every kind of parameter: heads of 6 over the shards, so that with 4 shards parts are uneven; 2 of something,
/// so that shards are empty.
ParameterLayout some_layout(int shards) {
  ParameterLayout layout(shards);
  const auto six = shard_bounds(6, shards, 5), two = shard_bounds(2, shards, 3);
  layout.open_chunk("first");
  layout.add("gain", {7}, false, {0, 1});
  layout.add("query", {30, 7}, Split::rows, six, true, {0.5});
  layout.add("key", {6, 7}, Split::rows, two, true, {0.25});
  layout.add("query.bias", {30}, Split::rows, six, false, {});
  layout.add("output", {7, 30}, Split::columns, six, true, {0.125});
  layout.add("bias", {7}, false, {});
  layout.close_chunk();
  layout.open_chunk("second");
  layout.add("large", {300, 50}, Split::rows, shard_bounds(300, shards), true, {1});
  layout.add("down", {5, 6}, Split::columns, two, true, {2});
  layout.close_chunk();
  return layout;
}

/// Where an element of a parameter must lie, by its row and column alone.
std::int64_t place(const ParameterLayout& layout, const Parameter& p, std::int64_t element) {
  const std::int64_t base = layout.chunks()[p.chunk].offset;
  if (p.split == Split::none) return base + p.parts[0].offset + element;
  const std::int64_t width = p.shape.rank() == 1 ? 1 : p.shape[1], row = element / width, column = element % width;
  const std::int64_t along = p.split == Split::rows ? row : column;
  for (std::size_t v = 0; v < p.parts.size(); ++v) {
    if (along < p.bounds[v] || along >= p.bounds[v + 1]) continue;
    const std::int64_t extent = p.bounds[v + 1] - p.bounds[v], local = along - p.bounds[v];
    return base + p.parts[v].offset + (p.split == Split::rows ? local * width + column : row * extent + local);
  }
  return -1;
}

TEST(Layout, BoundsDivideEvenlyAndAllowEmptyShards) {
  EXPECT_EQ(shard_bounds(7, 4), (std::vector<std::int64_t>{0, 1, 3, 5, 7}));
  EXPECT_EQ(shard_bounds(3, 4, 10), (std::vector<std::int64_t>{0, 0, 10, 20, 30}));
  EXPECT_EQ(shard_bounds(5, 1), (std::vector<std::int64_t>{0, 5}));
}

TEST(Layout, SectionsAreWholeBlocksAndPartsFillThemWithoutOverlap) {
  for (const int shards : {1, 2, 4, 8}) {
    const ParameterLayout layout = some_layout(shards);
    std::int64_t offset = 0;
    for (const Chunk& chunk : layout.chunks()) {
      EXPECT_EQ(chunk.offset, offset);
      EXPECT_EQ(chunk.sections.size(), shards + 2u);
      EXPECT_EQ(chunk.sections.front(), 0);
      EXPECT_EQ(chunk.sections.back(), chunk.size);
      for (const std::int64_t border : chunk.sections) EXPECT_EQ(border % 1024, 0);
      offset += chunk.size;
    }
    EXPECT_EQ(layout.size(), offset);
    std::vector<int> owners(layout.size());
    for (const Parameter& p : layout.parameters()) {
      const Chunk& chunk = layout.chunks()[p.chunk];
      for (std::size_t v = 0; v < p.parts.size(); ++v) {
        const std::size_t section = p.split == Split::none ? 0 : v + 1;
        const View& part = p.parts[v];
        if (!part.count()) continue;
        EXPECT_GE(part.offset, chunk.sections[section]) << p.name;
        EXPECT_LE(part.offset + part.count(), chunk.sections[section + 1]) << p.name;
        for (std::int64_t i = 0; i < part.count(); ++i) ++owners[chunk.offset + part.offset + i];
      }
    }
    EXPECT_LE(*std::max_element(owners.begin(), owners.end()), 1);
    EXPECT_EQ(std::count(owners.begin(), owners.end(), 1), layout.parameter_count());
  }
}

TEST(Layout, RunsVisitEveryElementOnceAtItsPlace) {
  for (const int shards : {1, 2, 4, 8}) {
    const ParameterLayout layout = some_layout(shards);
    for (const Parameter& p : layout.parameters()) {
      const std::int64_t n = p.shape.count(), stride = n > 500 ? 997 : 1;
      for (std::int64_t begin = 0; begin <= n; begin += stride)
        for (std::int64_t count = 0; begin + count <= n; count += n > 500 ? 1499 : 13) {
          std::map<std::int64_t, std::int64_t> seen;
          layout.for_each_run(p, begin, count, [&](std::int64_t element, std::int64_t at, std::int64_t length) {
            for (std::int64_t i = 0; i < length; ++i) EXPECT_TRUE(seen.emplace(element + i, at + i).second) << "visited twice";
          });
          ASSERT_EQ(seen.size(), static_cast<std::size_t>(count)) << p.name << " from " << begin;
          for (const auto& [element, at] : seen) {
            ASSERT_TRUE(element >= begin && element < begin + count);
            ASSERT_EQ(at, place(layout, p, element)) << p.name << " element " << element << ", shards " << shards;
          }
        }
    }
  }
}

TEST(Layout, OneShardHasEveryParameterInOneRun) {
  const ParameterLayout layout = some_layout(1);
  for (const Parameter& p : layout.parameters()) {
    int runs = 0;
    layout.for_each_run(p, 1, p.shape.count() - 2, [&](auto, auto, auto) { ++runs; });
    EXPECT_EQ(runs, 1) << p.name;
  }
}

TEST(Layout, FusedViewsCoverTheirParts) {
  for (const int shards : {1, 2, 4}) {
    const ParameterLayout layout = some_layout(shards);
    for (int v = 0; v < shards; ++v) {
      const View query = layout.view("query", v), key = layout.view("key", v), both = layout.fused({"query", "key"}, v);
      EXPECT_EQ(both.offset, query.offset);
      EXPECT_EQ(both.shape, (Shape{query.shape[0] + key.shape[0], 7}));
      EXPECT_THROW(layout.fused({"key", "query"}, v), Error);
    }
  }
}

TEST(Layout, TiesAddGradientsButNoValues) {
  ParameterLayout layout = some_layout(2);
  const std::int64_t size = layout.size();
  const int tie = layout.tie(1);
  EXPECT_EQ(tie, 2);
  EXPECT_EQ(layout.size(), size);
  EXPECT_EQ(layout.gradient_size(), size + layout.chunks()[1].size);
  const Unit& first = layout.units()[layout.units_of(1).begin];
  const Unit& second = layout.units()[layout.units_of(tie).begin];
  EXPECT_EQ(second.gradient, size);
  EXPECT_EQ(first.gradient, layout.chunks()[1].offset);
  EXPECT_EQ(second.values, layout.units_of(1).begin);
  EXPECT_TRUE(layout.summed_apart(first) && layout.summed_apart(second));
  EXPECT_THROW(layout.open_chunk("late"), Error);
}

// Units cover the chunks without overlap; a table's are runs of whole thousands of rows of a shard, on whichever ranks the shards are.
TEST(Layout, TablesAreCutIntoRunsOfRows) {
  constexpr std::int64_t columns = 3, vocabulary = 9000;
  std::map<std::pair<int, std::int64_t>, std::int64_t> cut;  // shard and first row: rows
  for (const auto& [shards, held] : {std::pair{4, Part{0, 4}}, {4, Part{0, 2}}, {4, Part{2, 2}}, {4, Part{3, 1}}, {1, Part{0, 1}}}) {
    ParameterLayout layout(shards, held);
    layout.open_chunk("small");
    layout.add("gain", {7}, false, {});
    layout.close_chunk();
    layout.open_chunk("table", Presence::yes, 2048 * columns);
    layout.add("weight", {vocabulary, columns}, Split::rows, shard_bounds(vocabulary, shards), true, {1});
    layout.close_chunk();
    const int tie = layout.tie(1);
    std::int64_t end = 0;
    for (std::int64_t u = layout.units_of(1).begin; u < layout.units_of(tie).begin; ++u) {
      const Unit& unit = layout.units()[u];
      EXPECT_EQ(unit.begin, end);
      EXPECT_EQ(unit.count % 1024, 0);
      EXPECT_EQ(unit.gradient, layout.chunks()[1].offset + unit.begin);
      end += unit.count;
    }
    EXPECT_EQ(end, layout.chunks()[1].size);
    EXPECT_LE(layout.largest_unit(), 2048 * columns);
    for (const int place : {1, tie}) {
      std::int64_t rows = 0;
      for (const TableRows& part : layout.table_rows("weight", place)) {
        const Unit& unit = layout.units()[part.unit];
        EXPECT_EQ(unit.begin, part.view.offset);
        EXPECT_LE(part.view.count(), unit.count);
        EXPECT_EQ((part.first - shard_bounds(vocabulary, shards)[part.shard]) % 2048, 0);
        rows += part.view.shape[0];
        if (shards == 4) {
          const auto [known, is_new] = cut.insert({{part.shard, part.first}, part.view.shape[0]});
          EXPECT_EQ(known->second, part.view.shape[0]) << "the same on every rank";
        }
      }
      EXPECT_EQ(rows, vocabulary / shards * held.count);
    }
  }
  EXPECT_EQ(cut.size(), 8u);
}

TEST(Layout, WrongDeclarationsAreRefused) {
  ParameterLayout layout(2);
  EXPECT_THROW(layout.add("outside", {3}, false, {}), Error);
  layout.open_chunk("a");
  layout.add("x", {3}, false, {});
  EXPECT_THROW(layout.add("x", {3}, false, {}), Error);
  EXPECT_THROW(layout.add("y", {4, 3}, Split::rows, {0, 1, 3}, false, {}), Error);  // borders end before the last row
  EXPECT_THROW(layout.add("z", {4, 3}, Split::rows, {0, 4}, false, {}), Error);     // borders of one shard only
  EXPECT_THROW(layout.add("w", {4}, Split::columns, {0, 2, 4}, false, {}), Error);  // a vector has no columns
  EXPECT_THROW(layout.open_chunk("b"), Error);
  layout.close_chunk();
  EXPECT_THROW(layout.parameter("nobody"), Error);
  EXPECT_THROW(layout.for_each_run(layout.parameter("x"), 1, 3, [](auto, auto, auto) {}), Error);
}

/// A store with memory of its own.
struct OneStore {
  std::unique_ptr<Device> device = make_device();
  MemoryPlan plan{*device};
  ParameterStore store;
  explicit OneStore(ParameterLayout layout) : store("model", std::move(layout), plan) {
    plan.commit();
    store.clear();
  }
  std::vector<float> read(const std::string& name) const {
    std::vector<float> out(store.layout().parameter(name).shape.count());
    store.read(Kind::value, name, 0, out);
    return out;
  }
};

TEST(Store, ReadsBackWhatWasWrittenAndTouchesNothingElse) {
  for (const int shards : {1, 2, 4}) {
    OneStore one(some_layout(shards));
    std::vector<float> expected(one.store.layout().size());
    float next = 1;
    for (const Parameter& p : one.store.layout().parameters())
      for (std::int64_t begin = 0; begin < p.shape.count(); begin += 113) {  // written in pieces that end anywhere
        std::vector<float> piece(std::min<std::int64_t>(113, p.shape.count() - begin));
        for (std::size_t i = 0; i < piece.size(); ++i) expected[place(one.store.layout(), p, begin + i)] = piece[i] = next++;
        one.store.write(Kind::value, p.name, begin, piece);
        std::vector<float> back(piece.size());
        one.store.read(Kind::value, p.name, begin, back);
        EXPECT_EQ(back, piece);
      }
    EXPECT_EQ(test::numbers_of(one.store.units(Kind::value)), expected) << "padding must stay 0";
  }
}

TEST(Store, InitialValuesDependOnSeedNameAndElementOnly) {
  OneStore whole(some_layout(1)), halves(some_layout(2)), quarters(some_layout(4)), other(some_layout(1));
  for (OneStore* one : {&whole, &halves, &quarters}) one->store.initialise(7);
  other.store.initialise(8);
  for (const Parameter& p : whole.store.layout().parameters()) {
    const auto values = whole.read(p.name);
    EXPECT_EQ(values, halves.read(p.name)) << p.name;
    EXPECT_EQ(values, quarters.read(p.name)) << p.name;
    if (p.initial.deviation == 0) {
      for (const float x : values) EXPECT_EQ(x, p.initial.constant);
      continue;
    }
    EXPECT_NE(values, other.read(p.name)) << p.name;
    double mean = 0, square = 0;
    for (const double x : values) mean += x / values.size(), square += x * x / values.size();
    EXPECT_NEAR(mean, 0, 5 * p.initial.deviation / std::sqrt(values.size())) << p.name;
    EXPECT_NEAR(std::sqrt(square) / p.initial.deviation, 1, 4 / std::sqrt(2.0 * values.size())) << p.name;
  }
  std::vector<float> query = whole.read("query"), key = whole.read("key");
  EXPECT_NE(query[0] / 0.5f, key[0] / 0.25f) << "two parameters must not start with the same numbers";
}

TEST(Store, HashesSeeOneBitAndTheirOwnParameterAlone) {
  OneStore one(some_layout(2));
  one.store.initialise(3);
  const auto& parameters = one.store.layout().parameters();
  const std::vector<std::uint64_t> before = one.store.hashes(Kind::value);
  EXPECT_EQ(one.store.hashes(Kind::value), before);
  for (std::size_t p = 0; p < parameters.size(); ++p)
    for (const std::int64_t i : {std::int64_t{0}, parameters[p].shape.count() / 2, parameters[p].shape.count() - 1}) {
      float number = 0;
      one.store.read(Kind::value, parameters[p].name, i, std::span(&number, 1));
      const float kept = number;
      number = std::bit_cast<float>(std::bit_cast<std::uint32_t>(number) ^ 1);
      one.store.write(Kind::value, parameters[p].name, i, std::span(&number, 1));
      const std::vector<std::uint64_t> after = one.store.hashes(Kind::value);
      for (std::size_t q = 0; q < parameters.size(); ++q)
        EXPECT_EQ(after[q] == before[q], p != q) << parameters[p].name << " element " << i << ", hash of " << parameters[q].name;
      EXPECT_NE(combine(one.store.layout(), after), combine(one.store.layout(), before));
      one.store.write(Kind::value, parameters[p].name, i, std::span(&kept, 1));
    }
}

}  // namespace
}  // namespace collimate
