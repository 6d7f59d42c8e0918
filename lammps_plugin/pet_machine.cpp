// SPDX-License-Identifier: GPL-2.0-only
#include "pet_machine.h"

#include "comm.h"
#include "pointers.h"
#include "universe.h"

#include <cstdlib>

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

} // namespace

Place place_on_machine(LAMMPS *lmp) {
  const Universe &universe = *lmp->universe;
  if (universe.nworlds > 1) {
    for (const auto &[rank_name, size_name] : launchers) {
      const int rank = variable(rank_name), size = variable(size_name);
      if (0 <= rank && rank < size)
        return {rank, size};
    }
    return {universe.me, universe.nprocs};
  }
  Place place;
#if defined(MPI_VERSION) && MPI_VERSION >= 3 // LAMMPS' own stand-in for MPI has one rank only
  MPI_Comm machine;
  MPI_Comm_split_type(lmp->world, MPI_COMM_TYPE_SHARED, lmp->comm->me, MPI_INFO_NULL, &machine);
  MPI_Comm_rank(machine, &place.rank);
  MPI_Comm_size(machine, &place.ranks);
  MPI_Comm_free(&machine);
#endif
  return place;
}

} // namespace pet
