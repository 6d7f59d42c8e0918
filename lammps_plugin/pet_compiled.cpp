// SPDX-License-Identifier: GPL-2.0-only
// With pet_target, the counterpart of pet_mlip/export/compiled.py: keep both in step.
#include "pet_compiled.h"
#include "pet_model.h"
#include "pet_target.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/library.h>
#include <torch/version.h>

#include <dlfcn.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <tuple>
#include <type_traits>

namespace pet {

namespace {

using Loader = torch::inductor::AOTIModelPackageLoader;
using caffe2::serialize::PyTorchStreamReader;

const std::string target_record = "extra/pet_mlip_compiled.txt";

// Package, function, and index of the GPU (-1: CPU).
using Key = std::tuple<std::string, std::string, int64_t>;

std::map<Key, std::unique_ptr<Loader>> &opened() {
  static std::map<Key, std::unique_ptr<Loader>> functions;
  return functions;
}

// Older torch knows neither devices nor several runners.
template <typename L> std::unique_ptr<L> load(const std::string &path, c10::DeviceIndex device) {
  if constexpr (std::is_constructible_v<L, std::string, std::string, bool, size_t,
                                        c10::DeviceIndex>)
    return std::make_unique<L>(path, "model", false, 1, device);
  else
    throw Error("compiled packages need a newer torch than " TORCH_VERSION);
}

void open_function(const std::string &package, const std::string &function, const std::string &path,
                   int64_t device) {
  auto &slot = opened()[{package, function, device}];
  if (!slot)
    slot = load<Loader>(path, static_cast<c10::DeviceIndex>(device));
}

std::vector<at::Tensor> call_function(const std::string &package, const std::string &function,
                                      const std::vector<at::Tensor> &inputs) {
  const auto device = inputs.at(0).is_cuda() ? int64_t{inputs[0].get_device()} : int64_t{-1};
  return opened().at({package, function, device})->run(inputs);
}

// Python may have them in the same process already: then its own are used.
void register_operators() {
  const c10::OperatorName name("pet_mlip::call", "");
  if (c10::Dispatcher::singleton().findSchema(name).has_value())
    return;
  static torch::Library library(torch::Library::FRAGMENT, "pet_mlip", std::nullopt, __FILE__,
                                __LINE__);
  library.def("open(str package, str function, str path, int device) -> ()");
  library.def("call(str package, str function, Tensor[] inputs) -> Tensor[]");
  library.impl("open", torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd,
                                       TORCH_FN(open_function)));
  library.impl("call", torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd,
                                       [](std::string package, std::string function,
                                          std::vector<at::Tensor> inputs) {
                                         return call_function(package, function, inputs);
                                       }));
}

// Compute capability of a GPU such as 9.0, "-" for the CPU; nothing if the driver does not tell.
// Asked of the driver itself, since torch's headers for it need a CUDA toolkit.
std::string compute_capability(const at::Device &device) {
  if (!device.is_cuda())
    return "-";
  constexpr int major_attribute = 75, minor_attribute = 76;
  using Initialize = int (*)(unsigned int);
  using GetDevice = int (*)(int *, int);
  using GetAttribute = int (*)(int *, int, int);
  void *driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (driver == nullptr)
    return "";
  const auto initialize = reinterpret_cast<Initialize>(dlsym(driver, "cuInit"));
  const auto get_device = reinterpret_cast<GetDevice>(dlsym(driver, "cuDeviceGet"));
  const auto get = reinterpret_cast<GetAttribute>(dlsym(driver, "cuDeviceGetAttribute"));
  int index = 0, major = 0, minor = 0;
  if (initialize == nullptr || get_device == nullptr || get == nullptr || initialize(0) != 0 ||
      get_device(&index, device.index()) != 0 || get(&major, major_attribute, index) != 0 ||
      get(&minor, minor_attribute, index) != 0)
    return "";
  return std::to_string(major) + "." + std::to_string(minor);
}

// What Linux says about the CPU; nothing elsewhere.
std::set<std::string> cpu_flags() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("flags", 0) == 0 || line.rfind("Features", 0) == 0) {
      std::istringstream words(line.substr(line.find(':') + 1));
      return {std::istream_iterator<std::string>(words), {}};
    }
  return {};
}

Computer find_computer(const at::Device &device) {
  utsname system{};
  return {device.is_cuda() ? "cuda" : "cpu", TORCH_VERSION,
          uname(&system) == 0 ? system.machine : "", cpu_flags(), compute_capability(device)};
}

// A folder of its own, which disappears in the end.
class TemporaryFolder {
public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "pet_mlip.XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
      throw Error("no folder can be made in " + std::filesystem::temp_directory_path().string() +
                  ", where compiled functions are unpacked; set the environment variable TMPDIR");
    path = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;

  std::filesystem::path path;
};

} // namespace

std::string open_compiled(const std::string &path, const at::Device &device,
                          const std::string &dtype, const std::string &file_dtype) {
  std::string warning;
  try {
    PyTorchStreamReader reader(path);
    if (!reader.hasRecord(target_record))
      return "";
    const auto [text, text_size] = reader.getRecord(target_record);
    const auto target = parse_target({static_cast<const char *>(text.get()), text_size});
    warning = check_target(path, target, find_computer(device));
    if (!dtype.empty() && dtype != file_dtype)
      throw Error(path + " was compiled in " + file_dtype + ", so that it cannot run in " + dtype +
                  "; leave dtype out, or use the .pt file");
    register_operators();
    const auto open = c10::Dispatcher::singleton().findSchemaOrThrow("pet_mlip::open", "");
    const TemporaryFolder folder;
    for (const auto &name : target.functions) {
      const auto file = (folder.path / (name + ".pt2")).string();
      const auto [data, size] = reader.getRecord("extra/" + name + ".pt2");
      std::ofstream(file, std::ios::binary).write(static_cast<const char *>(data.get()), size);
      torch::jit::Stack arguments{target.package, name, file,
                                  device.is_cuda() ? int64_t{device.index()} : int64_t{-1}};
      open.callBoxed(arguments);
    }
  } catch (const Error &) {
    throw;
  } catch (const std::exception &error) {
    std::string message = error.what();
    throw Error("the compiled functions of " + path + " cannot be loaded (" +
                message.substr(0, message.find('\n')) +
                "); compile the .pt file again here with 'pet-mlip compile'");
  }
  return warning;
}

} // namespace pet
