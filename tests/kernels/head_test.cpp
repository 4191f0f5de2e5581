#include "collimate/kernels/head.hpp"

#include "kernels/support.hpp"

namespace collimate::kernels {
namespace {

using Index = std::int64_t;
using Ids = std::vector<std::int32_t>;
using Vector = std::vector<double>;

/// Log-probability of each row's target, entropy and log-sum-exp by loops in double.
struct Expected {
  Vector logprob, entropy, lse;
};
Expected oracle(const Vector& logits, const Ids& targets, Index columns, double temperature) {
  Expected e;
  for (std::size_t r = 0; r < targets.size(); ++r) {
    const double* row = logits.data() + r * columns;
    double top = -1e300, total = 0, weighted = 0;
    for (Index c = 0; c < columns; ++c) top = std::max(top, row[c] / temperature);
    for (Index c = 0; c < columns; ++c) total += std::exp(row[c] / temperature - top);
    const double lse = top + std::log(total);
    for (Index c = 0; c < columns; ++c) weighted += std::exp(row[c] / temperature - lse) * row[c] / temperature;
    const bool real = targets[r] >= 0;
    e.lse.push_back(real ? lse : 0);
    e.logprob.push_back(real ? row[targets[r]] / temperature - lse : 0);
    e.entropy.push_back(real ? lse - weighted : 0);
  }
  return e;
}

struct Head {
  Host host;
  Index rows, columns;
  Ids ids;
  Tensor logits, targets, statistics, sums, logprob, entropy, lse;
  Head(Index columns, Index rows = 19)
      : rows(rows), columns(columns), logits(host.random({rows, columns}, 1, 4.0f)), statistics(host.filled({rows, 4}, not_a_number)), sums(host.make({rows, 2}, DType::f64)),
        logprob(host.make({rows})), entropy(host.make({rows})), lse(host.make({rows})) {
    for (Index r = 0; r < rows; ++r) ids.push_back(static_cast<std::int32_t>(r % 5 == 4 ? -1 : (r * 977) % columns));
    targets = host.of(ids);
  }
  Stream& stream() { return host.stream(); }
  void measure(float temperature) { logit_statistics(statistics, sums, logits, targets, 0, temperature, Write::replace, host.stream()); }
  void finish() { finish_statistics(logprob, entropy, lse, statistics, targets, host.stream()); }
  void expect(const Expected& e) const {
    expect_near(logprob, e.logprob, 1e-6, "logprob");
    expect_near(entropy, e.entropy, 1e-5, "entropy");
    expect_near(lse, e.lse, 1e-6, "lse");
  }
};

TEST(LogitHead, StatisticsAgreeWithDouble) {
  for (const Index columns : {3, 16, 735, 1024, 5000}) {
    SCOPED_TRACE(columns);
    Head head(columns);
    head.measure(0.7f);
    head.finish();
    head.expect(oracle(doubles(head.logits), head.ids, columns, 0.7f));
  }
}

TEST(LogitHead, ShardsMergeToTheWhole) {
  Head head(735);
  const Expected expected = oracle(doubles(head.logits), head.ids, 735, 1.0);
  const Index edges[] = {0, 0, 300, 735, 735};  // the first and the last shard are empty
  for (int shard = 0; shard < 4; ++shard) {
    const Index first = edges[shard], count = edges[shard + 1] - first;
    const Tensor part = head.host.make({head.rows, count}), statistics = shard ? head.host.make({head.rows, 4}) : head.statistics;
    for (Index r = 0; r < head.rows; ++r) std::copy_n(head.logits.as<float>() + r * 735 + first, count, part.as<float>() + r * count);
    logit_statistics(statistics, head.sums, part, head.targets, first, 1.0f, Write::replace, head.stream());
    if (count == 0) {
      EXPECT_EQ(statistics.as<float>()[0], -std::numeric_limits<float>::infinity());
      EXPECT_EQ(statistics.as<float>()[1], 0.0f);
    }
    if (shard) merge_statistics(head.statistics, statistics, head.stream());
  }
  head.finish();
  head.expect(expected);
}

// Units of whole thousands of columns, one after the other, are the shard in one call, bit by bit.
TEST(LogitHead, UnitsGoOnWhereTheLastOneStopped) {
  for (const Index columns : {2048, 5000}) {
    Head head(columns, 37);
    for (Index c = 3072; c < columns; ++c) head.logits.as<float>()[5 * columns + c] += 50;  // the maximum moves
    head.measure(0.8f);
    for (const Index unit : {1024, 2048, 4096}) {
      const Tensor statistics = head.host.filled({37, 4}, not_a_number), sums = head.host.make({37, 2}, DType::f64);
      for (Index first = 0; first < columns; first += unit) {
        const Index count = std::min(unit, columns - first);
        const Tensor part = head.host.make({37, count});
        for (Index r = 0; r < 37; ++r) std::copy_n(head.logits.as<float>() + r * columns + first, count, part.as<float>() + r * count);
        logit_statistics(statistics, sums, part, head.targets, first, 0.8f, first ? Write::go_on : Write::replace, head.stream());
      }
      EXPECT_TRUE(same_bits(statistics, head.statistics)) << columns << " in " << unit;
    }
  }
}

TEST(LogitHead, GradientAgreesWithCentralDifferences) {
  for (const Index columns : {3, 48, 83}) {
    Head head(columns, 6);
    const double temperature = 1.3;
    head.measure(static_cast<float>(temperature));
    head.finish();
    const Tensor dlogprob = head.host.random({head.rows}, 2), dentropy = head.host.random({head.rows}, 3);
    const Vector expected = central_differences(doubles(head.logits), [&](const Vector& l) {
      const Expected e = oracle(l, head.ids, columns, temperature);
      return dot(doubles(dlogprob), e.logprob) + dot(doubles(dentropy), e.entropy);
    });
    // Two shards of the vocabulary, each a call of its own.
    for (const auto& [first, count] : {std::pair<Index, Index>{0, 1}, {1, columns - 1}}) {
      const Tensor part = head.host.make({head.rows, count});
      Vector wanted;
      for (Index r = 0; r < head.rows; ++r) {
        std::copy_n(head.logits.as<float>() + r * columns + first, count, part.as<float>() + r * count);
        wanted.insert(wanted.end(), expected.begin() + r * columns + first, expected.begin() + r * columns + first + count);
      }
      logit_gradient(part, head.lse, head.entropy, head.targets, dlogprob, dentropy, first, static_cast<float>(temperature), head.stream());
      expect_near(part, wanted, 3e-6);
    }
  }
}

TEST(LogitHead, RowsAndThreadsDoNotChangeBits) {
  Head head(5000, 64);
  for (Index c = 0; c < 5000; ++c) head.logits.as<float>()[c] = not_a_number;
  expect_same_bits_for_all_threads([&] {
    const Tensor statistics = head.host.make({63, 4});
    logit_statistics(statistics, head.sums.slice(1, 63), head.logits.slice(1, 63), head.targets.slice(1, 63), 0, 1.0f, Write::replace, head.stream());
    return statistics;
  });
  head.measure(1.0f);
  const Tensor one = head.host.make({1, 4});
  logit_statistics(one, head.sums.slice(17, 1), head.logits.slice(17, 1), head.targets.slice(17, 1), 0, 1.0f, Write::replace, head.stream());
  EXPECT_TRUE(same_bits(one, head.statistics.slice(17, 1)));
  EXPECT_TRUE(std::isnan(head.statistics.as<float>()[1]));
}

TEST(LogitHead, RefusesWrongInput) {
  Head head(8);
  EXPECT_THROW(logit_statistics(head.host.make({19, 3}), head.sums, head.logits, head.targets, 0, 1.0f, Write::replace, head.stream()), Error);
  EXPECT_THROW(logit_statistics(head.statistics, head.host.make({19, 2}), head.logits, head.targets, 0, 1.0f, Write::replace, head.stream()), Error);
  EXPECT_THROW(logit_statistics(head.statistics, head.sums, head.logits, head.targets, 0, 1.0f, Write::add, head.stream()), Error);
  EXPECT_THROW(head.measure(0.0f), Error);
  EXPECT_THROW(merge_statistics(head.statistics, head.host.make({18, 4}), head.stream()), Error);
  EXPECT_THROW(logit_gradient(head.logits, head.lse, head.entropy, head.targets, head.lse, head.host.make({18}), 0, 1.0f, head.stream()),
               Error);
}

TEST(ValueHead, AgreesWithDoubleAndKeepsItsBits) {
  Host host;
  constexpr Index rows = 530, columns = 100;
  const Tensor hidden = host.random({rows, columns}, 1), w = host.random({columns}, 2), b = host.random({1}, 3), values = host.make({rows});
  const Tensor dvalues = host.random({rows}, 4), dhidden = host.filled({rows, columns}, not_a_number),
               dw = host.filled({columns}, not_a_number);
  const Tensor db = host.filled({1}, not_a_number);
  Vector value(rows), gradient, weight(columns), bias(1);
  for (Index r = 0; r < rows; ++r) {
    const double d = dvalues.as<float>()[r];
    value[r] = b.as<float>()[0];
    bias[0] += d;
    for (Index c = 0; c < columns; ++c) {
      value[r] += static_cast<double>(hidden.as<float>()[r * columns + c]) * w.as<float>()[c];
      gradient.push_back(d * w.as<float>()[c]);
      weight[c] += d * hidden.as<float>()[r * columns + c];
    }
  }
  value_forward(values, hidden, w, b, host.stream());
  value_backward(dhidden, dw, db, dvalues, hidden, w, Write::replace, host.stream());
  expect_near(values, value, 1e-5, "values");
  expect_near(dhidden, gradient, 1e-6, "dhidden");
  expect_near(dw, weight, 2e-5, "dw");
  expect_near(db, bias, 2e-5, "db");
  const Tensor dw_on = host.make({columns}), db_on = host.make({1});  // whole blocks first, then the rest
  for (const auto& [begin, count] : {std::pair<Index, Index>{0, 256}, {256, rows - 256}})
    value_backward(dhidden.slice(begin, count), dw_on, db_on, dvalues.slice(begin, count), hidden.slice(begin, count), w,
                   begin ? Write::add : Write::replace, host.stream());
  EXPECT_TRUE(same_bits(dw_on, dw) && same_bits(db_on, db));
  const Tensor one = host.make({1});
  value_forward(one, hidden.slice(77, 1), w, b, host.stream());
  EXPECT_TRUE(same_bits(one, values.slice(77, 1)));
  expect_same_bits_for_all_threads([&] { value_backward(dhidden, dw, db, dvalues, hidden, w, Write::replace, host.stream()); return host.copy(dw); });
  EXPECT_THROW(value_forward(values, hidden, host.make({99}), b, host.stream()), Error);
  EXPECT_THROW(value_backward(dhidden, dw, host.make({2}), dvalues, hidden, w, Write::replace, host.stream()), Error);
}

}  // namespace
}  // namespace collimate::kernels
