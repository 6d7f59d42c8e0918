// SPDX-License-Identifier: GPL-2.0-only
// What a package was compiled for, and whether that is this computer. No torch in here.
#pragma once

#include <set>
#include <string>
#include <vector>

namespace pet {

struct Target {
  std::string package, device, torch_version, machine, gpu;
  std::vector<std::string> functions, instructions;
};

Target parse_target(const std::string &text);

// What is known about this computer, and the device that was chosen.
struct Computer {
  std::string device; // cpu or cuda
  std::string torch_version;
  std::string machine;                // of the processor; empty if unknown
  std::set<std::string> instructions; // of the processor; empty if unknown
  std::string gpu;                    // its compute capability, "-" for the CPU; empty if unknown
};

// Throws Error if they do not fit. Returns a sentence about what could not be compared, or nothing.
std::string check_target(const std::string &path, const Target &target, const Computer &here);

} // namespace pet
