#pragma once
#include <memory>

#include "collimate/comm/communicator.hpp"

namespace collimate {

/// All ranks once more, with no message longer than this: what tensors above 2^30 bytes meet, testable on small ones.
std::unique_ptr<Communicator> all_ranks_with_short_messages(std::size_t message_limit);

}  // namespace collimate
