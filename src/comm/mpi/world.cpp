#include "collimate/comm/world.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <set>
#include <thread>

#include "comm/mpi/mpi_communicator.hpp"

namespace collimate {

struct World::Session {
  int rank = 0, size = 1, node = 0, nodes = 1, node_rank = 0, node_size = 1;
  std::string host;
  bool silent = false;  // this rank is in a step on whose success ranks agree
  std::unique_ptr<Communicator> ranks;
};

World::World() : session_(std::make_unique<Session>()) {
  int running = 0, provided = 0;
  MPI_Initialized(&running);
  ensure(!running, "a second World was made in one process");
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  require(provided >= MPI_THREAD_FUNNELED, "this MPI library does not allow threads (MPI_THREAD_FUNNELED): use one built with them");

  Session& me = *session_;
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &me.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &me.size), "MPI_Comm_size");
  std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
  int length = 0;
  check_mpi(MPI_Get_processor_name(name.data(), &length), "MPI_Get_processor_name");
  me.host.assign(name.data(), static_cast<std::size_t>(length));

  MPI_Comm node_ranks = MPI_COMM_NULL, all = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node_ranks), "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(node_ranks, &me.node_rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(node_ranks, &me.node_size), "MPI_Comm_size");
  int leader = me.rank;  // a node is named by its lowest rank
  check_mpi(MPI_Bcast(&leader, 1, MPI_INT, 0, node_ranks), "MPI_Bcast");
  MPI_Comm_free(&node_ranks);

  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &all), "MPI_Comm_dup");
  me.ranks = make_mpi_communicator(all, &me.silent);
  const std::vector<int> leaders = gather_all(*me.ranks, leader);
  const std::set<int> distinct(leaders.begin(), leaders.end());
  me.nodes = static_cast<int>(distinct.size());
  me.node = static_cast<int>(std::distance(distinct.begin(), distinct.find(leader)));
}

World::~World() {
  if (std::uncaught_exceptions() > 0 && session_->size > 1) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::failure));
  session_->ranks.reset();
  MPI_Finalize();
}

int World::rank() const { return session_->rank; }
int World::size() const { return session_->size; }
int World::node() const { return session_->node; }
int World::nodes() const { return session_->nodes; }
int World::node_rank() const { return session_->node_rank; }
int World::node_size() const { return session_->node_size; }
const std::string& World::host() const { return session_->host; }
Communicator& World::ranks() { return *session_->ranks; }

std::unique_ptr<Communicator> World::split(int colour, int key) {
  ensure(!session_->silent, "a step on whose success ranks agree must not communicate (MPI_Comm_split)");
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(MPI_COMM_WORLD, colour, key, &part), "MPI_Comm_split");
  int size = 0;
  check_mpi(MPI_Comm_size(part, &size), "MPI_Comm_size");
  if (size > 1) return make_mpi_communicator(part, &session_->silent);
  MPI_Comm_free(&part);
  return make_single_communicator();
}

void World::abort(int code) {
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

int run_program(World& world, const std::function<int()>& program) {
  // Nobody else knows of this error, unless all ranks have met it at once: then rank 0 says it and ends the others before they do.
  const auto alone = [&](ExitCode code, const char* sentence) {
    if (world.rank() > 0) std::this_thread::sleep_for(std::chrono::seconds(1));
    if (world.size() > 1) fmt::print(stderr, "error: [rank {}] {}\n", world.rank(), sentence);
    else fmt::print(stderr, "error: {}\n", sentence);
    if (world.size() > 1) world.abort(static_cast<int>(code));
    return static_cast<int>(code);
  };
  try {
    return program();
  } catch (const AgreedError& error) {
    const char* const mark = error.code() == ExitCode::requeue ? "" : "error: ";  // a stop that was asked for is no error
    if (world.rank() == 0) fmt::print(stderr, "{}{}\n", mark, error.what());
    return static_cast<int>(error.code());
  } catch (const Error& error) {
    return alone(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return alone(ExitCode::does_not_fit, "the host has no more memory: use fewer ranks per node or a smaller model");
  } catch (const std::filesystem::filesystem_error& error) {
    const Error named = path_error(error);
    return alone(named.code(), named.what());
  } catch (const std::exception& error) {
    return alone(ExitCode::failure, error.what());
  }
}

}  // namespace collimate
