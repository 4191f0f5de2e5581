#include "collimate/collectives/all_reduce.hpp"

#include <algorithm>

#include "collimate/kernels/elementwise.hpp"

namespace collimate {
namespace {

constexpr std::int64_t gathered_bytes = 65536;              // of all ranks' terms, up to which every rank gets them all
constexpr std::int64_t room_bytes = std::int64_t{4} << 20;  // of what others send in one round

template <class T>
void add_whole_numbers(const Tensor& sum, const Tensor& a, const Tensor& b) {
  using Bits = std::make_unsigned_t<T>;  // which may overflow
  for (std::int64_t i = 0; i < sum.count(); ++i)
    sum.as<T>()[i] = static_cast<T>(static_cast<Bits>(a.as<T>()[i]) + static_cast<Bits>(b.as<T>()[i]));
}

void add(const Tensor& sum, const Tensor& a, const Tensor& b, Stream& stream) {
  switch (sum.dtype()) {
    case DType::f32:
    case DType::i32: return kernels::add(sum, a, b, stream);
    case DType::i64: return add_whole_numbers<std::int64_t>(sum, a, b);
    case DType::u64: return add_whole_numbers<std::uint64_t>(sum, a, b);
    case DType::bf16:
    case DType::f64:
    case DType::u8: break;
  }
  fail_with(ExitCode::failure, "{} tensors cannot be summed over ranks", name_of(sum.dtype()));
}

/// sum = all terms. Neighbours at distance 1 are added, then at 2, 4, ...: 7 terms give ((0+1)+(2+3)) + ((4+5)+6). Terms are overwritten;
/// `sum` may be one of them, since it is written by the last addition.
void add_tree(const Tensor& sum, std::vector<Tensor>& terms, Stream& stream) {
  for (std::size_t distance = 1; distance < terms.size(); distance *= 2)
    for (std::size_t i = 0; i + distance < terms.size(); i += 2 * distance)
      add(2 * distance < terms.size() ? terms[i] : sum, terms[i], terms[i + distance], stream);
}

/// Few elements: every rank gets all terms and adds them itself, so that there is one message instead of two.
void reduce_gathered(Communicator& ranks, const Tensor& data, const Tensor& room, Stream& stream) {
  const Tensor all = room.slice(0, data.count() * ranks.size());
  ranks.all_gather(all, data, stream);
  std::vector<Tensor> terms;
  for (int rank = 0; rank < ranks.size(); ++rank) terms.push_back(all.slice(rank * data.count(), data.count()));
  add_tree(data, terms, stream);
}

/// Each rank adds the terms of one part, [n*rank/ranks, n*(rank+1)/ranks), in rounds that fit the room; then all get all parts.
void reduce_parts(Communicator& ranks, const Tensor& data, const Tensor& room, Stream& stream) {
  const int me = ranks.rank(), size = ranks.size();
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < size; ++rank) counts.push_back(part_of(data.count(), rank, size).count);
  const std::int64_t longest = *std::max_element(counts.begin(), counts.end()), piece = std::min(longest, room.count() / (size - 1));
  for (std::int64_t offset = 0; offset < longest; offset += piece) {
    const auto piece_of = [&](int rank) {
      return data.slice(part_of(data.count(), rank, size).begin + std::min(offset, counts[rank]),
                        std::clamp(counts[rank] - offset, std::int64_t{0}, piece));
    };
    const Tensor mine = piece_of(me);
    std::vector<Tensor> terms;
    std::vector<Message> sends, receives;
    for (int peer = 0; peer < size; ++peer) {
      terms.push_back(peer == me ? mine : room.slice((peer < me ? peer : peer - 1) * piece, mine.count()));
      if (peer == me) continue;
      receives.push_back({terms.back(), peer});
      sends.push_back({piece_of(peer), peer});
    }
    ranks.exchange(sends, receives, stream);
    add_tree(mine, terms, stream);
  }
  const Part own = part_of(data.count(), me, size);
  ranks.all_gather(data, data.slice(own.begin, own.count), counts, stream);
}

bool is_gathered(std::int64_t elements, int ranks, DType dtype) {
  return elements * ranks * static_cast<std::int64_t>(size_of(dtype)) <= gathered_bytes;
}

/// What the others send of a tensor in one round: at most 4 MiB, at least one element each.
std::int64_t parts_room(std::int64_t elements, int ranks, DType dtype) {
  const std::int64_t others = ranks - 1, all = others * ((elements + others) / ranks);
  return std::max(others, std::min(all, room_bytes / static_cast<std::int64_t>(size_of(dtype))));
}

template <class T>
void all_reduce_host(Communicator& ranks, std::span<T> data, Device& device) {
  constexpr DType dtype = dtype_of<T>();
  const std::int64_t count = std::ssize(data);
  const int size = ranks.size();
  std::vector<T> room(static_cast<std::size_t>(is_gathered(count, size, dtype) ? count * size : parts_room(count, size, dtype)));
  all_reduce(ranks, on_host(data, device), on_host(std::span(room), device), device.host().stream());
}

}  // namespace

std::int64_t all_reduce_room(std::int64_t elements, int ranks, DType dtype) {
  if (ranks == 1) return 0;
  return std::max(gathered_bytes / static_cast<std::int64_t>(size_of(dtype)), parts_room(elements, ranks, dtype));
}

void all_reduce(Communicator& ranks, Tensor data, Tensor room, Stream& stream) {
  if (ranks.size() == 1 || data.count() == 0) return;
  ensure(room && room.dtype() == data.dtype(), "a sum over {} ranks has no room of type {}", ranks.size(), name_of(data.dtype()));
  const Tensor flat = data.reshape({data.count()});
  const bool gathered = is_gathered(data.count(), ranks.size(), data.dtype());
  gathered ? reduce_gathered(ranks, flat, room, stream) : reduce_parts(ranks, flat, room, stream);
}

void all_reduce(Communicator& ranks, std::span<std::int64_t> data, Device& device) { all_reduce_host(ranks, data, device); }
void all_reduce(Communicator& ranks, std::span<std::uint64_t> data, Device& device) { all_reduce_host(ranks, data, device); }

}  // namespace collimate
