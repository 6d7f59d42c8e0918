// SPDX-License-Identifier: GPL-2.0-only
// What `neigh_modify exclude` does to the atoms of a pair style.
#pragma once

#include "lmptype.h"

#include <cstdint>
#include <string>
#include <vector>

namespace LAMMPS_NS {
class LAMMPS;
} // namespace LAMMPS_NS

namespace pet {

// What exclusions distinguish atoms by, besides their molecules.
struct Kind {
  int mask = 0, type = 0;

  auto operator<=>(const Kind &) const = default;
};

// A copy of the rules.
class Rules {
public:
  Rules() = default;
  explicit Rules(LAMMPS_NS::LAMMPS *lmp);

  bool any() const { return !types_.empty() || !groups_.empty() || !molecules_.empty(); }
  // Whether there are some that compare molecules, and whether they apply to atoms of a mask.
  bool of_molecules() const { return !molecules_.empty(); }
  bool of_molecules(int mask) const;
  // Whether atoms of these kinds are never neighbours, always, or that is up to their molecules.
  enum Verdict { never, if_in_one_molecule, if_in_two_molecules, always };
  Verdict exclude(const Kind &a, const Kind &b) const;
  // Whether a rule takes the atoms of a kind out of the system, whatever the others are.
  bool exclude_from_group_all(const Kind &a) const;

  bool operator==(const Rules &) const = default;

private:
  struct Pair {
    int first, second; // types, or bits of groups
    bool operator==(const Pair &) const = default;
  };
  struct OfMolecules {
    int group; // its bit
    bool within;
    bool operator==(const OfMolecules &) const = default;
  };
  std::vector<Pair> types_, groups_;
  std::vector<OfMolecules> molecules_;
};

// All that says which own atoms are in which neighbour list, but for where they are.
struct Listing {
  Rules rules;
  std::vector<Kind> kinds;                  // masks are 0 if there are no rules
  std::vector<LAMMPS_NS::tagint> molecules; // empty if no rule asks for them

  bool operator==(const Listing &) const = default;
};
Listing find_listing(LAMMPS_NS::LAMMPS *lmp);

// Whether pairs of atoms of these types are excluded from neighbour lists; species has the atomic
// number of each LAMMPS type, 0 for other styles' types. Collective.
bool exclusions_in_force(LAMMPS_NS::LAMMPS *lmp, const std::vector<int64_t> &species);

// Which own atoms are excluded from all others, so that they do not belong to the system: by a
// group that is excluded from group all (as `fix gcmc` does with what it tries to delete), or by
// rules that, together, exclude them from every atom there is, images of their own within the
// cutoff too. Collective.
std::vector<char> excluded_from_all(LAMMPS_NS::LAMMPS *lmp, double cutoff);

// What is wrong with neighbour lists that were built for one listing, now that there is another;
// nothing if lists built now would leave out the same pairs. Collective, but the answer is that of
// this rank.
std::string find_stale_exclusions(LAMMPS_NS::LAMMPS *lmp, const Listing &before,
                                  const Listing &now);

} // namespace pet
