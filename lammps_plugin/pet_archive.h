// SPDX-License-Identifier: GPL-2.0-only
// What an exported file says about itself. The counterpart of pet_mlip/export/metadata.py:
// tests/lammps/test_lammps_files.py holds both to the same answers.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace pet {

// A mistake of the user, or a limit of the machine, in one sentence.
class Error : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

// A result that is no energy.
struct Declaration {
  std::string name;
  int rank = 0; // 0: scalar, 1: vector, 2: symmetric tensor

  bool operator==(const Declaration &other) const {
    return name == other.name && rank == other.rank;
  }
};

struct Metadata {
  int format_version = 0;
  std::string package_version;
  std::string dtype;            // of the network: float64, float32, tf32 or bf16-mixed
  std::vector<int64_t> species; // atomic numbers the model knows
  double cutoff = 0.0;          // Angstrom
  int interaction_range = 0;    // how many cutoffs away an atom can influence an atomic energy
  std::string orientations;     // of whole structures that it should be averaged over, or "none"
  // Limits of the electronic state that the model depends on; 0 if it does not.
  int64_t max_charge = 0, max_spin_multiplicity = 0;
  std::string subtracted;       // what its labels lacked, as in d3(PBE, d3bj); empty for nothing
  double bytes_per_token = 0.0; // of activations, in the file's dtype
  std::vector<Declaration> results;
  // Members, and the size of the vectors whose norms are uncertainties; 0 if it knows none.
  int64_t uncertainty_members = 0, uncertainty_size = 0;
};

// Whether LAMMPS' keyword or a file may name this precision.
bool is_precision(const std::string &dtype);
// Whether products round their factors in this one.
bool rounds(const std::string &dtype);

// Throws Error if the file is missing, damaged anywhere, no exported model, of another format than
// this code's, or one that LAMMPS cannot run.
Metadata read_metadata(const std::string &path);

} // namespace pet
