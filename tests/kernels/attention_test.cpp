#include "collimate/kernels/attention.hpp"

#include "kernels/attention_oracle.hpp"
#include "kernels/support.hpp"

namespace collimate::kernels {
namespace {

using Index = std::int64_t;
using Offsets = std::vector<std::int32_t>;

struct Case {
  const char* name;
  Heads heads;
  Offsets offsets;
  Index padding;
};

const Case cases[] = {
    {"one head", {.query = 1, .key_value = 1, .size = 16}, {0, 5}, 0},
    {"grouped", {.query = 8, .key_value = 4, .size = 16, .group = 2}, {0, 3, 20, 21}, 2},
    {"odd size", {.query = 2, .key_value = 1, .size = 24, .group = 2}, {0, 17, 34}, 0},
    {"tiny size", {.query = 3, .key_value = 3, .size = 8}, {0, 0, 12, 12}, 4},
    {"a shard that straddles groups",
     {.query = 3, .key_value = 2, .size = 10, .group = 3, .first_query = 2, .first_key_value = 0},
     {0, 19},
     1},
};

const Case long_cases[] = {
    {"several tiles", {.query = 2, .key_value = 2, .size = 64}, {0, 150, 214, 300}, 5},
    {"wide head", {.query = 2, .key_value = 1, .size = 128, .group = 2}, {0, 131}, 0},
    {"width 48", {.query = 4, .key_value = 2, .size = 48, .group = 2, .first_query = 4, .first_key_value = 2}, {0, 65, 129}, 0},
};

struct Attention {
  Host host;
  Heads heads;
  Offsets offsets;
  Index rows;
  Tensor qkv, out, lse, dqkv, scratch;
  Attention(const Case& c)
      : heads(c.heads), offsets(c.offsets), rows(c.offsets.back() + c.padding), qkv(host.random({rows, heads.columns()}, 1)),
        out(host.filled({rows, heads.query * heads.size}, not_a_number)), lse(host.filled({rows, heads.query}, not_a_number)),
        dqkv(host.filled(qkv.shape(), not_a_number)), scratch(host.filled(lse.shape(), not_a_number)) {}
  void forward() { attention_forward(out, lse, qkv, host.index(offsets), heads, host.stream()); }
  void backward(Tensor dout) { attention_backward(dqkv, dout, out, lse, qkv, host.index(offsets), scratch, heads, host.stream()); }
};

TEST(Attention, ForwardAgreesWithDouble) {
  for (const auto* list : {&cases[0], &cases[1], &cases[2], &cases[3], &cases[4], &long_cases[0], &long_cases[1], &long_cases[2]}) {
    SCOPED_TRACE(list->name);
    Attention a(*list);
    a.forward();
    const auto expected = attention_oracle(doubles(a.qkv), a.offsets, a.rows, a.heads);
    expect_near(a.out, expected.out, 3e-6, "out");
    expect_near(a.lse, expected.lse, 3e-6, "lse");
  }
}

TEST(Attention, BackwardAgreesWithCentralDifferences) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Attention a(c);
    a.forward();
    const Tensor dout = a.host.random(a.out.shape(), 2);
    a.backward(dout);
    const auto d = doubles(dout);
    const auto expected = central_differences(doubles(a.qkv), [&](const std::vector<double>& x) {
      return dot(d, attention_oracle(x, a.offsets, a.rows, a.heads).out);
    });
    expect_near(a.dqkv, expected, 5e-6, "dqkv");
  }
}

/// The gradient by loops in double, for samples too long for central differences.
std::vector<double> backward_oracle(const std::vector<double>& qkv, const std::vector<double>& dout, const Offsets& offsets, Index rows,
                                    const Heads& heads) {
  const auto forward = attention_oracle(qkv, offsets, rows, heads);
  const Index size = heads.size, columns = heads.columns();
  const double scale = 1 / std::sqrt(static_cast<double>(size));
  std::vector<double> gradient(qkv.size());
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
    for (Index i = offsets[s]; i < offsets[s + 1]; ++i)
      for (Index h = 0; h < heads.query; ++h) {
        const Index kv = (heads.first_query + h) / heads.group - heads.first_key_value;
        const Index query = i * columns + h * size, out = (i * heads.query + h) * size;
        double delta = 0;
        for (Index c = 0; c < size; ++c) delta += dout[out + c] * forward.out[out + c];
        for (Index j = offsets[s]; j <= i; ++j) {
          const Index key = j * columns + (heads.query + kv) * size, value = key + heads.key_value * size;
          double score = 0, dweight = 0;
          for (Index c = 0; c < size; ++c) {
            score += scale * qkv[query + c] * qkv[key + c];
            dweight += dout[out + c] * qkv[value + c];
          }
          const double weight = std::exp(score - forward.lse[i * heads.query + h]), dscore = weight * (dweight - delta) * scale;
          for (Index c = 0; c < size; ++c) {
            gradient[query + c] += dscore * qkv[key + c];
            gradient[key + c] += dscore * qkv[query + c];
            gradient[value + c] += weight * dout[out + c];
          }
        }
      }
  return gradient;
}

TEST(Attention, BackwardAgreesWithDoubleOnLongSamples) {
  for (const Case& c : long_cases) {
    SCOPED_TRACE(c.name);
    Attention a(c);
    a.forward();
    const Tensor dout = a.host.random(a.out.shape(), 2);
    a.backward(dout);
    expect_near(a.dqkv, backward_oracle(doubles(a.qkv), doubles(dout), a.offsets, a.rows, a.heads), 1e-5, "dqkv");
  }
}

// R5: a sample gives the same bits alone and packed, whatever lies in the other samples and in the padding.
TEST(Attention, SamplesDoNotSeeEachOther) {
  for (const Case* c : {&cases[1], &cases[3], &cases[4], &long_cases[0], &long_cases[2]})
    for (std::size_t s = 0; s + 1 < c->offsets.size(); ++s) {
      const Index first = c->offsets[s], length = c->offsets[s + 1] - first;
      if (length == 0) continue;
      Attention packed(*c), alone({c->name, c->heads, {0, static_cast<std::int32_t>(length)}, 0});
      std::memcpy(alone.qkv.data(), packed.qkv.slice(first, length).data(), alone.qkv.bytes());
      const Tensor dout = packed.host.random(packed.out.shape(), 2);
      for (Index r = 0; r < packed.rows; ++r)
        if (r < first || r >= first + length) {
          std::fill_n(packed.qkv.slice(r, 1).as<float>(), packed.qkv[1], not_a_number);
          std::fill_n(dout.slice(r, 1).as<float>(), dout[1], not_a_number);
        }
      packed.forward();
      alone.forward();
      EXPECT_TRUE(same_bits(packed.out.slice(first, length), alone.out)) << c->name << " sample " << s;
      EXPECT_TRUE(same_bits(packed.lse.slice(first, length), alone.lse)) << c->name << " sample " << s;
      packed.backward(dout);
      alone.backward(dout.slice(first, length));
      EXPECT_TRUE(same_bits(packed.dqkv.slice(first, length), alone.dqkv)) << c->name << " sample " << s;
    }
}

TEST(Attention, ThreadsDoNotChangeBits) {
  for (const Case* c : {&cases[1], &long_cases[0]}) {
    Attention a(*c);
    const Tensor dout = a.host.random(a.out.shape(), 2);
    expect_same_bits_for_all_threads([&] { a.forward(); return a.host.copy(a.out); });
    expect_same_bits_for_all_threads([&] { a.backward(dout); return a.host.copy(a.dqkv); });
  }
}

// Two shards of the heads, each a call of its own, give the columns of the whole.
TEST(Attention, ShardsOfTheHeadsGiveTheSameBits) {
  Attention whole({"whole", {.query = 6, .key_value = 3, .size = 16, .group = 2}, {0, 70}, 0});
  whole.forward();
  Attention shard({"shard", {.query = 3, .key_value = 2, .size = 16, .group = 2, .first_query = 3, .first_key_value = 1}, {0, 70}, 0});
  const auto copy_columns = [&](Index to, Index from, Index count) {
    for (Index r = 0; r < 70; ++r)
      std::copy_n(whole.qkv.as<float>() + r * whole.qkv[1] + from * 16, count * 16, shard.qkv.as<float>() + r * shard.qkv[1] + to * 16);
  };
  copy_columns(0, 3, 3);
  copy_columns(3, 7, 2);
  copy_columns(5, 10, 2);
  shard.forward();
  for (Index r = 0; r < 70; ++r)
    ASSERT_EQ(std::memcmp(whole.out.as<float>() + r * 96 + 48, shard.out.as<float>() + r * 48, 48 * sizeof(float)), 0) << r;
}

TEST(Rotary, AgreesWithDoubleAndTurnsBack) {
  Host host;
  const Heads heads{.query = 3, .key_value = 1, .size = 10, .group = 3};
  const Offsets positions{0, 7, -1, 3, 19};
  const Tensor table = host.make({20, heads.size}), qkv = host.random({5, heads.columns()}, 1), before = host.copy(qkv);
  std::vector<double> frequencies;
  for (int i = 0; i < 5; ++i) frequencies.push_back(std::pow(500.0, -2.0 * i / 10));
  rotary_table({table.as<float>(), static_cast<std::size_t>(table.count())}, 0, frequencies);
  rotary(qkv, host.index(positions), table, heads, false, host.stream());
  std::vector<double> expected = doubles(before);
  for (Index r = 0; r < 5; ++r)
    for (Index h = 0; h < 4 && positions[r] >= 0; ++h)
      for (Index i = 0; i < 5; ++i) {
        const double angle = positions[r] * std::pow(500.0, -2.0 * static_cast<double>(i) / 10);
        const Index a = r * heads.columns() + h * 10 + i;
        const double x = expected[a], y = expected[a + 5];
        expected[a] = x * std::cos(angle) - y * std::sin(angle);
        expected[a + 5] = y * std::cos(angle) + x * std::sin(angle);
      }
  expect_near(qkv, expected, 1e-6);
  rotary(qkv, host.index(positions), table, heads, true, host.stream());
  expect_near(qkv, doubles(before), 1e-6);
  EXPECT_THROW(rotary(qkv, host.index(Offsets{0, 1, 2, 3, 20}), table, heads, false, host.stream()), Error);
  EXPECT_THROW(rotary(qkv, host.index(positions), host.make({20, 12}), heads, false, host.stream()), Error);
}

TEST(Decode, ContinuesAPromptAsFullAttentionDoes) {
  for (const Case* c : {&cases[1], &cases[4], &long_cases[0], &long_cases[1]}) {
    SCOPED_TRACE(c->name);
    Attention a(*c);
    a.forward();
    const Index samples = static_cast<Index>(a.offsets.size()) - 1, width = a.heads.key_value * a.heads.size;
    const Tensor keys = a.host.filled({samples + 2, 200, width}, not_a_number), values = a.host.filled(keys.shape(), not_a_number);
    // The cache gets all but the last token of each sample, in reversed slots; the last one is decoded.
    Offsets slots, lengths, prompt{0};
    std::vector<Index> last;
    const Tensor packed = a.host.make(a.qkv.shape()), token = a.host.make({samples, a.qkv[1]});
    for (Index s = 0; s < samples; ++s) {
      const Index length = a.offsets[s + 1] - a.offsets[s] - 1;
      std::memcpy(packed.slice(prompt.back(), length).data(), a.qkv.slice(a.offsets[s], length).data(), a.qkv.slice(0, length).bytes());
      std::memcpy(token.slice(s, 1).data(), a.qkv.slice(a.offsets[s + 1] - 1, 1).data(), token.slice(s, 1).bytes());
      prompt.push_back(static_cast<std::int32_t>(prompt.back() + length));
      slots.push_back(static_cast<std::int32_t>(samples + 1 - s));
      lengths.push_back(static_cast<std::int32_t>(length));
      last.push_back(a.offsets[s + 1] - 1);
    }
    cache_write(keys, values, packed, a.host.index(prompt), a.host.index(slots), a.heads, a.host.stream());
    const Tensor out = a.host.make({samples, a.out[1]});
    attention_decode(out, token, keys, values, a.host.index(slots), a.host.index(lengths), a.heads, a.host.stream());
    for (Index s = 0; s < samples; ++s) {
      expect_near(out.slice(s, 1), doubles(a.out.slice(last[s], 1)), 3e-6);
      const Tensor alone = a.host.make({1, a.out[1]});
      attention_decode(alone, token.slice(s, 1), keys, values, a.host.index(Offsets{slots[s]}), a.host.index(Offsets{lengths[s]}), a.heads,
                       a.host.stream());
      EXPECT_TRUE(same_bits(alone, out.slice(s, 1)));
    }
  }
}

// Keys that point ever further along the query: each tile of keys has a larger score than all before it, and the earlier ones still count.
TEST(Decode, EveryTileMayHoldTheLargestScore) {
  for (const Index size : {10, 24, 64})
    for (const Index positions : {65, 129, 150, 200}) {
      SCOPED_TRACE(fmt::format("head size {}, {} positions", size, positions));
      const Heads heads{.query = 2, .key_value = 1, .size = size, .group = 2};
      Host host;
      const Index columns = heads.columns(), last = positions - 1;
      const Tensor qkv = host.random({positions, columns}, 3);
      float* query = qkv.as<float>() + last * columns;
      double squares = 0;
      for (Index c = 0; c < size; ++c) squares += static_cast<double>(query[c]) * query[c];
      for (Index c = 0; c < size; ++c) query[size + c] = 0.7f * query[c];
      const double rise = 2.0 / 64 * std::sqrt(static_cast<double>(size)) / squares;  // the first head's score rises by 2 from tile to tile
      for (Index j = 0; j < positions; ++j)
        for (Index c = 0; c < size; ++c) {
          float& key = qkv.as<float>()[j * columns + 2 * size + c];
          key = 0.05f * key + static_cast<float>(rise * static_cast<double>(j) * query[c]);
        }
      const AttentionResult expected = attention_oracle(doubles(qkv), {0, static_cast<std::int32_t>(positions)}, positions, heads);
      const Tensor keys = host.filled({1, 200, size}, not_a_number), values = host.filled({1, 200, size}, not_a_number);
      cache_write(keys, values, qkv.slice(0, last), host.index(Offsets{0, static_cast<std::int32_t>(last)}), host.index(Offsets{0}), heads, host.stream());
      const Tensor out = host.make({1, 2 * size});
      attention_decode(out, qkv.slice(last, 1), keys, values, host.index(Offsets{0}), host.index(Offsets{static_cast<std::int32_t>(last)}), heads, host.stream());
      expect_near(out, {expected.out.begin() + last * 2 * size, expected.out.end()}, 3e-6);
    }
}

TEST(Attention, RefusesWrongInput) {
  Attention a(cases[1]);
  const auto forward = [&](const Heads& heads, const Offsets& offsets) {
    attention_forward(a.out, a.lse, a.qkv, a.host.index(offsets), heads, a.host.stream());
  };
  EXPECT_THROW(forward(a.heads, {0, 30}), Error);
  EXPECT_THROW(forward(a.heads, {1, 5}), Error);
  EXPECT_THROW(forward(a.heads, {0, 5, 4}), Error);
  Heads wrong = a.heads;
  wrong.size = 17;
  EXPECT_THROW(forward(wrong, {0, 5}), Error);
  wrong = a.heads;
  wrong.first_query = 2;
  EXPECT_THROW(forward(wrong, {0, 5}), Error);
  const Tensor keys = a.host.make({2, 4, 64}), qkv = a.qkv.slice(0, 1), out = a.host.make({1, 128});
  const Ragged slot = a.host.index(Offsets{0});
  EXPECT_THROW(attention_decode(out, qkv, keys, keys, slot, a.host.index(Offsets{4}), a.heads, a.host.stream()), Error);
  EXPECT_THROW(attention_decode(out, qkv, keys, keys, a.host.index(Offsets{2}), slot, a.heads, a.host.stream()), Error);
  EXPECT_THROW(cache_write(keys, keys, a.qkv, a.host.index(Offsets{0, 5}), slot, a.heads, a.host.stream()), Error);
}

}  // namespace
}  // namespace collimate::kernels
