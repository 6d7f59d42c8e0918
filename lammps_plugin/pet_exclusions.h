// SPDX-License-Identifier: GPL-2.0-only
// What `neigh_modify exclude` does to the atoms of a pair style.
#pragma once

#include <cstdint>
#include <vector>

namespace LAMMPS_NS {
class LAMMPS;
} // namespace LAMMPS_NS

namespace pet {

// Whether pairs of atoms of these types are excluded from neighbour lists; species has the atomic
// number of each LAMMPS type, 0 for other styles' types. Collective.
bool exclusions_in_force(LAMMPS_NS::LAMMPS *lmp, const std::vector<int64_t> &species);

// Which own atoms are excluded from all others, so that they do not belong to the system: by a
// group that is excluded from group all (as `fix gcmc` does with what it tries to delete), or by
// rules that, together, exclude them from every atom there is. Collective.
std::vector<char> excluded_from_all(LAMMPS_NS::LAMMPS *lmp);

} // namespace pet
