// SPDX-License-Identifier: GPL-2.0-only
#include "pet_target.h"
#include "pet_archive.h"

#include <sstream>

namespace pet {

Target parse_target(const std::string &text) {
  Target target;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key;
    words >> key;
    if (key == "package")
      words >> target.package;
    else if (key == "device")
      words >> target.device;
    else if (key == "torch_version")
      words >> target.torch_version;
    else if (key == "machine")
      words >> target.machine;
    else if (key == "gpu")
      words >> target.gpu;
    else if (key == "functions" || key == "instructions")
      for (std::string word; words >> word;)
        (key == "functions" ? target.functions : target.instructions).push_back(word);
  }
  return target;
}

std::string check_target(const std::string &path, const Target &target, const Computer &here) {
  const std::string again = "; compile the .pt file again here with 'pet-mlip compile'";
  if (target.device != here.device)
    throw Error(path + " was compiled for device " + target.device + ", not for " + here.device +
                "; give pair_style pet 'device " + target.device +
                "', or use the .pt file, which runs everywhere");
  if (target.torch_version != here.torch_version)
    throw Error(path + " was compiled with torch " + target.torch_version +
                ", but this plugin was built with torch " + here.torch_version + again);
  // What cannot be found out is no reason to refuse a file that may be good.
  std::string unknown;
  const auto cannot_compare = [&](const std::string &what) {
    unknown += (unknown.empty() ? "" : ", ") + what;
  };
  if (here.machine.empty())
    cannot_compare("this kind of processor");
  else if (target.machine != here.machine)
    throw Error(path + " was compiled for another CPU (" + target.machine + ")" + again);
  if (here.instructions.empty() && !target.instructions.empty())
    cannot_compare("the instructions that this processor knows");
  else
    for (const auto &instruction : target.instructions)
      if (here.instructions.count(instruction) == 0)
        throw Error(path + " was compiled for another CPU (this one has no " + instruction + ")" +
                    again);
  if (here.gpu.empty())
    cannot_compare("the compute capability of this GPU (compiled for " + target.gpu + ")");
  else if (target.gpu != here.gpu)
    throw Error(path + " was compiled for GPUs of compute capability " + target.gpu +
                ", but this one has " + here.gpu + again);
  if (unknown.empty())
    return "";
  return path + " may have been compiled for another computer, because it cannot be found out: " +
         unknown + "; if it fails, compile the .pt file again here with 'pet-mlip compile'";
}

} // namespace pet
