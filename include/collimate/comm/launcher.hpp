#pragma once
#include <functional>
#include <string>

namespace collimate {

/// A sentence where a launcher's variables speak of several processes, to be said where MPI knows of one rank: copies that each believe
/// to be alone. Else "". To be asked before MPI starts, which may set such variables itself; variable: std::getenv, or another in tests.
std::string missing_ranks(const std::function<const char*(const char*)>& variable);

}  // namespace collimate
