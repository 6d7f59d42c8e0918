// SPDX-License-Identifier: GPL-2.0-only
// Registers pair_style pet with the LAMMPS that loads this plugin, if it was built for that one.
#include "pair_pet.h"

#include "library.h"

#include <cstdio>
#include <string>

using LAMMPS_NS::LAMMPS;
using LAMMPS_NS::PairPET;

namespace {

// As in LAMMPS' lammpsplugin.h, which installations do not carry.
struct Plugin {
  const char *version, *style, *name, *info, *author;
  union {
    void *(*pair)(LAMMPS *);
  } creator;
  void *handle;
};
using Register = void (*)(Plugin *, void *);

// "22 Jul 2025" for 20250722.
std::string version_text(int version) {
  static constexpr const char *months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                           "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return std::to_string(version % 100) + " " + months[version / 100 % 100 - 1] + " " +
         std::to_string(version / 10000);
}

void *make_pair(LAMMPS *lmp) {
  return new PairPET(lmp);
}

// Classes change from release to release: in another LAMMPS this would crash, so say why not.
// Only functions of the C library interface are safe to call before this is known.
bool fits(void *lmp) {
  const int version = lammps_version(lmp), tag_size = lammps_extract_setting(lmp, "tagint"),
            big_size = lammps_extract_setting(lmp, "bigint");
  if (version == PET_LAMMPS_VERSION && tag_size == sizeof(LAMMPS_NS::tagint) &&
      big_size == sizeof(LAMMPS_NS::bigint))
    return true;
  fprintf(stderr,
          "ERROR: the pair_style pet plugin was built for LAMMPS %s with %d-bit atom IDs, but this "
          "is LAMMPS %s with %d-bit atom IDs; run 'pet-mlip lammps build' for it. The plugin is "
          "not loaded.\n",
          version_text(PET_LAMMPS_VERSION).c_str(), static_cast<int>(8 * sizeof(LAMMPS_NS::tagint)),
          version_text(version).c_str(), 8 * tag_size);
  return false;
}

} // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle,
                                                                         void *regfunc) {
  if (!fits(lmp))
    return;
  static const std::string version = version_text(PET_LAMMPS_VERSION);
  Plugin plugin{};
  plugin.version = version.c_str();
  plugin.style = "pair";
  plugin.name = "pet";
  plugin.info = "PET potentials with exact rotational symmetry (pet_mlip)";
  plugin.author = "The pet_mlip developers";
  plugin.creator.pair = &make_pair;
  plugin.handle = handle;
  reinterpret_cast<Register>(regfunc)(&plugin, lmp);
}
