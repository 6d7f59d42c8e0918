// SPDX-License-Identifier: GPL-2.0-only
// What the user gave pair_style pet, and restart files, from which the model is loaded again.
#include "pair_pet.h"

#include "atom.h"
#include "comm.h"
#include "error.h"

#include <set>

using namespace LAMMPS_NS;

namespace {

// Restart files hold strings with their length.
void write_string(FILE *fp, const std::string &text) {
  const auto size = static_cast<int>(text.size());
  fwrite(&size, sizeof(int), 1, fp);
  fwrite(text.data(), 1, size, fp);
}

} // namespace

void PairPET::settings(int narg, char **arg) {
  device_ = "auto";
  dtype_.clear();
  part_ = "all";
  chunk_size_ = -1;
  charge_ = 0;
  spin_multiplicity_ = 1;
  const std::set<std::string> keywords = {"device", "dtype", "chunk", "charge", "spin", "part"};
  for (int k = 0; k < narg; k += 2) {
    const std::string key = arg[k];
    if (keywords.count(key) == 0)
      error->all(FLERR,
                 "pair_style pet has no keyword {}; it knows device, dtype, chunk, charge, spin "
                 "and part",
                 key);
    if (k + 1 == narg)
      error->all(FLERR, "pair_style pet: keyword {} needs a value", key);
    const std::string value = arg[k + 1];
    if (key == "device") {
      if (value != "auto" && value != "cpu" && value != "cuda" && value.rfind("cuda:", 0) != 0)
        error->all(FLERR, "pair_style pet: device {} is not one of auto, cpu, cuda, cuda:N", value);
      device_ = value;
    } else if (key == "dtype") {
      if (value != "float64" && value != "float32" && value != "tf32" && value != "bf16-mixed")
        error->all(FLERR,
                   "pair_style pet: dtype {} is not one of float64, float32, tf32, bf16-mixed",
                   value);
      dtype_ = value;
    } else if (key == "part") {
      if (value != "all" && value != "plain" && value != "correction")
        error->all(FLERR, "pair_style pet: part {} is not one of all, plain, correction", value);
      part_ = value;
    } else if (key == "charge") {
      charge_ = utils::inumeric(FLERR, value, false, lmp);
    } else if (key == "spin") {
      spin_multiplicity_ = utils::inumeric(FLERR, value, false, lmp);
    } else {
      chunk_size_ = utils::bnumeric(FLERR, value, false, lmp);
      if (chunk_size_ < 0)
        error->all(FLERR, "pair_style pet: chunk must not be negative");
    }
  }
  pet::set_threads(comm->nthreads);
}

void PairPET::write_restart_settings(FILE *fp) {
  write_string(fp, device_);
  write_string(fp, dtype_);
  write_string(fp, part_);
  fwrite(&chunk_size_, sizeof(bigint), 1, fp);
  fwrite(&charge_, sizeof(int), 1, fp);
  fwrite(&spin_multiplicity_, sizeof(int), 1, fp);
}

void PairPET::read_restart_settings(FILE *fp) {
  device_ = read_string(fp);
  dtype_ = read_string(fp);
  part_ = read_string(fp);
  if (comm->me == 0) {
    utils::sfread(FLERR, &chunk_size_, sizeof(bigint), 1, fp, nullptr, error);
    utils::sfread(FLERR, &charge_, sizeof(int), 1, fp, nullptr, error);
    utils::sfread(FLERR, &spin_multiplicity_, sizeof(int), 1, fp, nullptr, error);
  }
  MPI_Bcast(&chunk_size_, 1, MPI_LMP_BIGINT, 0, world);
  MPI_Bcast(&charge_, 1, MPI_INT, 0, world);
  MPI_Bcast(&spin_multiplicity_, 1, MPI_INT, 0, world);
  pet::set_threads(comm->nthreads);
}

void PairPET::write_restart(FILE *fp) {
  write_restart_settings(fp);
  write_string(fp, path_);
  for (const auto &element : elements_)
    write_string(fp, element);
}

void PairPET::read_restart(FILE *fp) {
  read_restart_settings(fp);
  path_ = read_string(fp);
  elements_.clear();
  for (int type = 1; type <= atom->ntypes; ++type)
    elements_.push_back(read_string(fp));
  load();
}

// On rank 0; the others receive it.
std::string PairPET::read_string(FILE *fp) {
  int size = 0;
  if (comm->me == 0)
    utils::sfread(FLERR, &size, sizeof(int), 1, fp, nullptr, error);
  MPI_Bcast(&size, 1, MPI_INT, 0, world);
  std::string text(size, ' ');
  if (comm->me == 0)
    utils::sfread(FLERR, text.data(), 1, size, fp, nullptr, error);
  MPI_Bcast(text.data(), size, MPI_CHAR, 0, world);
  return text;
}
