// SPDX-License-Identifier: GPL-2.0-only
// Puts values into a text. LAMMPS' own functions for it belong to the fmt library or to C++20's
// std::format, whichever LAMMPS was compiled with, and the plugin's compiler may choose the other.
#pragma once

#include <sstream>
#include <string>
#include <string_view>

namespace pet {

// The text with each {} replaced by the next value.
template <typename... Values> std::string text(std::string_view pattern, const Values &...values) {
  std::ostringstream out;
  const auto put = [&](const auto &value) {
    const size_t place = pattern.find("{}");
    out << pattern.substr(0, place) << value;
    pattern.remove_prefix(place == pattern.npos ? pattern.size() : place + 2);
  };
  (put(values), ...);
  out << pattern;
  return out.str();
}

} // namespace pet
