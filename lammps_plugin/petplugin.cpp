// SPDX-License-Identifier: GPL-2.0-only
// Registers pair_style pet with the LAMMPS that loads this plugin, if it was built for that one.
#include "pair_pet.h"

#include "library.h"

#include <cstdio>
#include <string>
#include <string_view>

#ifdef __linux__
#include <link.h>
#endif

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

// The release as `lmp -h` says it, "22 Jul 2025 - Update 4"; empty if whoever compiled this did not
// say it.
#ifndef PET_LAMMPS_RELEASE
#define PET_LAMMPS_RELEASE ""
#endif
const std::string built_for = PET_LAMMPS_RELEASE;

#ifdef __linux__

// Finds the object that `address` lies in, and the text that follows `mark` in it.
struct Search {
  std::string_view mark;
  ElfW(Addr) address;
  std::string found;
};

int search_object(dl_phdr_info *object, size_t, void *data) {
  auto &search = *static_cast<Search *>(data);
  bool here = false;
  for (int k = 0; k < object->dlpi_phnum; k++) {
    const auto &part = object->dlpi_phdr[k];
    here = here || (part.p_type == PT_LOAD &&
                    search.address - object->dlpi_addr - part.p_vaddr < part.p_memsz);
  }
  if (!here)
    return 0;
  for (int k = 0; k < object->dlpi_phnum; k++) {
    const auto &part = object->dlpi_phdr[k];
    if (part.p_type != PT_LOAD || !(part.p_flags & PF_R) || (part.p_flags & PF_W))
      continue;
    const std::string_view text(reinterpret_cast<const char *>(object->dlpi_addr + part.p_vaddr),
                                part.p_filesz);
    const size_t start = text.find(search.mark);
    if (start == text.npos)
      continue;
    const size_t from = start + search.mark.size();
    const size_t end = text.find_first_of(std::string_view("\n\0", 2), from);
    if (end != text.npos)
      search.found = text.substr(from, end - from);
    break;
  }
  return 1;
}

// What the running LAMMPS calls itself, update included; empty if that cannot be told. No function
// of the C library tells updates apart, and classes change from one to the next: the words of
// `lmp -h` do.
std::string running_release() {
  Search search{
      "Massively Parallel Simulator - ", reinterpret_cast<ElfW(Addr)>(&lammps_version), {}};
  dl_iterate_phdr(&search_object, &search);
  return search.found;
}

#else

std::string running_release() {
  return {};
}

#endif

void *make_pair(LAMMPS *lmp) {
  return new PairPET(lmp);
}

// Classes change from release to release: in another LAMMPS this would crash, so say why not.
// Only functions of the C library interface are safe to call before this is known.
bool fits(void *lmp) {
  const int version = lammps_version(lmp), tag_size = lammps_extract_setting(lmp, "tagint"),
            big_size = lammps_extract_setting(lmp, "bigint");
  const std::string release = running_release();
  const bool same_release = built_for.empty() || release.empty() || built_for == release;
  if (version == PET_LAMMPS_VERSION && same_release && tag_size == sizeof(LAMMPS_NS::tagint) &&
      big_size == sizeof(LAMMPS_NS::bigint))
    return true;
  fprintf(stderr,
          "ERROR: the pair_style pet plugin was built for LAMMPS %s with %d-bit atom IDs, but this "
          "is LAMMPS %s with %d-bit atom IDs; run 'pet-mlip lammps build' for it. The plugin is "
          "not loaded.\n",
          (built_for.empty() ? version_text(PET_LAMMPS_VERSION) : built_for).c_str(),
          static_cast<int>(8 * sizeof(LAMMPS_NS::tagint)),
          (release.empty() ? version_text(version) : release).c_str(), 8 * tag_size);
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
