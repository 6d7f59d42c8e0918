// SPDX-License-Identifier: GPL-2.0-only
// How uncertain energies and forces are, as 'fix pair' (of atoms) and 'compute pair' (of the whole
// system) read it: standard deviations, of a force that of a component.
#pragma once

#include "pet_model.h"

#include <cstdint>
#include <string>
#include <vector>

namespace pet {

class Uncertainty {
public:
  // Number of values of the whole system.
  static constexpr int n_whole = 3;

  // Start anew with a model's vectors of this size and its number of members; zeros if it knows no
  // uncertainties.
  void declare(int64_t size, int64_t n_members);
  bool is_known() const { return size_ > 0; }
  int64_t size() const { return size_; }

  // What Pair::extract_peratom returns; null for another name. Outside of runs it is a fix pair
  // that is made, within them one that reads: throws Error if this step has not computed it.
  void *find(const std::string &name, bool outside_of_run);
  // Forget what fixes have asked for, of which there are none left.
  void forget();
  // What Pair::extract returns for 'NAME_flag': a fix pair sets it to 1 in the steps that it reads,
  // and not in others.
  void *find_trigger(const std::string &name);
  // 0, 1 or 2 in this step: nothing, energies, or forces too. Somebody may ask for the whole.
  int wanted(bool of_whole) const;

  // Begin a step at this level with zeros of this many own atoms and all that are here.
  void clear(int level, size_t n_own, size_t n_all);
  // Take over what the model said: its node k is the atom atoms[k]; in units of energy per eV.
  void store(const Result &result, const std::vector<int> &atoms, int64_t n_own, double unit);
  // Deviations of the forces on all atoms, of some members from the first on, to be added up over
  // the ranks: how many numbers of each atom, where those of an atom are.
  int64_t n_components() const { return 3 * n_members_; }
  double *deviations(int atom) { return &deviations_[n_components() * atom]; }
  // The sum over this rank's atoms of the vectors whose norm is the uncertainty of the energy.
  std::vector<double> &sum() { return sum_; }
  // With all sums complete: uncertainties of forces, and the largest of this rank's.
  void finish(bool of_forces);
  double largest_energy() const { return largest_energy_; }
  double largest_force() const { return largest_force_; }

private:
  struct Field {
    const char *name;
    int level;
    std::vector<double> values{0.0}; // of own atoms; never empty, since null means an unknown name
    int asked = 0, on_trigger = 0;   // by fixes; of these, only in steps in which they set trigger
    int trigger = 0;

    bool is_wanted() const { return trigger != 0 || asked > on_trigger; }
  };
  Field energy_{"energy_uncertainty", 1}, force_{"force_uncertainty", 2};
  int64_t size_ = 0, n_members_ = 0;
  int n_own_ = 0, level_ = 0;
  std::vector<double> sum_, deviations_;
  double largest_energy_ = 0.0, largest_force_ = 0.0;
};

} // namespace pet
