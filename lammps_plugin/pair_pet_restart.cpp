// SPDX-License-Identifier: GPL-2.0-only
// Restart files of pair_style pet: what the user gave, from which the model is loaded again.
#include "pair_pet.h"

#include "atom.h"
#include "comm.h"
#include "error.h"

using namespace LAMMPS_NS;

namespace {

// Restart files hold strings with their length.
void write_string(FILE *fp, const std::string &text) {
  const auto size = static_cast<int>(text.size());
  fwrite(&size, sizeof(int), 1, fp);
  fwrite(text.data(), 1, size, fp);
}

} // namespace

void PairPET::write_restart_settings(FILE *fp) {
  write_string(fp, device_);
  write_string(fp, dtype_);
  fwrite(&chunk_size_, sizeof(bigint), 1, fp);
}

void PairPET::read_restart_settings(FILE *fp) {
  device_ = read_string(fp);
  dtype_ = read_string(fp);
  if (comm->me == 0)
    utils::sfread(FLERR, &chunk_size_, sizeof(bigint), 1, fp, nullptr, error);
  MPI_Bcast(&chunk_size_, 1, MPI_LMP_BIGINT, 0, world);
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
