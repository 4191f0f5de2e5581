#pragma once
#include <span>

#include "collimate/comm/communicator.hpp"

namespace collimate {

/// Elements of the room in which all_reduce puts what other ranks send: 64 KiB at least and (up to some ten thousand ranks) 4 MiB at
/// most. Any tensor can be summed in it, one of more than `elements` in more rounds.
std::int64_t all_reduce_room(std::int64_t elements, int ranks, DType dtype = DType::f32);

/// data = the element-wise sum over the ranks, on every rank. Rank r's terms are added as a balanced binary tree over r,
/// ((0+1)+(2+3))+..., whatever the machine. f32 or i32; i64 or u64 in host memory.
/// room: [all_reduce_room] of data's type; one rank needs none.
void all_reduce(Communicator& ranks, Tensor data, Tensor room, Stream& stream);

/// The same for a few whole numbers of the host, beside `device`.
void all_reduce(Communicator& ranks, std::span<std::int64_t> data, Device& device);
void all_reduce(Communicator& ranks, std::span<std::uint64_t> data, Device& device);

}  // namespace collimate
