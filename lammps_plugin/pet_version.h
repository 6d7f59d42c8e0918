// SPDX-License-Identifier: GPL-2.0-only
// Version of the package that this code belongs to, as in pet_mlip/version.py.
#pragma once

namespace pet {

inline constexpr const char *version = "0.1.0";

} // namespace pet
