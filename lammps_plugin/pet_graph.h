// SPDX-License-Identifier: GPL-2.0-only
// The model's topology from LAMMPS' neighbour list.
#pragma once

#include "pet_model.h"

#include <vector>

namespace LAMMPS_NS {
class LAMMPS;
class NeighList;
} // namespace LAMMPS_NS

namespace pet {

// A topology, and which LAMMPS atom each of its nodes is.
struct Graph {
  Topology topology;
  std::vector<int> atoms; // local index of each node: own atoms, then ghosts
};

// Nodes and edges of a domain.
//
// On one rank a ghost is nothing but an image of an own atom: edges lead to the owner with a cell
// shift, and there are no ghosts among the nodes. On several ranks ghosts are nodes of their own.
//
// list         full neighbour list; on several ranks with the neighbours of ghosts too
// species      atomic number of each LAMMPS type (1 ... ntypes), 0 for types of other pair styles
// list_cutoff  pairs farther apart than this are left out, in LAMMPS' unit of length
// hops         cutoffs away that an atom can influence an atomic energy
//
// Throws pet::Error if an atom's ghost cannot be traced to its owner.
Graph build_graph(LAMMPS_NS::LAMMPS *lmp, LAMMPS_NS::NeighList *list,
                  const std::vector<int64_t> &species, double list_cutoff, int hops);

} // namespace pet
