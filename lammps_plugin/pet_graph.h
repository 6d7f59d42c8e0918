// SPDX-License-Identifier: GPL-2.0-only
// The model's topology from LAMMPS' neighbour list.
#pragma once

#include "pet_model.h"

#include <array>
#include <vector>

namespace LAMMPS_NS {
class LAMMPS;
class NeighList;
} // namespace LAMMPS_NS

namespace pet {

// A topology, and which LAMMPS atoms its nodes and points are.
struct Graph {
  Topology topology;
  std::vector<int> atoms;                // LAMMPS atom that each node is, or is an image of
  std::vector<int> points;               // LAMMPS atom that each point is, or is an image of
  std::vector<std::array<int, 3>> cells; // how many cells away each image is; empty: points are
                                         // where their LAMMPS atoms are
};

// The model's part of LAMMPS' atoms: what `build_graph` reads.
struct Atoms {
  // Atomic number of each LAMMPS atom, ghosts too but on one rank; 0 if it is not the model's.
  std::vector<int64_t> species;
  double list_cutoff; // pairs farther apart than this are left out, in Angstrom
  int hops;           // cutoffs away that an atom can influence an atomic energy
};

// Nodes and edges of a domain.
//
// On one rank a ghost is nothing but an image of an own atom: messages come from the owner, edges
// end at the ghost, and there are no ghosts among the nodes. On several ranks ghosts are nodes of
// their own. The list is a full one; on several ranks with the neighbours of ghosts too.
//
// Throws pet::Error if an atom's ghost cannot be traced to its owner.
Graph build_graph(LAMMPS_NS::LAMMPS *lmp, LAMMPS_NS::NeighList *list, const Atoms &atoms);

// On one rank: the same with images among the nodes, as if they were ghosts on several ranks.
Graph build_unfolded_graph(LAMMPS_NS::LAMMPS *lmp, LAMMPS_NS::NeighList *list, const Atoms &atoms);

} // namespace pet
