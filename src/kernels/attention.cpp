#include "collimate/kernels/attention.hpp"

#include "kernels/check.hpp"
#include "kernels/table.hpp"

namespace collimate::kernels {
namespace {

void check_heads(std::string_view name, const Heads& heads, bool even = false) {
  require(heads.query >= 0 && heads.key_value >= 0 && heads.size >= 1 && heads.group >= 1 && heads.first_query >= 0 &&
              heads.first_key_value >= 0,
          "{} was given {} query heads, {} key/value heads of size {}, groups of {}", name, heads.query, heads.key_value, heads.size,
          heads.group);
  require(heads.size <= largest_head, "{} takes heads of at most {} columns, not {}", name, largest_head, heads.size);
  require(!even || heads.size % 2 == 0, "{} needs heads of an even size, not {}", name, heads.size);
  if (heads.query == 0) return;
  const auto low = heads.first_query / heads.group - heads.first_key_value;
  const auto high = (heads.first_query + heads.query - 1) / heads.group - heads.first_key_value;
  require(low >= 0 && high < heads.key_value,
          "{}: query heads {} to {} in groups of {} read key/value heads that are not among the {} from {}", name, heads.first_query,
          heads.first_query + heads.query - 1, heads.group, heads.key_value, heads.first_key_value);
}

void check_index(std::string_view name, std::string_view what, const Ragged& index, std::int64_t count) {
  check(name, what, index.device, {count}, DType::i32);
  require(index.count() == count, "{} was given {} {} in host memory and {} on the device", name, index.count(), what, count);
}

void check_samples(std::string_view name, const Ragged& offsets, std::int64_t rows) {
  check_index(name, "offsets", offsets, offsets.count());
  const auto at = offsets.host;
  require(!at.empty(), "{} needs at least one offset", name);
  require(at[0] == 0, "{} needs its first sample to start at row 0, not {}", name, at[0]);
  for (std::size_t s = 1; s < at.size(); ++s)
    require(at[s - 1] <= at[s] && at[s] <= rows, "{}: sample {} is rows [{}, {}) of {}", name, s - 1, at[s - 1], at[s], rows);
}

void check_cache(std::string_view name, const Tensor& keys, const Tensor& values, const Heads& heads) {
  check_rank(name, "keys", keys, 3);
  check(name, "keys", keys, {keys[0], keys[1], heads.key_value * heads.size});
  check(name, "values", values, keys.shape());
}

}  // namespace

void rotary(Tensor qkv, const Ragged& positions, Tensor table, const Heads& heads, bool inverse, Stream& stream) {
  constexpr auto name = "rotary";
  check_heads(name, heads, true);
  check_rank(name, "table", table, 2);
  check(name, "table", table, {table[0], heads.size});
  check(name, "qkv", qkv, {positions.count(), heads.columns()});
  check_index(name, "positions", positions, qkv[0]);
  for (std::size_t r = 0; r < positions.host.size(); ++r)
    require(positions.host[r] < table[0], "rotary has angles for {} positions, and row {} is at position {}", table[0], r, positions.host[r]);
  table_of(qkv).rotary(qkv, positions, table, heads, inverse, stream);
}

void attention_forward(Tensor out, Tensor lse, Tensor qkv, const Ragged& offsets, const Heads& heads, Stream& stream) {
  constexpr auto name = "attention_forward";
  check_heads(name, heads);
  check_rank(name, "qkv", qkv, 2);
  check(name, "qkv", qkv, {qkv[0], heads.columns()});
  check(name, "out", out, {qkv[0], heads.query * heads.size});
  check(name, "lse", lse, {qkv[0], heads.query});
  check_samples(name, offsets, qkv[0]);
  table_of(out).attention_forward(out, lse, qkv, offsets, heads, stream);
}

void attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, const Ragged& offsets, Tensor scratch, const Heads& heads,
                        Stream& stream) {
  constexpr auto name = "attention_backward";
  check_heads(name, heads);
  check_rank(name, "qkv", qkv, 2);
  check(name, "qkv", qkv, {qkv[0], heads.columns()});
  check(name, "dqkv", dqkv, qkv.shape());
  check(name, "out", out, {qkv[0], heads.query * heads.size});
  check(name, "dout", dout, out.shape());
  check(name, "lse", lse, {qkv[0], heads.query});
  check(name, "scratch", scratch, lse.shape());
  check_samples(name, offsets, qkv[0]);
  table_of(dqkv).attention_backward(dqkv, dout, out, lse, qkv, offsets, scratch, heads, stream);
}

void cache_write(Tensor keys, Tensor values, Tensor qkv, const Ragged& offsets, const Ragged& slots, const Heads& heads, Stream& stream) {
  constexpr auto name = "cache_write";
  check_heads(name, heads);
  check_rank(name, "qkv", qkv, 2);
  check(name, "qkv", qkv, {qkv[0], heads.columns()});
  check_cache(name, keys, values, heads);
  check_samples(name, offsets, qkv[0]);
  check_index(name, "slots", slots, offsets.count() - 1);
  for (std::size_t s = 0; s < slots.host.size(); ++s) {
    require(slots.host[s] >= 0 && slots.host[s] < keys[0], "cache_write: sample {} is for slot {} of {}", s, slots.host[s], keys[0]);
    const auto length = offsets.host[s + 1] - offsets.host[s];
    require(length <= keys[1], "cache_write: sample {} has {} tokens, and a slot holds {}", s, length, keys[1]);
  }
  table_of(keys).cache_write(keys, values, qkv, offsets, slots, heads, stream);
}

void attention_decode(Tensor out, Tensor qkv, Tensor keys, Tensor values, const Ragged& slots, const Ragged& lengths, const Heads& heads,
                      Stream& stream) {
  constexpr auto name = "attention_decode";
  check_heads(name, heads);
  check_rank(name, "qkv", qkv, 2);
  const auto sequences = qkv[0];
  check(name, "qkv", qkv, {sequences, heads.columns()});
  check(name, "out", out, {sequences, heads.query * heads.size});
  check_index(name, "slots", slots, sequences);
  check_index(name, "lengths", lengths, sequences);
  check_cache(name, keys, values, heads);
  for (std::size_t b = 0; b < slots.host.size(); ++b) {
    const auto slot = slots.host[b], length = lengths.host[b];
    require(slot >= 0 && slot < keys[0] && length >= 0 && length < keys[1],
            "attention_decode: sequence {} appends at position {} of slot {}, and there are {} slots of {} positions", b, length, slot, keys[0],
            keys[1]);
  }
  table_of(out).attention_decode(out, qkv, keys, values, slots, lengths, heads, stream);
}

}  // namespace collimate::kernels
