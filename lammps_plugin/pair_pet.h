// SPDX-License-Identifier: GPL-2.0-only
//
//   pair_style  pet [device auto|cpu|cuda|cuda:N] [dtype float64|float32|tf32|bf16-mixed]
//                   [chunk N] [charge Q] [spin M] [part all|plain|correction]
//   pair_coeff  * * model.pt El1 El2 ...        (one element, or NULL, per atom type)
//
// Energy, forces, global, per-atom and centroid virial of an exported PET model in units metal or
// real, for any box and any number of ranks; results do not depend on either. For multiple time
// stepping, the plain part (one frame for every atom) and what the ensemble adds to it, apart.
#ifdef PAIR_CLASS
// clang-format off
PairStyle(pet,PairPET);
// clang-format on
#else

#ifndef LMP_PAIR_PET_H
#define LMP_PAIR_PET_H

#include "pair.h"
#include "pet_graph.h"
#include "pet_model.h"

#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

class PairPET : public Pair {
public:
  explicit PairPET(class LAMMPS *lmp);
  ~PairPET() override;
  PairPET(const PairPET &) = delete;
  PairPET &operator=(const PairPET &) = delete;

  void settings(int narg, char **arg) override;
  void coeff(int narg, char **arg) override;
  void init_style() override;
  double init_one(int i, int j) override;
  void init_list(int id, class NeighList *list) override;
  void compute(int eflag, int vflag) override;

  int pack_reverse_comm(int n, int first, double *buf) override;
  void unpack_reverse_comm(int n, int *list, double *buf) override;

  void write_restart(FILE *fp) override;
  void read_restart(FILE *fp) override;
  void write_restart_settings(FILE *fp) override;
  void read_restart_settings(FILE *fp) override;
  double memory_usage() override;

private:
  // As the user wrote them.
  std::string device_ = "auto", dtype_, part_ = "all", path_;
  std::vector<std::string> elements_; // of the types 1 ... ntypes
  int charge_ = 0, spin_multiplicity_ = 1;
  bigint chunk_size_ = -1; // tokens held at once; 0 for no bound, -1 for a default
  bigint tokens_held_ = 0; // the same after the default has been chosen

  std::unique_ptr<pet::Model> model_;
  std::vector<int64_t> species_; // atomic number of each type, 0 for NULL
  double energy_unit_ = 1.0;     // LAMMPS' unit of energy per eV
  pet::Graph graph_;
  bigint graph_built_ = -1;       // time step of the neighbour list that graph_ is of
  std::vector<double> positions_; // of the nodes
  std::vector<double> of_ghosts_; // force and virial of every atom, to be sent to the owners
  std::vector<double> energies_, forces_, virial_, atomic_virials_; // of the correction

  void allocate();
  void load();
  std::pair<int, int> place_on_machine() const;
  std::string choose_device(int rank_of_machine) const;
  std::string devices_of_ranks() const;
  bigint default_chunk_size(int ranks_of_machine) const;
  void map_elements();
  void update_graph();
  void gather_positions();
  void check_part() const;
  pet::Result evaluate();
  pet::Result subtract_plain(const pet::Result &whole, const double *cell, bool atomic_virials);
  void check_finite(const pet::Result &result) const;
  void tally(const pet::Result &result);
  void tally_ghosts(const pet::Result &result);
  void add_to_atom(int i, const double *force, const double *virial);
  std::string read_string(FILE *fp);
  std::string agree(const std::string &problem) const;
};

} // namespace LAMMPS_NS

#endif
#endif
