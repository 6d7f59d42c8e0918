// SPDX-License-Identifier: GPL-2.0-only
#include "pet_exclusions.h"

#include "atom.h"
#include "group.h"
#include "neighbor.h"
#include "pointers.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

using namespace LAMMPS_NS;

namespace pet {

namespace {

constexpr int group_all = 0; // index of LAMMPS' group of all atoms

// What exclusions distinguish atoms by, besides their molecules.
struct Kind {
  int mask, type;

  bool operator<(const Kind &other) const {
    return std::tie(mask, type) < std::tie(other.mask, other.type);
  }
  bool operator==(const Kind &) const = default;
};

class Rules : protected Pointers {
public:
  explicit Rules(LAMMPS *lmp) : Pointers(lmp) {}

  bool any() const {
    return neighbor->nex_type > 0 || neighbor->nex_group > 0 || neighbor->nex_mol > 0;
  }

  Kind kind(int i) const { return {atom->mask[i], atom->type[i]}; }

  // Whether atoms of these kinds are never neighbours.
  bool exclude(const Kind &a, const Kind &b) const {
    for (int k = 0; k < neighbor->nex_type; ++k) {
      const int first = neighbor->ex1_type[k], second = neighbor->ex2_type[k];
      if ((a.type == first && b.type == second) || (a.type == second && b.type == first))
        return true;
    }
    for (int k = 0; k < neighbor->nex_group; ++k) {
      const int first = bit(neighbor->ex1_group[k]), second = bit(neighbor->ex2_group[k]);
      if ((a.mask & first && b.mask & second) || (a.mask & second && b.mask & first))
        return true;
    }
    bool within = false, between = false; // molecules
    for (int k = 0; k < neighbor->nex_mol; ++k)
      if (a.mask & bit(neighbor->ex_mol_group[k]) && b.mask & bit(neighbor->ex_mol_group[k]))
        (neighbor->ex_mol_intra[k] ? within : between) = true;
    return within && between;
  }

  // Whether a rule takes the atoms of a kind out of the system, whatever the others are.
  bool exclude_from_group_all(const Kind &a) const {
    for (int k = 0; k < neighbor->nex_group; ++k) {
      const int first = neighbor->ex1_group[k], second = neighbor->ex2_group[k];
      if ((second == group_all && a.mask & bit(first)) ||
          (first == group_all && a.mask & bit(second)))
        return true;
    }
    return false;
  }

  // How many atoms of each kind there are on all ranks.
  std::map<Kind, bigint> count_kinds() const {
    std::map<Kind, bigint> own, all;
    for (int i = 0; i < atom->nlocal; ++i)
      ++own[kind(i)];
    std::vector<bigint> mine;
    for (const auto &[kind, count] : own)
      mine.insert(mine.end(), {kind.mask, kind.type, count});
    const auto size = static_cast<int>(mine.size());
    int n_ranks = 1;
    MPI_Comm_size(world, &n_ranks);
    std::vector<int> sizes(n_ranks), starts(n_ranks, 0);
    MPI_Allgather(&size, 1, MPI_INT, sizes.data(), 1, MPI_INT, world);
    for (int rank = 1; rank < n_ranks; ++rank)
      starts[rank] = starts[rank - 1] + sizes[rank - 1];
    std::vector<bigint> gathered(starts.back() + sizes.back());
    MPI_Allgatherv(mine.data(), size, MPI_LMP_BIGINT, gathered.data(), sizes.data(), starts.data(),
                   MPI_LMP_BIGINT, world);
    for (size_t k = 0; k < gathered.size(); k += 3)
      all[{static_cast<int>(gathered[k]), static_cast<int>(gathered[k + 1])}] += gathered[k + 2];
    return all;
  }

private:
  int bit(int index) const { return group->bitmask[index]; }
};

} // namespace

bool exclusions_in_force(LAMMPS *lmp, const std::vector<int64_t> &species) {
  const Rules rules(lmp);
  if (!rules.any())
    return false;
  std::vector<Kind> kinds;
  for (const auto &[kind, count] : rules.count_kinds())
    if (species[kind.type] != 0)
      kinds.push_back(kind);
  const auto *const neighbor = lmp->neighbor;
  const auto *const group = lmp->group;
  const auto in_force = [&](const Kind &a, const Kind &b) {
    if (rules.exclude(a, b))
      return true;
    for (int k = 0; k < neighbor->nex_mol; ++k)
      if (a.mask & b.mask & group->bitmask[neighbor->ex_mol_group[k]])
        return true;
    return false;
  };
  return std::any_of(kinds.begin(), kinds.end(), [&](const Kind &a) {
    return std::any_of(kinds.begin(), kinds.end(), [&](const Kind &b) { return in_force(a, b); });
  });
}

std::vector<char> excluded_from_all(LAMMPS *lmp) {
  const Rules rules(lmp);
  std::vector<char> excluded(lmp->atom->nlocal, 0);
  if (!rules.any())
    return excluded;
  const auto kinds = rules.count_kinds();
  std::map<Kind, bool> found;
  for (const auto &[kind, count] : kinds) {
    // An atom that is the only one of its kind has no others of that kind, but images if it is
    // alone.
    const bool is_only_one = count == 1 && kinds.size() > 1;
    found[kind] = rules.exclude_from_group_all(kind) ||
                  std::all_of(kinds.begin(), kinds.end(), [&](const auto &other) {
                    return (is_only_one && other.first == kind) || rules.exclude(kind, other.first);
                  });
  }
  for (int i = 0; i < lmp->atom->nlocal; ++i)
    excluded[i] = found.at(rules.kind(i));
  return excluded;
}

} // namespace pet
