// SPDX-License-Identifier: GPL-2.0-only
#include "pet_exclusions.h"

#include "atom.h"
#include "domain.h"
#include "group.h"
#include "neighbor.h"
#include "pointers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

using namespace LAMMPS_NS;

namespace pet {

namespace {

constexpr int group_all = 1; // bit of LAMMPS' group of all atoms

// Sums on all ranks of what each has counted.
template <size_t size>
std::map<std::array<int, size>, bigint>
sum_counts(MPI_Comm world, const std::map<std::array<int, size>, bigint> &own) {
  std::vector<bigint> mine;
  for (const auto &[key, count] : own) {
    mine.insert(mine.end(), key.begin(), key.end());
    mine.push_back(count);
  }
  const auto length = static_cast<int>(mine.size());
  int n_ranks = 1;
  MPI_Comm_size(world, &n_ranks);
  std::vector<int> lengths(n_ranks), starts(n_ranks, 0);
  MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, world);
  for (int rank = 1; rank < n_ranks; ++rank)
    starts[rank] = starts[rank - 1] + lengths[rank - 1];
  std::vector<bigint> gathered(starts.back() + lengths.back());
  MPI_Allgatherv(mine.data(), length, MPI_LMP_BIGINT, gathered.data(), lengths.data(),
                 starts.data(), MPI_LMP_BIGINT, world);
  std::map<std::array<int, size>, bigint> all;
  for (size_t k = 0; k < gathered.size(); k += size + 1) {
    std::array<int, size> key;
    std::transform(gathered.begin() + k, gathered.begin() + k + size, key.begin(),
                   [](bigint word) { return static_cast<int>(word); });
    all[key] += gathered[k + size];
  }
  return all;
}

// How many atoms of each kind there are on all ranks.
std::map<Kind, bigint> count_kinds(LAMMPS *lmp) {
  const Atom &atom = *lmp->atom;
  std::map<std::array<int, 2>, bigint> own;
  for (int i = 0; i < atom.nlocal; ++i)
    ++own[{atom.mask[i], atom.type[i]}];
  std::map<Kind, bigint> all;
  for (const auto &[key, count] : sum_counts(lmp->world, own))
    all[{key[0], key[1]}] = count;
  return all;
}

// Whether an atom has an image of its own within the cutoff.
bool sees_itself(const Domain &domain, double cutoff) {
  const double *h = domain.h, *g = domain.h_inv;
  // A triclinic box is as wide as its planes are apart.
  const double inverse_width[3] = {std::hypot(g[0], g[5], g[4]), std::hypot(g[1], g[3]), g[2]};
  int n[3];
  for (int k = 0; k < 3; ++k)
    n[k] = domain.periodicity[k] && k < domain.dimension
               ? static_cast<int>(std::floor(cutoff * inverse_width[k]))
               : 0;
  for (int a = -n[0]; a <= n[0]; ++a)
    for (int b = -n[1]; b <= n[1]; ++b)
      for (int c = -n[2]; c <= n[2]; ++c)
        if ((a != 0 || b != 0 || c != 0) &&
            std::hypot(a * h[0] + b * h[5] + c * h[4], b * h[1] + c * h[3], c * h[2]) < cutoff)
          return true;
  return false;
}

} // namespace

Rules::Rules(LAMMPS *lmp) {
  const Neighbor &neighbor = *lmp->neighbor;
  const int *const bit = lmp->group->bitmask;
  for (int k = 0; k < neighbor.nex_type; ++k)
    types_.push_back({neighbor.ex1_type[k], neighbor.ex2_type[k]});
  for (int k = 0; k < neighbor.nex_group; ++k)
    groups_.push_back({bit[neighbor.ex1_group[k]], bit[neighbor.ex2_group[k]]});
  for (int k = 0; k < neighbor.nex_mol; ++k)
    molecules_.push_back({bit[neighbor.ex_mol_group[k]], neighbor.ex_mol_intra[k] != 0});
}

bool Rules::of_molecules(int mask) const {
  return std::any_of(molecules_.begin(), molecules_.end(),
                     [&](const auto &rule) { return (mask & rule.group) != 0; });
}

Rules::Verdict Rules::exclude(const Kind &a, const Kind &b) const {
  for (const auto &[first, second] : types_)
    if ((a.type == first && b.type == second) || (a.type == second && b.type == first))
      return always;
  for (const auto &[first, second] : groups_)
    if ((a.mask & first && b.mask & second) || (a.mask & second && b.mask & first))
      return always;
  bool within = false, between = false; // molecules
  for (const auto &rule : molecules_)
    if (a.mask & b.mask & rule.group)
      (rule.within ? within : between) = true;
  if (within && between)
    return always;
  return within ? if_in_one_molecule : between ? if_in_two_molecules : never;
}

bool Rules::exclude_from_group_all(const Kind &a) const {
  return std::any_of(groups_.begin(), groups_.end(), [&](const auto &rule) {
    return (rule.second == group_all && a.mask & rule.first) ||
           (rule.first == group_all && a.mask & rule.second);
  });
}

Listing find_listing(LAMMPS *lmp) {
  const Atom &atom = *lmp->atom;
  Listing found{Rules(lmp), {}, {}};
  const bool masks = found.rules.any();
  found.kinds.reserve(atom.nlocal);
  for (int i = 0; i < atom.nlocal; ++i)
    found.kinds.push_back({masks ? atom.mask[i] : 0, atom.type[i]});
  if (found.rules.of_molecules() && atom.molecule != nullptr)
    found.molecules.assign(atom.molecule, atom.molecule + atom.nlocal);
  return found;
}

bool exclusions_in_force(LAMMPS *lmp, const std::vector<int64_t> &species) {
  const Rules rules(lmp);
  if (!rules.any())
    return false;
  std::vector<Kind> kinds;
  for (const auto &[kind, count] : count_kinds(lmp))
    if (species[kind.type] != 0)
      kinds.push_back(kind);
  return std::any_of(kinds.begin(), kinds.end(), [&](const Kind &a) {
    return std::any_of(kinds.begin(), kinds.end(),
                       [&](const Kind &b) { return rules.exclude(a, b) != Rules::never; });
  });
}

std::vector<char> excluded_from_all(LAMMPS *lmp, double cutoff) {
  const Rules rules(lmp);
  std::vector<char> excluded(lmp->atom->nlocal, 0);
  if (!rules.any())
    return excluded;
  const auto kinds = count_kinds(lmp);
  const bool with_images = sees_itself(*lmp->domain, cutoff);
  std::map<Kind, bool> found;
  for (const auto &[kind, count] : kinds) {
    // An atom that is the only one of its kind has no others of that kind, but perhaps images; it
    // is the whole system if it is alone.
    const bool is_only_one = count == 1 && kinds.size() > 1 && !with_images;
    found[kind] = rules.exclude_from_group_all(kind) ||
                  std::all_of(kinds.begin(), kinds.end(), [&, &kind = kind](const auto &other) {
                    return (is_only_one && other.first == kind) ||
                           rules.exclude(kind, other.first) == Rules::always;
                  });
  }
  for (int i = 0; i < lmp->atom->nlocal; ++i)
    excluded[i] = found.at({lmp->atom->mask[i], lmp->atom->type[i]});
  return excluded;
}

std::string find_stale_exclusions(LAMMPS *lmp, const Listing &before, const Listing &now) {
  const size_t n_own = std::min(before.kinds.size(), now.kinds.size());
  const auto key_of = [&](size_t i) {
    const Kind &a = before.kinds[i], &b = now.kinds[i];
    return std::array<int, 4>{a.mask, a.type, b.mask, b.type};
  };
  std::map<std::array<int, 4>, bigint> own;
  if (before.rules.any() || now.rules.any())
    for (size_t i = 0; i < n_own; ++i)
      ++own[key_of(i)];
  const auto all = sum_counts(lmp->world, own);
  // Kinds whose pairs with some other are treated in another way than they were.
  std::map<std::array<int, 4>, bool> is_stale;
  for (const auto &[a, count] : own)
    is_stale[a] = std::any_of(all.begin(), all.end(), [&, &a = a](const auto &other) {
      const auto &b = other.first;
      return before.rules.exclude({a[0], a[1]}, {b[0], b[1]}) !=
             now.rules.exclude({a[2], a[3]}, {b[2], b[3]});
    });
  for (size_t i = 0; i < n_own; ++i) {
    const auto found = is_stale.find(key_of(i));
    bool stale = before.rules == now.rules && found != is_stale.end() && found->second &&
                 before.kinds[i] != now.kinds[i];
    if (i < before.molecules.size() && i < now.molecules.size())
      stale = stale || (before.molecules[i] != now.molecules[i] &&
                        now.rules.of_molecules(now.kinds[i].mask));
    if (stale)
      return "atom " + std::to_string(lmp->atom->tag[i]) +
             " changed its type, group or molecule, so that neigh_modify exclude means other pairs "
             "than those left out of the neighbour lists";
  }
  const bool any =
      std::any_of(is_stale.begin(), is_stale.end(), [](const auto &entry) { return entry.second; });
  if (any && before.rules != now.rules)
    return "neigh_modify exclude changed, so that it means other pairs than those left out of the "
           "neighbour lists";
  return "";
}

} // namespace pet
