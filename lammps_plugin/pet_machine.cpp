// SPDX-License-Identifier: GPL-2.0-only
#include "pet_machine.h"

#include "comm.h"
#include "pointers.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

using namespace LAMMPS_NS;

namespace pet {

namespace {

// Environment variables of launchers: this process among those of its machine, and their number.
constexpr const char *launchers[][2] = {
    {"MPI_LOCALRANKID", "MPI_LOCALNRANKS"}, // MPICH, Intel MPI
    {"OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"},
    {"PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"},
};

// Its value, or -1.
int variable(const char *name) {
  const char *text = std::getenv(name);
  if (text == nullptr || *text == '\0')
    return -1;
  char *end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return *end == '\0' ? static_cast<int>(value) : -1;
}

// How many tasks a node has in Slurm's list, such as 4(x2),3 for three nodes, or -1.
int tasks_of_node(const char *list, int node) {
  if (list == nullptr || node < 0)
    return -1;
  std::istringstream entries(list);
  for (std::string entry; std::getline(entries, entry, ',');) {
    int tasks = 0, nodes = 1;
    if (std::sscanf(entry.c_str(), "%d(x%d)", &tasks, &nodes) < 1)
      return -1;
    if (node < nodes)
      return tasks;
    node -= nodes;
  }
  return -1;
}

// From the launcher's variables; no ranks if it has set none.
Place place_of_launcher(int ranks_of_mpi) {
  for (const auto &[rank_name, size_name] : launchers) {
    const int rank = variable(rank_name), size = variable(size_name);
    if (0 <= rank && rank < size)
      return {rank, size};
  }
  // Slurm's, unless another launcher started more ranks within its job.
  const int rank = variable("SLURM_LOCALID");
  const int size =
      tasks_of_node(std::getenv("SLURM_STEP_TASKS_PER_NODE"), variable("SLURM_NODEID"));
  if (0 <= rank && rank < size && ranks_of_mpi <= variable("SLURM_STEP_NUM_TASKS"))
    return {rank, size};
  return {0, 0};
}

} // namespace

Place place_on_machine(LAMMPS *lmp) {
  Place place, started;
#if defined(MPI_VERSION) && MPI_VERSION >= 3 // LAMMPS' own stand-in for MPI has one rank only
  MPI_Comm machine;
  MPI_Comm_split_type(lmp->world, MPI_COMM_TYPE_SHARED, lmp->comm->me, MPI_INFO_NULL, &machine);
  MPI_Comm_rank(machine, &place.rank);
  MPI_Comm_size(machine, &place.ranks);
  MPI_Comm_free(&machine);
#endif
  MPI_Comm_rank(MPI_COMM_WORLD, &started.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &started.ranks);
  const Place launched = place_of_launcher(started.ranks);
  if (launched.ranks >= place.ranks)
    return launched.ranks > place.ranks ? launched : place;
  return started.ranks > lmp->comm->nprocs ? started : place;
}

} // namespace pet
