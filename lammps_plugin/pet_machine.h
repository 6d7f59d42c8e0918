// SPDX-License-Identifier: GPL-2.0-only
// Which of its machine's ranks this one is, whichever partition of LAMMPS they belong to.
#pragma once

namespace LAMMPS_NS {
class LAMMPS;
} // namespace LAMMPS_NS

namespace pet {

struct Place {
  int rank = 0;  // of this rank among those of its machine
  int ranks = 1; // of the machine
};

// Collective over the ranks of a partition, but not over partitions, which need not all come here:
// with several of them, the launcher's environment tells; where it does not, all are taken to
// share one machine.
Place place_on_machine(LAMMPS_NS::LAMMPS *lmp);

} // namespace pet
