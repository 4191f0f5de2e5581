#pragma once
#include "collimate/comm/communicator.hpp"

namespace collimate {

/// The rank-th share of a range of a flat gradient or of values: whole blocks of 1,024 elements.
Part owned_part(std::int64_t elements, int rank, int ranks);
/// Every rank's share of `whole` on every rank; each has its own in place.
void gather_shares(Communicator& data, Tensor whole, Stream& stream);

}  // namespace collimate
