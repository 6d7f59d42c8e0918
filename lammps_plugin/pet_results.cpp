// SPDX-License-Identifier: GPL-2.0-only
#include "pet_results.h"

#include <algorithm>

namespace pet {

namespace {

constexpr size_t columns_of_rank[] = {1, 3, 6};
constexpr size_t components_of_rank[] = {1, 3, 9};
// Where LAMMPS keeps the components of symmetric tensors, in matrices by rows.
constexpr size_t symmetric[] = {0, 4, 8, 1, 2, 5};

} // namespace

void Results::declare(const std::vector<Declaration> &declarations, int n_more) {
  fields_.clear();
  n_sums_ = n_more_ = n_more;
  for (const auto &declared : declarations) {
    fields_.push_back({declared, columns_of_rank[declared.rank], {}, {}});
    n_sums_ += static_cast<int>(columns_of_rank[declared.rank]);
  }
  sums_.resize(std::max<size_t>(n_sums_, sums_.size()));
  is_declared_ = true;
  clear(0);
}

bool Results::differ(const std::vector<Declaration> &declarations) const {
  return is_declared_ &&
         !std::equal(fields_.begin(), fields_.end(), declarations.begin(), declarations.end(),
                     [](const Field &field, const Declaration &declared) {
                       return field.declared == declared;
                     });
}

void Results::clear(size_t n_atoms) {
  std::fill(sums_.begin(), sums_.end(), 0.0);
  for (auto &field : fields_) {
    // Pointers must not be null where a rank has no atoms.
    const size_t n = std::max<size_t>(n_atoms, 1);
    field.values.assign(n * field.columns, 0.0);
    field.rows.resize(n);
    for (size_t i = 0; i < n; ++i)
      field.rows[i] = &field.values[i * field.columns];
  }
}

void Results::store(const Result &result, const std::vector<int> &atoms, int64_t n_own) {
  size_t first_sum = 0;
  for (size_t f = 0; f < fields_.size(); ++f) {
    Field &field = fields_[f];
    const size_t n_components = components_of_rank[field.declared.rank];
    for (int64_t k = 0; k < n_own; ++k) {
      const double *from = result.others[f] + n_components * k;
      double *to = field.rows[atoms[k]];
      for (size_t c = 0; c < field.columns; ++c) {
        to[c] = from[n_components == 9 ? symmetric[c] : c];
        sums_[first_sum + c] += to[c];
      }
    }
    first_sum += field.columns;
  }
}

void *Results::find(const std::string &name, int &columns) {
  for (auto &field : fields_)
    if (field.declared.name == name) {
      columns = field.columns == 1 ? 0 : static_cast<int>(field.columns);
      return field.columns == 1 ? static_cast<void *>(field.values.data())
                                : static_cast<void *>(field.rows.data());
    }
  return nullptr;
}

} // namespace pet
