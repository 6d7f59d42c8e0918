// SPDX-License-Identifier: GPL-2.0-only
// What the pair style needs of a model: metadata, a topology now and then, forces every step.
// No LAMMPS and no torch in this header, so that another back end can stand behind it.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace pet {

// A mistake of the user, or a limit of the machine, in one sentence.
class Error : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

// What an exported file says about itself.
struct Metadata {
  int format_version = 0;
  std::string package_version;
  std::string dtype;            // of the network: float64, float32, tf32 or bf16-mixed
  std::vector<int64_t> species; // atomic numbers the model knows
  double cutoff = 0.0;          // Angstrom
  int interaction_range = 0;    // how many cutoffs away an atom can influence an atomic energy
  std::string ensemble;         // of frames that it averages over; "none" for a plain model
  std::string train;            // the frames that it was trained in
  // Limits of the electronic state that the model depends on; 0 if it does not.
  int64_t max_charge = 0, max_spin_multiplicity = 0;
  double bytes_per_token = 0.0; // of activations, in the file's dtype
};

// The neighbour list of a domain: what stays the same between two reneighbourings.
// Nodes are the domain's own atoms, then ghosts in the order of how many edges away they are.
struct Topology {
  std::vector<int64_t> species;      // atomic number of each node (N)
  std::vector<int64_t> centre;       // of each edge, ascending (E)
  std::vector<int64_t> neighbour;    // of each edge (E)
  std::vector<double> shifts;        // cell shifts of each edge (3 E)
  std::vector<int64_t> reverse;      // index of each edge's reverse (E); -1 where there is none
  std::vector<int64_t> atoms_within; // nodes at most 0, 1, ... edges away from the own atoms

  int64_t own_atoms() const { return atoms_within.empty() ? 0 : atoms_within[0]; }
};

// Valid until the next call of the model; in eV and Angstrom.
struct Result {
  const double *energies = nullptr;       // of the own atoms
  const double *forces = nullptr;         // (N, 3)
  const double *virial = nullptr;         // (3, 3): sum of r_ij (x) dE/dr_ij
  const double *atomic_virials = nullptr; // (N, 3, 3), or null if not asked for
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
  // Energies and forces at positions (N, 3) in a cell (3, 3; vectors as rows), in Angstrom.
  // chunk_size bounds the attention tokens whose activations are held at once; 0 for no bound. A
  // plain evaluation takes one frame for every atom, the identity, instead of the ensemble.
  virtual Result compute(const double *positions, const double *cell, bool atomic_virials,
                         int64_t chunk_size, bool plain) = 0;
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
// pet_mlip/inference/precision.py, or "" for that of the file. Throws Error.
std::unique_ptr<Model> load_model(const std::string &path, const std::string &device,
                                  const std::string &dtype);

} // namespace pet
