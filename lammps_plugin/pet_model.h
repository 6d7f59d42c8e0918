// SPDX-License-Identifier: GPL-2.0-only
// What the pair style needs of a model: metadata, a topology now and then, forces every step.
// No LAMMPS and no torch in this header, so that another back end can stand behind it.
#pragma once

#include "pet_archive.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace pet {

// The neighbour list of a domain: what stays the same between two reneighbourings.
// Nodes are the domain's own atoms, then ghosts in the order of how many edges away they are. Edges
// lead from nodes to points: the nodes and, behind them, images of nodes that are none themselves.
struct Topology {
  std::vector<int64_t> species;      // atomic number of each node (N)
  std::vector<int64_t> centre;       // of each edge, ascending (E)
  std::vector<int64_t> neighbour;    // of each edge (E)
  std::vector<int64_t> ends;         // point where each edge ends (E)
  std::vector<int64_t> reverse;      // index of each edge's reverse (E); -1 where there is none
  std::vector<int64_t> atoms_within; // nodes at most 0, 1, ... edges away from the own atoms

  int64_t own_atoms() const { return atoms_within.empty() ? 0 : atoms_within[0]; }
};

// What is asked for besides energies, forces and the virial.
struct Wanted {
  bool atomic_virials = false;
  bool centroid_virials = false; // only where every point is a node
  int uncertainty = 0;           // 1: of energies, 2: of forces too
};

// Valid until the next call of the model; in eV and Angstrom.
struct Result {
  const double *energies = nullptr; // of the own atoms
  const double *forces = nullptr;   // (N, 3)
  const double *virial = nullptr;   // (3, 3): sum of r_ij (x) dE/dr_ij
  // (N, 3, 3), or null if not asked for: half of each edge for both of its atoms, and, of the
  // opposite sign, W_j = sum_k (r_k - r_j) (x) dE_k/dr_j.
  const double *atomic_virials = nullptr, *centroid_virials = nullptr;
  // Of the own atoms, in the order of Metadata::results: (N), (N, 3) or (N, 3, 3).
  std::vector<const double *> others;
  // Null if not asked for: vectors of the own atoms, as large as the metadata say, whose norms are
  // the uncertainties of energies, and that of a sum the uncertainty of a sum; and by how much the
  // forces of the members deviate, (members, N, 3).
  const double *vectors = nullptr, *deviations = nullptr;
};

class Model {
public:
  virtual ~Model() = default;

  virtual const Metadata &metadata() const = 0;
  // The device it runs on, e.g. "cpu" or "cuda:1".
  virtual std::string device() const = 0;
  // Take over a neighbour list; kept on the device until the next one.
  virtual void set_topology(const Topology &topology) = 0;
  // Total charge and spin multiplicity 2S + 1 of the whole system. Throws Error.
  virtual void set_electronic_state(int64_t charge, int64_t spin_multiplicity) = 0;
  // Energies and forces with the points at these places (P, 3), in Angstrom. chunk_size bounds the
  // attention tokens whose activations are held at once; 0 for no bound. Throws Error.
  virtual Result compute(const std::vector<double> &points, Wanted wanted, int64_t chunk_size) = 0;
};

// Memory that programs can take without swapping, in bytes; 0 where that is unknown.
double available_memory();

// Let the C library keep what this process frees, where it is glibc: it returns that to the system
// otherwise, and page faults for it take a tenth of each evaluation on a CPU.
void keep_freed_memory();

// How many GPUs torch sees.
int gpu_count();

// Number of threads that torch uses for one operation on the CPU.
void set_threads(int n_threads);

// Load an exported file. The device is "cpu" or "cuda:N"; dtype is that of the network, as in
// pet_mlip/engine/precision.py, or "" for that of the file. Throws Error.
std::unique_ptr<Model> load_model(const std::string &path, const std::string &device,
                                  const std::string &dtype);

} // namespace pet
