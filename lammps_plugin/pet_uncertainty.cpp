// SPDX-License-Identifier: GPL-2.0-only
#include "pet_uncertainty.h"

#include <algorithm>
#include <cmath>

namespace pet {

void Uncertainty::declare(int64_t size, int64_t n_members) {
  size_ = size;
  n_members_ = n_members;
  clear(0, 0, 0);
}

void Uncertainty::forget() {
  for (Field *field : {&energy_, &force_})
    field->asked = field->on_trigger = field->trigger = 0;
}

void *Uncertainty::find(const std::string &name, bool outside_of_run) {
  for (Field *field : {&energy_, &force_})
    if (is_known() && name == field->name) {
      if (outside_of_run)
        ++field->asked;
      else if (level_ < field->level)
        throw Error("a fix pair reads " + name +
                    " in a step that has not computed it; after pair_style was given again, define "
                    "that fix anew");
      return field->values.data();
    }
  return nullptr;
}

void *Uncertainty::find_trigger(const std::string &name) {
  for (Field *field : {&energy_, &force_})
    if (is_known() && name == std::string(field->name) + "_flag") {
      ++field->on_trigger;
      return &field->trigger;
    }
  return nullptr;
}

int Uncertainty::wanted(bool of_whole) const {
  if (!is_known())
    return 0;
  return of_whole || force_.is_wanted() ? 2 : energy_.is_wanted() ? 1 : 0;
}

void Uncertainty::clear(int level, size_t n_own, size_t n_all) {
  level_ = level;
  n_own_ = static_cast<int>(n_own);
  energy_.values.assign(std::max<size_t>(n_own, 1), 0.0);
  force_.values.assign(std::max<size_t>(n_own, 1), 0.0);
  deviations_.assign(level > 1 ? n_components() * n_all : 0, 0.0);
  sum_.assign(size_, 0.0);
  largest_energy_ = largest_force_ = 0.0;
}

void Uncertainty::store(const Result &result, const std::vector<int> &atoms, int64_t n_own,
                        double unit) {
  for (int64_t k = 0; k < n_own; ++k) {
    const double *vector = result.vectors + size_ * k;
    double square = 0.0;
    for (int64_t c = 0; c < size_; ++c) {
      sum_[c] += unit * vector[c];
      square += vector[c] * vector[c];
    }
    energy_.values[atoms[k]] = unit * std::sqrt(square);
  }
  if (result.deviations == nullptr)
    return;
  for (int64_t m = 0; m < n_members_; ++m)
    for (size_t k = 0; k < atoms.size(); ++k)
      for (int a = 0; a < 3; ++a)
        deviations(atoms[k])[3 * m + a] +=
            unit * result.deviations[3 * (m * static_cast<int64_t>(atoms.size()) + k) + a];
}

void Uncertainty::finish(bool of_forces) {
  for (int i = 0; of_forces && i < n_own_; ++i) {
    const double *own = deviations(i);
    double square = 0.0;
    for (int64_t c = 0; c < n_components(); ++c)
      square += own[c] * own[c];
    force_.values[i] = std::sqrt(square / static_cast<double>(n_components()));
  }
  largest_energy_ = *std::max_element(energy_.values.begin(), energy_.values.end());
  largest_force_ = *std::max_element(force_.values.begin(), force_.values.end());
}

} // namespace pet
