#pragma once
#include "collimate/comm/communicator.hpp"
#include "collimate/device/memory_plan.hpp"

namespace collimate {

/// The rank-th share of a range of a flat gradient or of values: whole blocks of 1,024 elements.
Part owned_part(std::int64_t elements, int rank, int ranks);
/// Of sums of gradients: on the host they last, since steps of the optimizer may be pending when an update ends.
constexpr Lifetime lifetime_of_sums(Memory memory) { return memory == Memory::host ? Lifetime::always : Lifetime::update; }
/// Every rank's share of `whole` on every rank; each has its own in place.
void gather_shares(Communicator& data, Tensor whole, Stream& stream);

}  // namespace collimate
