#pragma once
#include <cstddef>

namespace collimate {

/// Host code that touches these bytes ends the process with a sentence and exit code 1 instead of a bare segmentation fault.
void guard_memory(void* begin, std::size_t bytes);
void forget_memory(void* begin) noexcept;

}  // namespace collimate
