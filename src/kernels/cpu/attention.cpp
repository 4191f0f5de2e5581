#include "kernels/cpu/attention.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/tile_product.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

constexpr Index tile_rows = 64;  ///< queries and keys per tile, counted from the sample's first token
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

Index round_up(Index n) { return tiles_of(n, lanes) * lanes; }

struct alignas(64) HeadTile {
  float at[tile_rows * largest_head];
};
struct alignas(64) ScoreTile {
  float at[tile_rows * tile_rows];
};

/// Rows of one head, `stride` floats apart.
struct HeadRows {
  const float* first;
  Index stride;
};

/// tile[r, wide] = scale * rows, columns behind `size` zero.
void pack(float* tile, Index wide, HeadRows from, Index rows, Index size, float scale) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < size; c += lanes) store(tile + r * wide + c, load(from.first + r * from.stride + c, size - c) * splat(scale));
}

/// Which columns of qkv a query head reads, and which rows a sample has.
struct HeadView {
  const Heads& heads;
  Index columns = heads.columns();
  Index key_head(Index query_head) const { return (heads.first_query + query_head) / heads.group - heads.first_key_value; }
  Index query_column(Index head) const { return head * heads.size; }
  Index key_column(Index key_head) const { return (heads.query + key_head) * heads.size; }
  Index value_column(Index key_head) const { return (heads.query + heads.key_value + key_head) * heads.size; }
};

/// Calls body(first, rows, keys) for the queries of a tile in groups, with the keys that the group's last query sees. On the diagonal,
/// where query i sees keys 0 to i, groups are small and leave out what none of them sees.
template <class Body>
void query_groups(bool diagonal, Index queries, Index keys, const Body& body) {
  const Index group = diagonal ? lanes : queries;
  for (Index first = 0; first < queries; first += group) {
    const Index rows = std::min(group, queries - first);
    body(first, rows, diagonal ? first + rows : keys);
  }
}

/// Working memory of one work item.
struct ForwardTiles {
  HeadTile query, key, value, out;
  ScoreTile scores;
  alignas(64) float max[tile_rows], weight[tile_rows];
};

/// Turns scores[queries, keys] into exp(score - max) in place, updates the running maximum and sum of each query, and shrinks
/// what was summed up in out[queries, wide] to the new maximum. On the diagonal query i sees keys 0 to i.
void online_softmax(ForwardTiles& t, bool diagonal, Index queries, Index keys, Index wide) {
  alignas(64) float shrink[tile_rows] = {};
  for (Index i = 0; i < queries; ++i) {
    const float* scores = t.scores.at + i * tile_rows;
    const Index visible = diagonal ? i + 1 : keys;
    Lanes top = splat(t.max[i]);
    for (Index j = 0; j < visible; j += lanes) {
      const Lanes s = load(scores + j);
      top = max(visible - j >= lanes ? s : select(before(visible - j), s, splat(minus_infinity)), top);
    }
    shrink[i] = t.max[i];
    t.max[i] = largest(top);
  }
  for (Index i = 0; i < queries; i += lanes) store(shrink + i, exp(load(shrink + i) - load(t.max + i)));
  for (Index i = 0; i < queries; ++i) {
    float* scores = t.scores.at + i * tile_rows;
    const Index visible = diagonal ? i + 1 : keys;
    Lanes total{};
    for (Index j = 0; j < visible; j += lanes) {
      const Lanes p = exp(load(scores + j) - splat(t.max[i]));
      const Lanes seen_p = visible - j >= lanes ? p : select(before(visible - j), p, Lanes{});
      store(scores + j, seen_p);
      total += seen_p;
    }
    t.weight[i] = t.weight[i] * shrink[i] + sum(total);
    if (shrink[i] != 1.0f)
      for (Index c = 0; c < wide; c += lanes) store(t.out.at + i * wide + c, load(t.out.at + i * wide + c) * splat(shrink[i]));
  }
}

struct ForwardHead {
  const float* qkv;
  float* out;
  float* lse;
  Index head, first, length;  ///< query head; first row and rows of the sample
};

void forward_tile(ForwardTiles& t, const HeadView& view, const ForwardHead& item, Index query_begin) {
  const Index size = view.heads.size, wide = round_up(size), key_head = view.key_head(item.head);
  const Index queries = std::min(tile_rows, item.length - query_begin);
  const float* rows = item.qkv + item.first * view.columns;
  pack(t.query.at, wide, {rows + query_begin * view.columns + view.query_column(item.head), view.columns}, queries, size,
       1.0f / std::sqrt(static_cast<float>(size)));
  std::fill_n(t.out.at, queries * wide, 0.0f);
  std::fill_n(t.max, tile_rows, minus_infinity);
  std::fill_n(t.weight, queries, 0.0f);
  for (Index key_begin = 0; key_begin <= query_begin; key_begin += tile_rows) {
    const Index keys = std::min(tile_rows, item.length - key_begin);
    const bool diagonal = key_begin == query_begin;
    const float* key_rows = rows + key_begin * view.columns;
    transpose(t.key.at, tile_rows, key_rows + view.key_column(key_head), view.columns, keys, size);
    pack(t.value.at, wide, {key_rows + view.value_column(key_head), view.columns}, keys, size, 1.0f);
    query_groups(diagonal, queries, keys, [&](Index i, Index count, Index seen) {
      tile_product(t.scores.at + i * tile_rows, tile_rows, {t.query.at + i * wide, wide, 1}, t.key.at, tile_rows, count, round_up(seen),
                   size, false);
    });
    online_softmax(t, diagonal, queries, keys, wide);
    query_groups(diagonal, queries, keys, [&](Index i, Index count, Index seen) {
      tile_product(t.out.at + i * wide, wide, {t.scores.at + i * tile_rows, tile_rows, 1}, t.value.at, wide, count, wide, seen, true);
    });
  }
  for (Index i = 0; i < queries; ++i) {
    const Index row = item.first + query_begin + i;
    float* out = item.out + (row * view.heads.query + item.head) * size;
    for (Index c = 0; c < size; c += lanes) store(out + c, load(t.out.at + i * wide + c) / splat(t.weight[i]), size - c);
    item.lse[row * view.heads.query + item.head] = static_cast<float>(t.max[i] + std::log(static_cast<double>(t.weight[i])));
  }
}

Index longest(const Samples& samples) {
  Index length = 0;
  for (Index s = 0; s < samples.count; ++s) length = std::max<Index>(length, samples.offsets[s + 1] - samples.offsets[s]);
  return length;
}

}  // namespace

void attention_forward(float* out, float* lse, const float* qkv, const Samples& samples, const Heads& heads) {
  const HeadView view{heads};
  const Index used = samples.offsets[samples.count], tiles = tiles_of(longest(samples), tile_rows);
  parallel_tiles(samples.count * heads.query * tiles, used * heads.query * heads.size > serial_elements, [&](Index work) {
    // The last tiles of a sample see most keys: they come first.
    const Index tile = tiles - 1 - work / (samples.count * heads.query), sample = work / heads.query % samples.count;
    const Index first = samples.offsets[sample], length = samples.offsets[sample + 1] - first;
    if (tile * tile_rows >= length) return;
    ForwardTiles memory;
    forward_tile(memory, view, {qkv, out, lse, work % heads.query, first, length}, tile * tile_rows);
  });
  std::fill_n(out + used * heads.query * heads.size, (samples.rows - used) * heads.query * heads.size, 0.0f);
  std::fill_n(lse + used * heads.query, (samples.rows - used) * heads.query, 0.0f);
}

namespace {

/// delta[row, head] = sum over the head's columns of dout * out
void output_products(float* delta, const float* dout, const float* out, Index rows, const Heads& heads) {
  parallel_rows(rows, heads.query * heads.size, [=](Index r) {
    for (Index h = 0; h < heads.query; ++h) {
      const Index at = (r * heads.query + h) * heads.size;
      Lanes total{};
      for (Index c = 0; c < heads.size; c += lanes)
        total = fma(load(dout + at + c, heads.size - c), load(out + at + c, heads.size - c), total);
      delta[r * heads.query + h] = sum(total);
    }
  });
}

struct BackwardTiles {
  HeadTile query, dout, key, key_transposed, value_transposed, dquery, dkey, dvalue;
  ScoreTile weights, dscores;
};

/// weights = exp(scores - lse) where visible, dscores = weights (dweights - delta). Query i sees the first `seen` of `width` keys.
void score_gradients(BackwardTiles& t, Index i, Index seen, Index width, float lse, float delta) {
  float* weights = t.weights.at + i * tile_rows;
  float* dscores = t.dscores.at + i * tile_rows;
  for (Index j = 0; j < width; j += lanes) {
    const IntLanes visible = before(std::clamp<Index>(seen - j, 0, lanes));
    const Lanes p = select(visible, exp(load(weights + j) - splat(lse)), Lanes{});
    const Lanes d = p * (load(dscores + j) - splat(delta));
    store(weights + j, p);
    store(dscores + j, select(visible, d, Lanes{}));
  }
}

struct BackwardHead {
  Index key_head, first, length;
};

/// rows (+)= tile
void unpack_add(float* rows, Index stride, const float* tile, Index wide, Index count, Index size) {
  for (Index r = 0; r < count; ++r)
    for (Index c = 0; c < size; c += lanes) {
      float* to = rows + r * stride + c;
      store(to, load(to, size - c) + load(tile + r * wide + c), size - c);
    }
}

// With S = scale q k^T, P = exp(S - lse), dP = dout v^T, dS = P (dP - delta):
// dv = P^T dout,  dk = scale dS^T q,  dq = scale dS k.  dk and dv add over heads of the group, then query tiles, in order.
void backward_tile(BackwardTiles& t, const HeadView& view, const AttentionBackward& on, const BackwardHead& item, Index head,
                   Index query_begin) {
  const Heads& heads = view.heads;
  const Index size = heads.size, wide = round_up(size), queries = std::min(tile_rows, item.length - query_begin);
  const Index first_row = item.first + query_begin;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  const float* rows = on.qkv + item.first * view.columns;
  pack(t.query.at, wide, {rows + query_begin * view.columns + view.query_column(head), view.columns}, queries, size, scale);
  pack(t.dout.at, wide, {on.dout + (first_row * heads.query + head) * size, heads.query * size}, queries, size, 1.0f);
  std::fill_n(t.dquery.at, queries * wide, 0.0f);
  for (Index key_begin = 0; key_begin <= query_begin; key_begin += tile_rows) {
    const Index keys = std::min(tile_rows, item.length - key_begin);
    const bool diagonal = key_begin == query_begin;
    const float* key_rows = rows + key_begin * view.columns;
    const HeadRows key = {key_rows + view.key_column(item.key_head), view.columns};
    const HeadRows value = {key_rows + view.value_column(item.key_head), view.columns};
    pack(t.key.at, wide, key, keys, size, scale);
    transpose(t.key_transposed.at, tile_rows, key.first, key.stride, keys, size);
    transpose(t.value_transposed.at, tile_rows, value.first, value.stride, keys, size);
    query_groups(diagonal, queries, keys, [&](Index i, Index count, Index seen) {
      const Index at = i * tile_rows, width = round_up(seen);
      tile_product(t.weights.at + at, tile_rows, {t.query.at + i * wide, wide, 1}, t.key_transposed.at, tile_rows, count, width, size,
                   false);
      tile_product(t.dscores.at + at, tile_rows, {t.dout.at + i * wide, wide, 1}, t.value_transposed.at, tile_rows, count, width, size,
                   false);
      for (Index query = i; query < i + count; ++query) {
        const Index row = (first_row + query) * heads.query + head;
        score_gradients(t, query, diagonal ? query + 1 : keys, width, on.lse[row], on.scratch[row]);
      }
      tile_product(t.dquery.at + i * wide, wide, {t.dscores.at + at, tile_rows, 1}, t.key.at, wide, count, wide, seen, true);
    });
    const Index group = diagonal ? lanes : keys;
    for (Index j = 0; j < keys; j += group) {  // on the diagonal the queries before the group's first key do not see it
      const Index count = std::min(group, keys - j), at = j * (tile_rows + 1), later = queries - j;
      tile_product(t.dvalue.at + j * wide, wide, {t.weights.at + at, 1, tile_rows}, t.dout.at + j * wide, wide, count, wide, later, false);
      tile_product(t.dkey.at + j * wide, wide, {t.dscores.at + at, 1, tile_rows}, t.query.at + j * wide, wide, count, wide, later, false);
    }
    float* dkey_rows = on.dqkv + (item.first + key_begin) * view.columns;
    unpack_add(dkey_rows + view.key_column(item.key_head), view.columns, t.dkey.at, wide, keys, size);
    unpack_add(dkey_rows + view.value_column(item.key_head), view.columns, t.dvalue.at, wide, keys, size);
  }
  unpack_add(on.dqkv + first_row * view.columns + view.query_column(head), view.columns, t.dquery.at, wide, queries, size);
}

}  // namespace

void attention_backward(const AttentionBackward& on, const Samples& samples, const Heads& heads) {
  const HeadView view{heads};
  const Index used = samples.offsets[samples.count];
  parallel_rows(samples.rows, view.columns, [&](Index r) { std::fill_n(on.dqkv + r * view.columns, view.columns, 0.0f); });
  std::fill_n(on.scratch + used * heads.query, (samples.rows - used) * heads.query, 0.0f);
  output_products(on.scratch, on.dout, on.out, used, heads);
  parallel_tiles(samples.count * heads.key_value, used * heads.query * heads.size > serial_elements, [&](Index work) {
    const Index sample = work / heads.key_value, key_head = work % heads.key_value, first = samples.offsets[sample];
    const BackwardHead item{key_head, first, samples.offsets[sample + 1] - first};
    BackwardTiles memory;
    for (Index head = 0; head < heads.query; ++head) {
      if (view.key_head(head) != key_head) continue;
      for (Index query = 0; query < item.length; query += tile_rows) backward_tile(memory, view, on, item, head, query);
    }
  });
}

}  // namespace collimate::kernels::cpu
