#include "collimate/kernels/attention.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/attention.hpp"

namespace collimate::kernels {
namespace {

void check_heads(std::string_view name, const Heads& heads, bool even = false) {
  require(heads.query >= 0 && heads.key_value >= 0 && heads.size >= 1 && heads.group >= 1 && heads.first_query >= 0 &&
              heads.first_key_value >= 0,
          "{} was given {} query heads, {} key/value heads of size {}, groups of {}", name, heads.query, heads.key_value, heads.size,
          heads.group);
  require(heads.size <= cpu::largest_head, "{} takes heads of at most {} columns, not {}", name, cpu::largest_head, heads.size);
  require(!even || heads.size % 2 == 0, "{} needs heads of an even size, not {}", name, heads.size);
  if (heads.query == 0) return;
  const auto low = heads.first_query / heads.group - heads.first_key_value;
  const auto high = (heads.first_query + heads.query - 1) / heads.group - heads.first_key_value;
  require(low >= 0 && high < heads.key_value,
          "{}: query heads {} to {} in groups of {} read key/value heads that are not among the {} from {}", name, heads.first_query,
          heads.first_query + heads.query - 1, heads.group, heads.key_value, heads.first_key_value);
}

cpu::Samples check_samples(std::string_view name, const Tensor& offsets, std::int64_t rows) {
  check_rank(name, "offsets", offsets, 1, DType::i32);
  require(offsets[0] >= 1, "{} needs at least one offset", name);
  const auto* at = offsets.as<std::int32_t>();
  require(at[0] == 0, "{} needs its first sample to start at row 0, not {}", name, at[0]);
  for (std::int64_t s = 1; s < offsets[0]; ++s)
    require(at[s - 1] <= at[s] && at[s] <= rows, "{}: sample {} is rows [{}, {}) of {}", name, s - 1, at[s - 1], at[s], rows);
  return {at, offsets[0] - 1, rows};
}

cpu::Cache check_cache(std::string_view name, const Tensor& keys, const Tensor& values, const Heads& heads) {
  check_rank(name, "keys", keys, 3);
  check(name, "keys", keys, {keys[0], keys[1], heads.key_value * heads.size});
  check(name, "values", values, keys.shape());
  return {keys.as<float>(), values.as<float>(), keys[0], keys[1]};
}

}  // namespace

void rotary(Tensor qkv, Tensor positions, Tensor table, const Heads& heads, bool inverse, Stream&) {
  constexpr auto name = "rotary";
  check_heads(name, heads, true);
  check_rank(name, "positions", positions, 1, DType::i32);
  check_rank(name, "table", table, 2);
  check(name, "table", table, {table[0], heads.size});
  check(name, "qkv", qkv, {positions[0], heads.columns()});
  const auto* at = positions.as<std::int32_t>();
  for (std::int64_t r = 0; r < positions[0]; ++r)
    require(at[r] < table[0], "rotary has angles for {} positions, and row {} is at position {}", table[0], r, at[r]);
  cpu::rotary(qkv.as<float>(), at, table.as<float>(), heads, inverse, positions[0]);
}

void rotary_table(Tensor table, std::span<const double> frequencies, Stream&) {
  check_rank("rotary_table", "table", table, 2);
  check("rotary_table", "table", table, table.shape());
  require(table[1] == 2 * std::ssize(frequencies), "rotary_table needs a frequency for each pair of a head's {} numbers, and was given {}",
          table[1], frequencies.size());
  cpu::rotary_table(table.as<float>(), frequencies.data(), table[0], table[1]);
}

void attention_forward(Tensor out, Tensor lse, Tensor qkv, Tensor offsets, const Heads& heads, Stream&) {
  constexpr auto name = "attention_forward";
  check_heads(name, heads);
  check_rank(name, "qkv", qkv, 2);
  check(name, "qkv", qkv, {qkv[0], heads.columns()});
  check(name, "out", out, {qkv[0], heads.query * heads.size});
  check(name, "lse", lse, {qkv[0], heads.query});
  cpu::attention_forward(out.as<float>(), lse.as<float>(), qkv.as<float>(), check_samples(name, offsets, qkv[0]), heads);
}

void attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, Tensor offsets, Tensor scratch, const Heads& heads,
                        Stream&) {
  constexpr auto name = "attention_backward";
  check_heads(name, heads);
  check_rank(name, "qkv", qkv, 2);
  check(name, "qkv", qkv, {qkv[0], heads.columns()});
  check(name, "dqkv", dqkv, qkv.shape());
  check(name, "out", out, {qkv[0], heads.query * heads.size});
  check(name, "dout", dout, out.shape());
  check(name, "lse", lse, {qkv[0], heads.query});
  check(name, "scratch", scratch, lse.shape());
  cpu::attention_backward({dqkv.as<float>(), dout.as<float>(), out.as<float>(), lse.as<float>(), qkv.as<float>(), scratch.as<float>()},
                          check_samples(name, offsets, qkv[0]), heads);
}

void cache_write(Tensor keys, Tensor values, Tensor qkv, Tensor offsets, Tensor slots, const Heads& heads, Stream&) {
  constexpr auto name = "cache_write";
  check_heads(name, heads);
  check_rank(name, "qkv", qkv, 2);
  check(name, "qkv", qkv, {qkv[0], heads.columns()});
  const auto cache = check_cache(name, keys, values, heads);
  const auto samples = check_samples(name, offsets, qkv[0]);
  check(name, "slots", slots, {samples.count}, DType::i32);
  const auto* slot = slots.as<std::int32_t>();
  for (std::int64_t s = 0; s < samples.count; ++s) {
    require(slot[s] >= 0 && slot[s] < cache.slots, "cache_write: sample {} is for slot {} of {}", s, slot[s], cache.slots);
    const auto length = samples.offsets[s + 1] - samples.offsets[s];
    require(length <= cache.capacity, "cache_write: sample {} has {} tokens, and a slot holds {}", s, length, cache.capacity);
  }
  cpu::cache_write(cache, qkv.as<float>(), samples, slot, heads);
}

void attention_decode(Tensor out, Tensor qkv, Tensor keys, Tensor values, Tensor slots, Tensor lengths, const Heads& heads, Stream&) {
  constexpr auto name = "attention_decode";
  check_heads(name, heads);
  check_rank(name, "qkv", qkv, 2);
  const auto sequences = qkv[0];
  check(name, "qkv", qkv, {sequences, heads.columns()});
  check(name, "out", out, {sequences, heads.query * heads.size});
  check(name, "slots", slots, {sequences}, DType::i32);
  check(name, "lengths", lengths, {sequences}, DType::i32);
  const auto cache = check_cache(name, keys, values, heads);
  const auto* slot = slots.as<std::int32_t>();
  const auto* length = lengths.as<std::int32_t>();
  for (std::int64_t b = 0; b < sequences; ++b)
    require(slot[b] >= 0 && slot[b] < cache.slots && length[b] >= 0 && length[b] < cache.capacity,
            "attention_decode: sequence {} appends at position {} of slot {}, and there are {} slots of {} positions", b, length[b],
            slot[b], cache.slots, cache.capacity);
  cpu::attention_decode(out.as<float>(), qkv.as<float>(), cache, slot, length, sequences, heads);
}

}  // namespace collimate::kernels
