#include "collimate/comm/launcher.hpp"

#include <fmt/format.h>

#include <cstdlib>

namespace collimate {

std::string missing_ranks(const std::function<const char*(const char*)>& variable) {
  const auto count = [&](const char* name) {
    const char* text = variable(name);
    return text ? std::atoi(text) : 0;
  };
  for (const char* size : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE"}) {
    if (count(size) > 1)
      return fmt::format("{} = {}, but MPI knows of one rank only, so every copy of this program would run alone: start it with the "
                         "mpirun (or srun --mpi=...) of the MPI library that it was built with, which collimate --version names",
                         size, count(size));
    if (count(size) == 1) return "";  // one on purpose: mpirun -n 1
  }
  for (const char* tasks : {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}) {
    if (count(tasks) > 1)
      return fmt::format("{} = {}, but MPI knows of one rank only: either srun has started copies without MPI ranks (give it "
                         "--mpi=pmix; srun --mpi=list says what there is), or the batch script lacks mpirun or srun in front of "
                         "collimate; for one rank on purpose use mpirun -n 1",
                         tasks, count(tasks));
    if (count(tasks) == 1) return "";
  }
  return "";
}

}  // namespace collimate
