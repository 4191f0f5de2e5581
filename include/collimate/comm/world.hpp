#pragma once
#include <functional>
#include <memory>
#include <string>

#include "collimate/comm/communicator.hpp"

namespace collimate {

/// The MPI session of this process: made once, first thing in main (but after processes that must not inherit MPI were started).
/// Works without mpirun as a world of one rank. Left by an exception, it ends all ranks, so that none waits for this one;
/// programs catch inside its life: an AgreedError may return normally, any other error calls abort.
class World {
 public:
  World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World();

  int rank() const;
  int size() const;
  int node() const;       ///< which node this is, counted in order of the nodes' lowest ranks
  int nodes() const;
  int node_rank() const;  ///< this rank's place among those of its node
  int node_size() const;
  const std::string& host() const;
  Communicator& ranks();  ///< all of them
  /// The ranks that give the same colour, ordered by key, then rank. Collective over all ranks.
  std::unique_ptr<Communicator> split(int colour, int key);
  [[noreturn]] void abort(int code);  ///< ends all ranks now; for errors that the other ranks do not know of

 private:
  struct Session;
  std::unique_ptr<Session> session_;
};

/// Runs the body of main on every rank and gives the exit code. An AgreedError is printed once and leaves in order; any other
/// error is printed with its rank and ends all ranks, because they do not know of it.
int run_program(World& world, const std::function<int()>& program);

}  // namespace collimate
