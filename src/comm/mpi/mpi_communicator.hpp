#pragma once
#define OMPI_SKIP_MPICXX 1  // the C interface only: the old C++ one would need a library of its own
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <memory>

#include "collimate/comm/communicator.hpp"

namespace collimate {

/// Throws our sentence if an MPI call did not succeed.
void check_mpi(int result, const char* call);

/// Takes the communicator over and frees it. `silent`: set while this rank must not communicate (agree_on), for all communicators of a
/// World; it outlives them. `message_limit`: bytes of the longest single MPI message (tests lower it).
std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm handle, bool* silent = nullptr,
                                                    std::size_t message_limit = std::size_t{1} << 30);

}  // namespace collimate
