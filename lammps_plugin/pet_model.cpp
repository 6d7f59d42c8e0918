// SPDX-License-Identifier: GPL-2.0-only
#include "pet_model.h"

#include <ATen/Parallel.h>
#include <torch/csrc/jit/python/update_graph_executor_opt.h>
#include <torch/cuda.h>
#include <torch/script.h>
#include <torch/version.h>

#include <cstdlib>
#include <fstream>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace pet {

namespace {

// c10's messages carry a backtrace and the TorchScript source; the last line says what is wrong.
std::string last_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' '))
    text.pop_back();
  const auto end = text.rfind('\n');
  return end == std::string::npos ? text : text.substr(end + 1);
}

at::Tensor copy_of(const std::vector<int64_t> &values, const at::Device &device) {
  const auto size = static_cast<int64_t>(values.size());
  return torch::tensor(values, torch::kInt64).reshape({size}).to(device);
}

// Of one number that the derivative needs.
double size_of_number(const std::string &dtype) {
  return dtype == "float64" ? 8.0 : dtype == "bf16-mixed" ? 2.0 : 4.0;
}

// The counterpart of pet_mlip/engine/precision.py: keep both in step.
void set_precision(torch::jit::Module network, const std::string &dtype) {
  network.to(dtype == "float64" ? torch::kFloat64 : torch::kFloat32);
  if (!rounds(dtype))
    return;
  for (auto module : network.attr("layers").toModule().modules())
    if (module.hasattr("rounding"))
      module.setattr("rounding", true);
  if (dtype == "bf16-mixed")
    for (const auto *const part : {"layers", "exchanges"})
      for (auto module : network.attr(part).toModule().modules())
        if (module.attr("rounds", false).toBool())
          module.to(torch::kBFloat16);
}

// As torch.jit.optimized_execution(False): optimising takes up to a second in the first calls, and
// gains nothing afterwards here.
class WithoutOptimiser {
public:
  WithoutOptimiser() : before_(torch::jit::getGraphExecutorOptimize()) {
    torch::jit::setGraphExecutorOptimize(false);
  }
  ~WithoutOptimiser() { torch::jit::setGraphExecutorOptimize(before_); }
  WithoutOptimiser(const WithoutOptimiser &) = delete;
  WithoutOptimiser &operator=(const WithoutOptimiser &) = delete;

private:
  bool before_;
};

// What matrix products round their factors to, which is global to torch.
class MatrixProducts {
public:
  explicit MatrixProducts(const std::string &dtype)
      : before_(at::globalContext().float32MatmulPrecision()) {
    at::globalContext().setFloat32MatmulPrecision(rounds(dtype) ? "high" : "highest");
  }
  ~MatrixProducts() {
    using Precision = at::Float32MatmulPrecision;
    at::globalContext().setFloat32MatmulPrecision(before_ == Precision::HIGHEST ? "highest"
                                                  : before_ == Precision::HIGH  ? "high"
                                                                                : "medium");
  }
  MatrixProducts(const MatrixProducts &) = delete;
  MatrixProducts &operator=(const MatrixProducts &) = delete;

private:
  at::Float32MatmulPrecision before_;
};

class TorchScriptModel final : public Model {
public:
  TorchScriptModel(const std::string &path, const std::string &device, const std::string &dtype)
      : metadata_(read_metadata(path)), device_(device) {
    if (dtype == "tf32" && !device_.is_cuda())
      throw Error("dtype tf32 is a precision of NVIDIA's GPUs, and the model runs on the CPU; use "
                  "float32");
    try {
      module_ = torch::jit::load(path, device_);
    } catch (const c10::Error &error) {
      throw Error(path + " cannot be read by torch " + TORCH_VERSION + ": " +
                  last_line(error.what_without_backtrace()));
    }
    module_.eval();
    if (!dtype.empty() && dtype != metadata_.dtype) {
      set_precision(module_.attr("potential").toModule().attr("pet").toModule(), dtype);
      metadata_.bytes_per_token *= size_of_number(dtype) / size_of_number(metadata_.dtype);
      metadata_.dtype = dtype;
    }
  }

  const Metadata &metadata() const override { return metadata_; }
  std::string device() const override { return device_.str(); }

  void set_topology(const Topology &topology) override {
    species_ = copy_of(topology.species, device_);
    edges_ =
        torch::stack({copy_of(topology.centre, device_), copy_of(topology.neighbour, device_)});
    ends_ = copy_of(topology.ends, device_);
    reverse_ = copy_of(topology.reverse, device_);
    atoms_within_ = c10::List<int64_t>();
    for (const auto count : topology.atoms_within)
      atoms_within_.push_back(count);
  }

  void set_electronic_state(int64_t charge, int64_t spin_multiplicity) override {
    if (metadata_.max_spin_multiplicity == 0) {
      if (charge != 0 || spin_multiplicity != 1)
        throw Error("the model does not depend on charge and spin; leave these keywords out");
    } else if (std::abs(charge) > metadata_.max_charge || spin_multiplicity < 1 ||
               spin_multiplicity > metadata_.max_spin_multiplicity) {
      throw Error("the model knows charges up to " + std::to_string(metadata_.max_charge) +
                  " and spin multiplicities from 1 to " +
                  std::to_string(metadata_.max_spin_multiplicity));
    }
    charge_ = charge;
    spin_multiplicity_ = spin_multiplicity;
  }

  Result compute(const std::vector<double> &points, Wanted wanted, int64_t chunk_size) override {
    const WithoutOptimiser executor;
    const MatrixProducts products(metadata_.dtype);
    const c10::InferenceMode inference(false);
    const torch::AutoGradMode grad(true);
    // The pointer is only read, but from_blob knows no constants.
    const auto x = torch::from_blob(const_cast<double *>(points.data()),
                                    {static_cast<int64_t>(points.size()) / 3, 3}, torch::kFloat64);
    try {
      const auto outputs =
          module_
              .get_method("drive")({x.to(device_), ends_, species_, edges_, reverse_, atoms_within_,
                                    wanted.atomic_virials, wanted.centroid_virials, chunk_size,
                                    charge_, spin_multiplicity_, wanted.uncertainty})
              .toTuple();
      const std::vector<c10::IValue> values = outputs->elements().vec();
      for (size_t k = 0; k < host_.size(); ++k)
        host_[k] = values.at(k).toTensor().to(torch::kCPU).contiguous();
      const auto results = values.at(6).toGenericDict();
      vectors_ = values.at(7).toTensor().to(torch::kCPU).contiguous();
      deviations_ = values.at(8).toTensor().to(torch::kCPU).contiguous();
      results_.clear();
      for (const auto &declared : metadata_.results)
        results_.push_back(results.at(declared.name).toTensor().to(torch::kCPU).contiguous());
    } catch (const c10::OutOfMemoryError &) {
      throw Error("the GPU is out of memory; give pair_style pet a smaller 'chunk', or use more "
                  "ranks on more GPUs");
    } catch (const std::exception &error) {
      throw Error("the model failed: " + last_line(error.what()));
    }
    Result result{host_[0].data_ptr<double>(),
                  host_[1].data_ptr<double>(),
                  host_[2].data_ptr<double>(),
                  wanted.atomic_virials ? host_[3].data_ptr<double>() : nullptr,
                  wanted.centroid_virials ? host_[4].data_ptr<double>() : nullptr,
                  {},
                  wanted.uncertainty > 0 ? vectors_.data_ptr<double>() : nullptr,
                  wanted.uncertainty > 1 ? deviations_.data_ptr<double>() : nullptr};
    for (const auto &values : results_)
      result.others.push_back(values.data_ptr<double>());
    return result;
  }

private:
  Metadata metadata_;
  at::Device device_;
  torch::jit::Module module_;
  at::Tensor species_, edges_, ends_, reverse_;
  c10::List<int64_t> atoms_within_;
  int64_t charge_ = 0, spin_multiplicity_ = 1;
  std::array<at::Tensor, 5> host_; // energies, forces, virial, atomic and centroid virials
  std::vector<at::Tensor> results_;  // in the order of the metadata
  at::Tensor vectors_, deviations_;
};

} // namespace

double available_memory() {
  std::ifstream lines("/proc/meminfo");
  std::string key;
  for (double kilobytes; lines >> key >> kilobytes; lines.ignore(80, '\n'))
    if (key == "MemAvailable:")
      return 1024.0 * kilobytes;
  return 0.0;
}

int gpu_count() {
  return torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
}

void keep_freed_memory() {
#ifdef __GLIBC__
  // What the user has chosen stands.
  for (const char *name : {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"})
    if (std::getenv(name) != nullptr)
      return;
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

void set_threads(int n_threads) {
  at::set_num_threads(n_threads);
}

std::unique_ptr<Model> load_model(const std::string &path, const std::string &device,
                                  const std::string &dtype) {
  return std::make_unique<TorchScriptModel>(path, device, dtype);
}

} // namespace pet
