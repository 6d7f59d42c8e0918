// SPDX-License-Identifier: GPL-2.0-only
// Which of its machine's ranks this one is, whichever LAMMPS they belong to.
#pragma once

namespace LAMMPS_NS {
class LAMMPS;
} // namespace LAMMPS_NS

namespace pet {

struct Place {
  int rank = 0;  // of this rank among those of its machine
  int ranks = 1; // of the machine
};

// Collective over the ranks of a LAMMPS, but not over other LAMMPS that share the machine
// (partitions, communicators that a program made, tasks without a common MPI), which need not come
// here: if the launcher's environment tells of more processes on the machine, it is believed; where
// it does not, all processes that MPI started are taken to share one machine.
Place place_on_machine(LAMMPS_NS::LAMMPS *lmp);

} // namespace pet
