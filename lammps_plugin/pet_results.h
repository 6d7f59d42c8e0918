// SPDX-License-Identifier: GPL-2.0-only
// Results that are no energies, as 'fix pair' (of atoms) and 'compute pair' (sums) read them.
#pragma once

#include "pet_model.h"

#include <string>
#include <vector>

namespace pet {

class Results {
public:
  // Start anew with the results of a model, and room for more sums behind them.
  void declare(const std::vector<Declaration> &declarations, int n_more);
  bool is_declared() const { return is_declared_; }
  // Whether these are others than those declared before.
  bool differ(const std::vector<Declaration> &declarations) const;
  // Values of this many atoms, all zero, and sums that are zero.
  void clear(size_t n_atoms);
  // Take over what the model said: its own atom k is the atom atoms[k].
  void store(const Result &result, const std::vector<int> &atoms, int64_t n_own);
  // What Pair::extract_peratom returns: double * and 0 columns, or double ** and 3 or 6; null for a
  // name that the model does not have.
  void *find(const std::string &name, int &columns);
  // Sums over the atoms of this rank, of all results one after the other, then the room for more,
  // and how many there are.
  double *sums() { return sums_.data(); }
  double *more() { return sums_.data() + n_sums_ - n_more_; }
  int n_sums() const { return n_sums_; }

private:
  struct Field {
    Declaration declared;
    size_t columns;             // 1, 3, or 6: xx yy zz xy xz yz
    std::vector<double> values; // of all atoms
    std::vector<double *> rows; // where each atom's begin
  };
  std::vector<Field> fields_;
  // Never shorter than before: a compute pair that is there keeps reading as many.
  std::vector<double> sums_ = std::vector<double>(64);
  int n_sums_ = 0, n_more_ = 0;
  bool is_declared_ = false;
};

} // namespace pet
