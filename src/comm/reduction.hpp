#pragma once
#include <span>

#include "collimate/comm/communicator.hpp"

namespace collimate {

/// terms[0] = the reduction of all terms, as a balanced binary tree over their index; every term is overwritten.
/// The tree: neighbours at distance 1 join, then at 2, 4, ...; so 7 terms give ((0+1)+(2+3)) + ((4+5)+6).
/// Denormal numbers are flushed to zero whatever the calling thread does (numerics contract R6).
void reduce_terms(std::span<void* const> terms, std::int64_t count, DType dtype, Reduce operation);

}  // namespace collimate
