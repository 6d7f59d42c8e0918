// SPDX-License-Identifier: GPL-2.0-only
//
//   pair_style  pet [device auto|cpu|cuda|cuda:N] [dtype float64|float32|tf32|bf16-mixed]
//                   [chunk N] [charge Q] [spin M]
//   pair_coeff  * * model.pt El1 El2 ...        (one element, or NULL, per atom type)
//
// Energy, forces, global, per-atom and centroid virial of an exported PET model in units metal or
// real, for any box and any number of ranks; results do not depend on either. What else the model
// predicts, and how uncertain it is, is found by name by 'fix pair', and its sums by 'compute pair'.
#ifdef PAIR_CLASS
// clang-format off
PairStyle(pet,PairPET);
// clang-format on
#else

#ifndef LMP_PAIR_PET_H
#define LMP_PAIR_PET_H

#include "pair.h"
#include "pet_exclusions.h"
#include "pet_graph.h"
#include "pet_model.h"
#include "pet_results.h"
#include "pet_uncertainty.h"

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
  void *extract(const char *name, int &dimension) override;
  void *extract_peratom(const char *name, int &columns) override;

  int pack_forward_comm(int n, int *list, double *buf, int pbc_flag, int *pbc) override;
  void unpack_forward_comm(int n, int first, double *buf) override;
  int pack_reverse_comm(int n, int first, double *buf) override;
  void unpack_reverse_comm(int n, int *list, double *buf) override;

  void write_restart(FILE *fp) override;
  void read_restart(FILE *fp) override;
  void write_restart_settings(FILE *fp) override;
  void read_restart_settings(FILE *fp) override;
  double memory_usage() override;

private:
  // The keywords of pair_style.
  struct Settings {
    std::string device = "auto", dtype;
    int charge = 0, spin_multiplicity = 1;
    bigint chunk_size = -1; // tokens held at once; 0 for no bound, -1 for a default
  };
  // The words of pair_coeff.
  struct Coefficients {
    std::string path;
    std::vector<std::string> elements; // of the types 1 ... ntypes
  };
  // A model as settings and coefficients want it.
  struct Loaded {
    std::unique_ptr<pet::Model> model;
    std::vector<int64_t> species; // atomic number of each type, 0 for NULL
    bigint tokens_held = 0;
  };

  Settings settings_;
  Coefficients coefficients_; // no path: none were given
  Loaded loaded_;             // no model: to be loaded before the next run
  bool is_set_up_ = false;    // for a run with these
  std::string source_;        // of the coefficients, for messages: the command or a restart file

  double energy_unit_ = 1.0; // LAMMPS' unit of energy per eV
  bool warned_of_exclusions_ = false;

  pet::Graph graph_, unfolded_;         // the latter for the heat flux of one step on one rank
  const pet::Graph *current_ = nullptr; // that of the two whose topology the model has
  bool has_graph_ = false;              // of the atoms as they are
  // The neighbour list that was seen last: the step that LAMMPS built it in, the count of its
  // lists, and a number made of all that is in it.
  bigint step_of_list_ = -1, count_of_list_ = -1;
  uint64_t content_of_list_ = 0;
  bool has_seen_list_ = false;   // since LAMMPS made its object
  bool was_initialized_ = false; // since the list was seen
  pet::Listing of_list_,
      of_graph_;                 // the atoms when the list was seen first; when the graph was made
  std::vector<int64_t> species_; // of each LAMMPS atom, 0 for those that are not the model's
  std::vector<char> excluded_;   // own atoms that are excluded from all others

  pet::Results results_;
  pet::Uncertainty uncertainty_;
  std::vector<double> points_;    // positions of the graph's points
  std::vector<double> of_ghosts_; // forces and virials of every atom, to be sent to the owners

  void allocate();
  void set_flags(const std::vector<std::string> &elements);
  Loaded load(const Settings &settings, const Coefficients &coefficients);
  void declare(const pet::Metadata &metadata);
  void announce();
  void check_dispersion() const;
  std::string choose_device(int rank_of_machine, const std::string &wanted) const;
  std::string devices_of_ranks() const;
  static bigint default_chunk_size(const pet::Model &model, int ranks_of_machine);
  std::vector<int64_t> find_species(const pet::Model &model,
                                    const Coefficients &coefficients) const;
  void check_communication() const;
  void warn_of_exclusions();
  void update_graph();
  bool list_is_new(uint64_t content) const;
  uint64_t content_of_list() const;
  void check_lists_of_types(const pet::Listing &now) const;
  void gather_points(const pet::Graph &graph);
  pet::Result evaluate(const pet::Graph &graph, pet::Wanted wanted);
  void tally_unfolded();
  void check_finite(const pet::Result &result) const;
  void tally(const pet::Result &result);
  void tally_ghosts(const pet::Result &result);
  void tally_uncertainty(const pet::Result &result, int level);
  void add_to_atom(int i, const double *force, const double *virial, const double *centroid);
  void add_centroid_virial(int i, const double *virial);
  int read_int(FILE *fp);
  bool read_line(const std::string &line);
  void refuse_restart(const std::string &found) const;
  std::string read_string(FILE *fp);
  std::string agree(const std::string &problem) const;
};

} // namespace LAMMPS_NS

#endif
#endif
