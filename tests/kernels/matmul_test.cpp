#include "collimate/kernels/matmul.hpp"

#include "collimate/kernels/rows.hpp"
#include "kernels/support.hpp"

namespace collimate::kernels {
namespace {

using Index = std::int64_t;

struct Product {
  Index rows, n, k;
};
const Product products[] = {{16, 1, 48},   {17, 3, 48},    {100, 48, 7},   {272, 735, 128}, {300, 128, 336}, {528, 384, 128},
                            {256, 5, 130}, {64, 2000, 96}, {40, 96, 2000}, {0, 8, 8},       {32, 8, 0},      {32, 0, 8}};

/// What fp32 sums of `depth` products of normal numbers may be off.
double rounding(Index depth) { return 4e-6 * std::sqrt(static_cast<double>(depth) + 1); }

double at(const Tensor& t, Index r, Index c) { return t.as<float>()[r * t[1] + c]; }

TEST(Linear, ProductsAgreeWithLoopsInDouble) {
  for (const auto& [rows, n, k] : products) {
    SCOPED_TRACE(fmt::format("rows {} n {} k {}", rows, n, k));
    Host host;
    const Tensor x = host.random({rows, k}, 1), w = host.random({n, k}, 2), dy = host.random({rows, n}, 3), bias = host.random({n}, 4);
    std::vector<double> y, dx, dw, db;
    for (Index r = 0; r < rows; ++r)
      for (Index j = 0; j < n; ++j) {
        double sum = bias.as<float>()[j];
        for (Index i = 0; i < k; ++i) sum += at(x, r, i) * at(w, j, i);
        y.push_back(sum);
      }
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < k; ++i) {
        double sum = 0;
        for (Index j = 0; j < n; ++j) sum += at(dy, r, j) * at(w, j, i);
        dx.push_back(sum);
      }
    for (Index j = 0; j < n; ++j) {
      double total = 0;
      for (Index r = 0; r < rows; ++r) total += at(dy, r, j);
      db.push_back(total);
      for (Index i = 0; i < k; ++i) {
        double sum = 0;
        for (Index r = 0; r < rows; ++r) sum += at(dy, r, j) * at(x, r, i);
        dw.push_back(sum);
      }
    }
    for (const bool add : {false, true}) {
      const Write write = add ? Write::add : Write::replace;
      const auto expected = [&](std::vector<double> values) {
        for (double& v : values) v += add ? 2 : 0;
        return values;
      };
      const auto start = [&](Shape shape) { return host.filled(shape, add ? 2.0f : not_a_number); };
      const Tensor got_y = start({rows, n}), got_dx = start({rows, k}), got_dw = start({n, k}), got_db = start({n});
      linear_forward(got_y, x, w, bias, write, host.stream());
      linear_backward_input(got_dx, dy, w, write, host.stream());
      linear_backward_weight(got_dw, dy, x, write, host.stream());
      linear_backward_bias(got_db, dy, write, host.stream());
      expect_near(got_y, expected(y), rounding(k), "y");
      expect_near(got_dx, expected(dx), rounding(n), "dx");
      expect_near(got_dw, expected(dw), rounding(rows), "dw");
      expect_near(got_db, expected(db), rounding(rows), "db");
    }
    const Tensor decoded = host.filled({rows, n}, not_a_number);
    linear_decode(decoded, x, w, bias, host.stream());
    expect_near(decoded, y, rounding(k), "decode");
  }
}

// R1: rows computed with any number of rows beside them, at any place in a block, give the same bits.
TEST(Linear, RowsDoNotSeeTheirNeighbours) {
  struct Layer {
    Index n, k;
  };
  for (const auto& [n, k] : {Layer{336, 128},
                             {128, 336},
                             {735, 128},
                             {384, 128},
                             {1, 48},
                             {3, 48},
                             {17, 100},
                             {768, 768},
                             {2304, 768},
                             {768, 3072},
                             {500, 1500},
                             {128, 128},
                             {608, 1170},
                             {241, 875},
                             {193, 1024},
                             {48, 48},
                             {1000, 64},
                             {16, 16},
                             {130, 2048}}) {
    SCOPED_TRACE(fmt::format("n {} k {}", n, k));
    Host host;
    constexpr Index rows = 256;
    const Tensor w = host.random({n, k}, 1), x = host.random({rows, k}, 2), dy = host.random({rows, n}, 3), none;
    const Tensor y = host.make({rows, n}), dx = host.make({rows, k});
    linear_forward(y, x, w, none, Write::replace, host.stream());
    linear_backward_input(dx, dy, w, Write::replace, host.stream());
    for (const Index part : {16, 17, 31, 48, 77, 100, 128, 200, 255})
      for (const Index from : {Index{0}, Index{5}, rows - part}) {
        if (from + part > rows) continue;
        const Tensor part_y = host.make({part, n}), part_dx = host.make({part, k});
        linear_forward(part_y, x.slice(from, part), w, none, Write::replace, host.stream());
        linear_backward_input(part_dx, dy.slice(from, part), w, Write::replace, host.stream());
        EXPECT_TRUE(same_bits(part_y, y.slice(from, part))) << "forward, rows " << from << " to " << from + part;
        EXPECT_TRUE(same_bits(part_dx, dx.slice(from, part))) << "backward, rows " << from << " to " << from + part;
      }
  }
}

// A sum over columns of dy that goes on where another stopped is the sum over all of them, bit by bit.
TEST(Linear, InputGradientsGoOn) {
  for (const auto& [rows, n, k] : {Product{16, 512, 48}, {272, 1100, 128}, {300, 2304, 849}, {31, 3000, 5}}) {
    Host host;
    const Tensor w = host.random({n, k}, 1), dy = host.random({rows, n}, 2), whole = host.make({rows, k});
    linear_backward_input(whole, dy, w, Write::replace, host.stream());
    for (const Index unit : {256, 768, 1024}) {
      const Tensor dx = host.filled({rows, k}, not_a_number);
      for (Index first = 0; first < n; first += unit) {
        const Index count = std::min(unit, n - first);
        const Tensor part = host.make({rows, count});
        for (Index r = 0; r < rows; ++r) std::copy_n(dy.as<float>() + r * n + first, count, part.as<float>() + r * count);
        linear_backward_input(dx, part, w.slice(first, count), first ? Write::go_on : Write::replace, host.stream());
      }
      EXPECT_TRUE(same_bits(dx, whole)) << rows << " " << n << " " << k << " in " << unit;
    }
  }
}

TEST(Linear, ThreadsDoNotChangeBits) {
  for (const auto& [rows, n, k] :
       {Product{272, 735, 128}, {528, 128, 336}, {1024, 300, 2000}, {16, 1, 48}, {300, 1, 849}, {256, 193, 1}, {256, 609, 1170}}) {
    Host host;
    const Tensor x = host.random({rows, k}, 1), w = host.random({n, k}, 2), dy = host.random({rows, n}, 3), bias = host.random({n}, 4);
    const Shape y{rows, n}, dx{rows, k}, dw{n, k}, db{n};
    expect_same_bits_for_all_threads([&] {
      const Tensor t = host.make(y);
      linear_forward(t, x, w, bias, Write::replace, host.stream());
      return t;
    });
    expect_same_bits_for_all_threads([&] {
      const Tensor t = host.make(dx);
      linear_backward_input(t, dy, w, Write::replace, host.stream());
      return t;
    });
    expect_same_bits_for_all_threads([&] {
      const Tensor t = host.make(dw);
      linear_backward_weight(t, dy, x, Write::replace, host.stream());
      return t;
    });
    expect_same_bits_for_all_threads([&] {
      const Tensor t = host.make(db);
      linear_backward_bias(t, dy, Write::replace, host.stream());
      return t;
    });
    expect_same_bits_for_all_threads([&] { const Tensor t = host.make(y); linear_decode(t, x, w, bias, host.stream()); return t; });
  }
}

// R1: products over rows are the sums of their blocks, in order.
TEST(Linear, WeightGradientsAddBlockByBlock) {
  Host host;
  constexpr Index rows = 640, n = 70, k = 50;
  const Tensor dy = host.random({rows, n}, 1), x = host.random({rows, k}, 2), whole = host.make({n, k}), blocks = host.make({n, k});
  linear_backward_weight(whole, dy, x, Write::replace, host.stream());
  for (Index first = 0; first < rows; first += row_block) {
    const Index count = std::min(row_block, rows - first);
    linear_backward_weight(blocks, dy.slice(first, count), x.slice(first, count), first ? Write::add : Write::replace, host.stream());
  }
  EXPECT_TRUE(same_bits(whole, blocks));
}

TEST(LinearDecode, RowsDoNotSeeTheirNeighbours) {
  for (const auto& [rows, n, k] : {Product{40, 735, 128}, {23, 100, 330}, {19, 3, 48}, {13, 1, 7}, {17, 35, 1000}, {12, 50, 2309}}) {
    Host host;
    const Tensor x = host.random({rows, k}, 1), w = host.random({n, k}, 2), bias = host.random({n}, 3), y = host.make({rows, n});
    linear_decode(y, x, w, bias, host.stream());
    for (const Index part : {1, 2, 3, 4, 5, 8, 9})
      for (Index from = 0; from + part <= rows; from += 3) {
        const Tensor got = host.make({part, n});
        linear_decode(got, x.slice(from, part), w, bias, host.stream());
        EXPECT_TRUE(same_bits(got, y.slice(from, part))) << part << " rows from " << from;
      }
  }
}

TEST(Linear, RefusesWrongShapes) {
  Host host;
  const Tensor x = host.random({16, 8}, 1), w = host.random({4, 8}, 2), y = host.make({16, 4}), none;
  EXPECT_THROW(linear_forward(y, x, host.make({4, 9}), none, Write::replace, host.stream()), Error);
  EXPECT_THROW(linear_forward(host.make({16, 5}), x, w, none, Write::replace, host.stream()), Error);
  EXPECT_THROW(linear_forward(y, x, w, host.make({5}), Write::replace, host.stream()), Error);
  EXPECT_THROW(linear_forward(y.slice(0, 15), x.slice(0, 15), w, none, Write::replace, host.stream()), Error);
  EXPECT_THROW(linear_forward(host.make({16, 4}, DType::f64), x, w, none, Write::replace, host.stream()), Error);
  EXPECT_THROW(linear_backward_input(host.make({16, 7}), y, w, Write::replace, host.stream()), Error);
  EXPECT_THROW(linear_backward_weight(w, y, host.make({32, 8}), Write::replace, host.stream()), Error);
  EXPECT_THROW(linear_backward_weight(w, y, x, Write::go_on, host.stream()), Error);
  EXPECT_THROW(linear_forward(y, x, w, none, Write::go_on, host.stream()), Error);
  EXPECT_THROW(linear_backward_bias(host.make({3}), y, Write::replace, host.stream()), Error);
  EXPECT_THROW(linear_decode(y, x, host.make({4, 7}), none, host.stream()), Error);
}

}  // namespace
}  // namespace collimate::kernels
