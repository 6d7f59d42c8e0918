// SPDX-License-Identifier: GPL-2.0-only
// Packages (model.pt2): exported files whose expensive parts are machine code in the archive.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace pet {

// Make the compiled functions of a package known to its code, before that is loaded; does nothing
// for other exported files. The precision is the one asked for, or "". Throws Error if the package
// was compiled for another computer, device, precision or torch; returns a warning if that could
// not be found out, else nothing.
std::string open_compiled(const std::string &path, const at::Device &device,
                          const std::string &dtype, const std::string &file_dtype);

} // namespace pet
