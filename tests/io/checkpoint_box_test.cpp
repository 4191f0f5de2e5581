#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <random>

#include "collimate/io/checkpoint.hpp"
#include "io/manifest.hpp"
#include "io/scratch.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using test::bytes_of;
using test::put;
using test::refusal;
using test::Scratch;
using Random = std::mt19937_64;

std::int64_t below(Random& random, std::int64_t count) { return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(count)); }

/// A piece of a table of `width` columns: a box, or where `range` is set the elements [begin, end).
struct Cut {
  Box box;
  bool range = false;
  std::int64_t begin = 0, end = 0;

  std::vector<std::int64_t> elements(std::int64_t width) const {
    std::vector<std::int64_t> list(static_cast<std::size_t>(range ? end - begin : 0));
    std::iota(list.begin(), list.end(), begin);
    for (std::int64_t row = box.row_begin; !range && row < box.row_begin + box.rows; ++row)
      for (std::int64_t column = 0; column < box.columns; ++column) list.push_back(row * width + box.column_begin + column);
    return list;
  }
};

void cut_box(Random& random, const Box& box, int depth, std::vector<Cut>& cuts) {
  if (depth == 0 || box.rows * box.columns < 2 || below(random, 8) == 0) return cuts.push_back({box});
  Box first = box, second = box;
  if (box.columns == 1 || (box.rows > 1 && below(random, 2))) {
    first.rows = 1 + below(random, box.rows - 1);
    second.row_begin += first.rows;
    second.rows -= first.rows;
  } else {
    first.columns = 1 + below(random, box.columns - 1);
    second.column_begin += first.columns;
    second.columns -= first.columns;
  }
  cut_box(random, first, depth - 1, cuts);
  cut_box(random, second, depth - 1, cuts);
}

/// Bands of rows, each cut into ranges that begin and end anywhere or into boxes.
std::vector<Cut> random_cuts(Random& random, std::int64_t rows, std::int64_t width, std::int64_t bands, int depth) {
  std::vector<Cut> cuts;
  for (std::int64_t row = 0; row < rows;) {
    const std::int64_t size = std::min(rows - row, 1 + below(random, 2 * rows / bands + 1));
    if (below(random, 2)) {
      cut_box(random, {row, size, 0, width}, depth, cuts);
    } else {
      for (std::int64_t begin = row * width; begin < (row + size) * width; begin = cuts.back().end)
        cuts.push_back({{}, true, begin, begin + 1 + below(random, (row + size) * width - begin)});
    }
    row += size;
  }
  std::shuffle(cuts.begin(), cuts.end(), random);
  return cuts;
}

/// Any bits, also those of numbers that are none.
std::vector<float> random_values(Random& random, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) {
    const auto bits = static_cast<std::uint32_t>(random());
    std::memcpy(&value, &bits, sizeof value);
  }
  return values;
}

void write_cut(CheckpointWriter& writer, const std::string& name, const Shape& shape, const Cut& cut, const std::vector<float>& all) {
  std::vector<float> values;
  for (const std::int64_t element : cut.elements(shape[1])) values.push_back(all[static_cast<std::size_t>(element)]);
  if (cut.range)
    writer.write(name, shape, cut.begin, std::span<const float>(values));
  else
    writer.write_box(name, shape, cut.box, values);
}

/// Every cut is written by some rank.
void write_cuts(Random& random, const std::string& folder, const Shape& shape, const std::vector<Cut>& cuts,
                const std::vector<float>& values) {
  const int ranks = 1 + static_cast<int>(below(random, 20));
  std::vector<std::unique_ptr<CheckpointWriter>> writers;
  for (int rank = 0; rank < ranks; ++rank) writers.push_back(std::make_unique<CheckpointWriter>(folder, rank, ranks));
  for (const Cut& cut : cuts) write_cut(*writers[static_cast<std::size_t>(below(random, ranks))], "up/weight", shape, cut, values);
  for (const auto& writer : writers) writer->close_part();
  writers[0]->publish("{}");
}

void expect_reads(const CheckpointReader& reader, const std::vector<float>& values, std::int64_t begin, std::int64_t count) {
  std::vector<float> read(static_cast<std::size_t>(count) + 1, 42);
  reader.read("up/weight", begin, count, read.data());
  EXPECT_EQ(std::memcmp(read.data(), values.data() + begin, static_cast<std::size_t>(count) * sizeof(float)), 0) << begin << " " << count;
  EXPECT_EQ(read.back(), 42) << "written past the end";
}

TEST(CheckpointBox, AnyMixtureIsReadInAnyRanges) {
  const Scratch scratch;
  for (int seed = 0; seed < 15; ++seed) {
    SCOPED_TRACE(seed);
    Random random(static_cast<std::uint64_t>(seed));
    const Shape shape = {1 + below(random, 40), 1 + below(random, 40)};
    const std::vector<float> values = random_values(random, shape.count());
    write_cuts(random, scratch / "c", shape, random_cuts(random, shape[0], shape[1], 4, 5), values);
    const CheckpointReader reader(scratch / "c");
    expect_reads(reader, values, 0, shape.count());
    for (std::int64_t begin = 0; begin < shape.count(); ++begin) expect_reads(reader, values, begin, 1);
    for (int i = 0; i < 200; ++i) {
      const std::int64_t begin = below(random, shape.count() + 1);
      expect_reads(reader, values, begin, below(random, shape.count() - begin + 1));
    }
  }
}

TEST(CheckpointBox, PiecesOfManyChecksumBlocks) {
  const Scratch scratch;
  for (int seed = 0; seed < 3; ++seed) {
    SCOPED_TRACE(seed);
    Random random(static_cast<std::uint64_t>(seed));
    const Shape shape = {2311, 3001};  // boxes and ranges of up to seven blocks
    const std::vector<float> values = random_values(random, shape.count());
    std::vector<Cut> cuts{{{0, 2000, 0, 1500}}, {{0, 2000, 1500, 1501}}};
    if (seed > 0) cuts = random_cuts(random, shape[0], shape[1], 2, 2);
    if (seed == 0) cuts.push_back({{}, true, 2000 * shape[1], shape.count()});
    write_cuts(random, scratch / "c", shape, cuts, values);
    const CheckpointReader reader(scratch / "c");
    expect_reads(reader, values, 0, shape.count());
    for (int i = 0; i < 30; ++i) {
      const std::int64_t begin = below(random, shape.count());
      expect_reads(reader, values, begin,
                   below(random, i % 2 ? shape.count() - begin + 1 : std::min<std::int64_t>(shape.count() - begin, 9000)));
    }
  }
}

/// What has been read once is not read again: damage that comes later is not seen.
TEST(CheckpointBox, RowByRowEachBlockIsReadOnce) {
  const Scratch scratch;
  Random random(5);
  const Shape shape = {300, 8000};
  const std::vector<float> values = random_values(random, shape.count());
  std::vector<Cut> cuts;
  for (std::int64_t i = 0; i < 8; ++i) cuts.push_back({{0, 300, i * 1000, 1000}});
  write_cuts(random, scratch / "c", shape, cuts, values);
  const CheckpointReader reader(scratch / "c");
  expect_reads(reader, values, 0, shape[1]);
  for (const auto& entry : fs::directory_iterator(scratch / "c")) {
    if (entry.path().extension() != ".h5" || fs::file_size(entry) < 1'000'000) continue;  // the box of some rank
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(20'000);
    file << std::string(fs::file_size(entry) - 20'000, 'x');
  }
  for (std::int64_t row = 0; row < shape[0]; ++row) expect_reads(reader, values, row * shape[1], shape[1]);
  EXPECT_SAYS(refusal([&] { expect_reads(CheckpointReader(scratch / "c"), values, 0, shape[1]); }), "/part-000");
}

TEST(CheckpointBox, WhatIsOneRangeIsStoredAsOne) {
  const Scratch scratch;
  const std::vector<float> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const auto write = [&](const std::vector<Cut>& cuts) {
    CheckpointWriter writer(scratch / "c", 0, 1);
    for (const Cut& cut : cuts) write_cut(writer, "up/weight", {3, 4}, cut, values);
    writer.close_part();
    writer.publish("{}");
    expect_reads(CheckpointReader(scratch / "c"), values, 0, 12);
    return bytes_of(scratch / "c/manifest.json");
  };
  const std::string plain = write({{{}, true, 0, 8}, {{}, true, 8, 10}, {{}, true, 10, 12}});
  EXPECT_SAYS(plain, R"({"format":"collimate checkpoint 1","sequence":1,)");
  EXPECT_SAYS(plain, R"("ranges":[{"tensor":"up/weight","begin":0,"count":8,"checksums":[")");
  EXPECT_SAYS(plain, R"("]},{"tensor":"up/weight","begin":8,"count":2,"checksums":[")");
  const auto ranges = [](const std::string& manifest) {
    return manifest.substr(manifest.find("\"ranges\""), manifest.rfind("\"checksum\"") - manifest.find("\"ranges\""));
  };
  std::string boxes = write({{{0, 2, 0, 4}}, {{2, 1, 0, 2}}, {{2, 1, 2, 2}}});
  EXPECT_SAYS(boxes, "\"format\":\"collimate checkpoint 1\"");
  EXPECT_EQ(ranges(boxes), ranges(plain));
  boxes = write({{{0, 3, 0, 1}}, {{0, 3, 1, 3}}});
  EXPECT_SAYS(boxes, "\"format\":\"collimate checkpoint 2\"");
  EXPECT_SAYS(boxes, R"({"tensor":"up/weight","begin":1,"count":9,"columns":3,"stride":4,"checksums":[")");
}

TEST(CheckpointBox, EmptyOnesMakeTheTensorKnown) {
  const Scratch scratch;
  const std::vector<float> values(12, 1.0f);
  CheckpointWriter first(scratch / "c", 0, 2), second(scratch / "c", 1, 2);
  for (const Box& box : {Box{3, 0, 0, 4}, Box{0, 3, 4, 0}, Box{3, 0, 4, 0}, Box{1, 0, 2, 2}}) first.write_box("up/weight", {3, 4}, box, {});
  first.write_box("none", {0, 4}, {0, 0, 1, 3}, {});
  second.write_box("up/weight", {3, 4}, {0, 3, 0, 4}, values);
  second.write_box("up/weight", {3, 4}, {1, 2, 2, 0}, {});
  first.close_part();
  second.close_part();
  first.publish("{}");
  const CheckpointReader reader(scratch / "c");
  const std::vector<CheckpointTensor> expected{{"none", {0, 4}, DType::f32}, {"up/weight", {3, 4}, DType::f32}};
  EXPECT_EQ(reader.tensors(), expected);
  expect_reads(reader, values, 0, 12);
  float nothing = 0;
  reader.read("none", 0, 0, &nothing);
}

TEST(CheckpointBox, WrongOnesAreRefused) {
  const Scratch scratch;
  CheckpointWriter writer(scratch / "c", 0, 1);
  const std::vector<float> values(4, 1.0f);
  const auto write = [&](const Shape& shape, const Box& box) { return refusal([&] { writer.write_box("w", shape, box, values); }); };
  EXPECT_SAYS(write({4}, {0, 2, 0, 2}), "a box of the tensor w, whose shape [4] does not have two axes");
  EXPECT_SAYS(write({4, 4, 4}, {0, 2, 0, 2}), "whose shape [4, 4, 4] does not have two axes");
  for (const Box& box : {Box{3, 2, 0, 2}, Box{0, 2, 3, 2}, Box{-1, 2, 0, 2}, Box{0, 2, -1, 2}, Box{0, -2, 0, -2}})
    EXPECT_SAYS(write({4, 4}, box), "do not lie in the tensor w [4, 4]");
  EXPECT_SAYS(write({4, 4}, {0, 2, 0, 3}), "4 values for 2 rows of 3 columns of the tensor w");
}

TEST(CheckpointBox, GapsAndOverlapsAreNotPublished) {
  const Scratch scratch;
  const std::vector<float> values(24, 1.0f);
  const auto publish = [&](const std::vector<Cut>& others) {  // rows 0 to 1 in columns 0 to 3 are there
    CheckpointWriter first(scratch / "c", 0, 2), second(scratch / "c", 1, 2);
    write_cut(first, "w", {4, 6}, {{0, 2, 0, 4}}, values);
    for (const Cut& cut : others) write_cut(second, "w", {4, 6}, cut, values);
    first.close_part();
    second.close_part();
    return refusal([&] { first.publish("{}"); });
  };
  EXPECT_SAYS(publish({}), "lacks elements 4 to 5 of the tensor w");
  EXPECT_SAYS(publish({{{0, 2, 4, 2}}}), "lacks elements 12 to 23 of the tensor w");
  EXPECT_SAYS(publish({{{1, 1, 4, 2}}, {{2, 2, 0, 6}}}), "lacks elements 4 to 5 of the tensor w");
  EXPECT_SAYS(publish({{{0, 2, 4, 2}}, {{}, true, 12, 20}, {{3, 1, 3, 3}}}), "lacks elements 20 to 20 of the tensor w");
  EXPECT_SAYS(publish({{{0, 2, 4, 2}}, {{1, 3, 2, 4}}}), "holds elements 8 to 9 of the tensor w twice");
  EXPECT_SAYS(publish({{{0, 2, 4, 2}}, {{}, true, 10, 24}}), "holds elements 10 to 11 of the tensor w twice");
  EXPECT_SAYS(publish({{{0, 2, 0, 4}}}), "holds elements 0 to 3 of the tensor w twice");
  EXPECT_FALSE(fs::exists(scratch / "c"));
  EXPECT_EQ(publish({{{0, 2, 4, 2}}, {{}, true, 12, 24}}), "accepted");
}

StoredPiece piece_of(const Cut& cut, const Shape& shape) {
  if (cut.range) return {"w", cut.begin, cut.end - cut.begin, cut.end - cut.begin, cut.end - cut.begin, {}};
  const std::int64_t count = cut.box.rows * cut.box.columns, begin = cut.box.row_begin * shape[1] + cut.box.column_begin;
  if (cut.box.rows == 1) return {"w", begin, count, count, count, {}};
  return {"w", begin, count, cut.box.columns, shape[1], {}};
}

std::string coverage(const std::vector<Cut>& cuts, const Shape& shape) {
  std::vector<StoredPart> parts(3);
  parts[0].tensors = {{"w", shape, DType::f32}};
  for (std::size_t i = 0; i < cuts.size(); ++i) parts[i % 3].pieces.push_back(piece_of(cuts[i], shape));
  return refusal([&] { check_pieces(parts, "c"); });
}

/// A cut is dropped, doubled or grown: the sentence must be true of a count of every element.
TEST(CheckpointBox, CoverageAgreesWithCountingElements) {
  int refused = 0;
  for (int seed = 0; seed < 2000; ++seed) {
    SCOPED_TRACE(seed);
    Random random(static_cast<std::uint64_t>(seed));
    const Shape shape = {1 + below(random, 12), 1 + below(random, 12)};
    std::vector<Cut> cuts = random_cuts(random, shape[0], shape[1], 3, 3);
    ASSERT_EQ(coverage(cuts, shape), "accepted");
    for (std::int64_t changes = 1 + below(random, 2); changes > 0 && !cuts.empty(); --changes) {
      const auto at = cuts.begin() + below(random, std::ssize(cuts));
      const std::int64_t kind = below(random, 4);
      if (kind == 0) cuts.erase(at);
      if (kind == 1) cuts.push_back(cuts[static_cast<std::size_t>(at - cuts.begin())]);
      if (kind == 2) at->range ? at->end += at->end < shape.count() : at->box.columns += at->box.column_begin + at->box.columns < shape[1];
      if (kind == 3 && !at->range) at->box.rows += at->box.row_begin + at->box.rows < shape[0];
    }
    std::vector<int> times(static_cast<std::size_t>(shape.count()));
    for (const Cut& cut : cuts)
      for (const std::int64_t element : cut.elements(shape[1])) ++times[static_cast<std::size_t>(element)];
    const std::string answer = coverage(cuts, shape);
    if (std::all_of(times.begin(), times.end(), [](int count) { return count == 1; })) {
      EXPECT_EQ(answer, "accepted");
      continue;
    }
    ++refused;
    std::size_t first = 0, last = 0;
    const bool lacks = answer.find("lacks") != std::string::npos;
    ASSERT_EQ(std::sscanf(answer.c_str(),
                          lacks ? "the checkpoint 'c' lacks elements %zu to %zu of" : "the checkpoint 'c' holds elements %zu to %zu of",
                          &first, &last),
              2)
        << answer;
    ASSERT_LE(first, last);
    ASSERT_LT(last, times.size());
    for (std::size_t i = first; i <= last; ++i) EXPECT_TRUE(lacks ? times[i] == 0 : times[i] > 1) << answer << " at " << i;
  }
  EXPECT_GT(refused, 1000);
}

TEST(CheckpointBox, CoverageOfManyPiecesIsFast) {
  std::vector<Cut> cuts;
  for (std::int64_t row = 0; row < 300; ++row)
    for (std::int64_t column = 0; column < 300; ++column) cuts.push_back({{row * 64, 64, column * 64, 64}});
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(coverage(cuts, {300 * 64, 300 * 64}), "accepted");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  cuts.clear();  // a staircase: at every row border 20,000 boxes are open
  for (std::int64_t i = 0; i < 20'000; ++i) {
    if (i > 0) cuts.push_back({{0, i, i, 1}});
    cuts.push_back({{i, 20'000 - i, i, 1}});
  }
  EXPECT_EQ(coverage(cuts, {20'000, 20'000}), "accepted");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(CheckpointBox, DamageIsFoundAndNamed) {
  const Scratch scratch;
  Random random(3);
  const Shape shape = {1200, 2000};
  const std::vector<float> values = random_values(random, shape.count());
  CheckpointWriter writer(scratch / "c", 0, 1);  // the second box has 1,200,000 elements: two blocks
  write_cut(writer, "up/weight", shape, {{0, 1200, 0, 1000}}, values);
  write_cut(writer, "up/weight", shape, {{0, 1200, 1000, 1000}}, values);
  writer.close_part();
  writer.publish("{}");
  const std::string part = scratch / "c/part-00000.h5", good = bytes_of(part);
  const auto damage = [&](std::int64_t row, std::int64_t column) {
    const std::size_t element = static_cast<std::size_t>(row * shape[1] + column);
    std::string bad = good;
    const auto place = bad.find(std::string(reinterpret_cast<const char*>(&values[element]), 64));
    ASSERT_NE(place, std::string::npos);
    bad[place + 2] = static_cast<char>(bad[place + 2] ^ 1);
    put(part, bad);
  };
  const auto read = [&](std::int64_t row, std::int64_t rows) {
    return refusal([&] { expect_reads(CheckpointReader(scratch / "c"), values, row * shape[1], rows * shape[1]); });
  };
  EXPECT_EQ(read(0, 1200), "accepted");
  damage(3, 1500);
  const std::string sentence =
      part + "' is damaged: elements 1000 to 2097575 (in columns 1000 to 1999) of the tensor up/weight do not have their checksum";
  EXPECT_SAYS(read(0, 1200), sentence);
  EXPECT_SAYS(read(100, 1), sentence);
  EXPECT_EQ(read(1100, 100), "accepted");
  damage(1199, 1100);
  EXPECT_SAYS(read(1100, 100), "elements 2097576 to 2399999 (in columns 1000 to 1999) of the tensor up/weight");
  EXPECT_EQ(read(0, 1000), "accepted");
}

}  // namespace
}  // namespace collimate
