// SPDX-License-Identifier: GPL-2.0-only
// What the user gave pair_style pet, and restart files, from which the model is loaded again.
#include "pair_pet.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "pet_text.h"
#include "pet_version.h"

#include <set>
#include <sstream>

using namespace LAMMPS_NS;

namespace {

// Settings in restart files begin with a number that no older pet_mlip wrote there, the number of
// this layout, the version of the writer, and lines of "key value ..." with their length, so that
// those of another layout can be passed over.
constexpr int restart_mark = -20261126, restart_layout = 2;

bool is_device(const std::string &value) {
  return value == "auto" || value == "cpu" || value == "cuda" || value.rfind("cuda:", 0) == 0;
}

void write_int(FILE *fp, int value) {
  fwrite(&value, sizeof(int), 1, fp);
}

void write_string(FILE *fp, const std::string &text) {
  write_int(fp, static_cast<int>(text.size()));
  fwrite(text.data(), 1, text.size(), fp);
}

} // namespace

void PairPET::settings(int narg, char **arg) {
  Settings found;
  const std::set<std::string> keywords = {"device", "dtype", "chunk", "charge", "spin"};
  for (int k = 0; k < narg; k += 2) {
    const std::string key = arg[k];
    if (keywords.count(key) == 0)
      error->all(
          FLERR,
          pet::text("pair_style pet has no keyword {}; it knows device, dtype, chunk, charge "
                    "and spin",
                    key));
    if (k + 1 == narg)
      error->all(FLERR, pet::text("pair_style pet: keyword {} needs a value", key));
    const std::string value = arg[k + 1];
    if (key == "device") {
      if (!is_device(value))
        error->all(
            FLERR,
            pet::text("pair_style pet: device {} is not one of auto, cpu, cuda, cuda:N", value));
      found.device = value;
    } else if (key == "dtype") {
      if (!pet::is_precision(value))
        error->all(
            FLERR,
            pet::text("pair_style pet: dtype {} is not one of float64, float32, tf32, bf16-mixed",
                      value));
      found.dtype = value;
    } else if (key == "charge") {
      found.charge = utils::inumeric(FLERR, value, false, lmp);
    } else if (key == "spin") {
      found.spin_multiplicity = utils::inumeric(FLERR, value, false, lmp);
    } else {
      found.chunk_size = utils::bnumeric(FLERR, value, false, lmp);
      if (found.chunk_size < 0)
        error->all(FLERR, "pair_style pet: chunk must not be negative");
    }
  }
  settings_ = found;
  // A model that is there already is loaded again, as these settings want it, before the next run.
  loaded_ = {};
  is_set_up_ = false;
  pet::set_threads(comm->nthreads);
}

void PairPET::write_restart_settings(FILE *fp) {
  std::ostringstream lines;
  lines << "device " << settings_.device << "\nchunk " << settings_.chunk_size << "\ncharge "
        << settings_.charge << "\nspin " << settings_.spin_multiplicity << "\n";
  if (!settings_.dtype.empty())
    lines << "dtype " << settings_.dtype << "\n";
  if (!coefficients_.path.empty()) {
    lines << "model " << coefficients_.path << "\nelements";
    for (const auto &element : coefficients_.elements)
      lines << " " << element;
    lines << "\n";
  }
  write_int(fp, restart_mark);
  write_int(fp, restart_layout);
  write_string(fp, pet::version);
  write_string(fp, lines.str());
}

void PairPET::read_restart_settings(FILE *fp) {
  if (read_int(fp) != restart_mark)
    error->all(FLERR,
               "pair_style pet: this restart file was written by a pet_mlip that did not mark "
               "its settings, so that they cannot be told from other data; write the "
               "structure with write_data in the environment that wrote the restart file");
  const int layout = read_int(fp);
  const std::string writer = read_string(fp), text = read_string(fp);
  settings_ = {};
  coefficients_ = {};
  loaded_ = {};
  is_set_up_ = false;
  source_ = pet::text("the restart file (written by pet_mlip {})", writer);
  pet::set_threads(comm->nthreads);
  if (layout != restart_layout) {
    if (comm->me == 0)
      error->warning(
          FLERR,
          pet::text("pair_style pet: the settings in this restart file were written by pet_mlip {} "
                    "in layout {}, which this version ({}) cannot read; give pair_style pet and "
                    "pair_coeff again",
                    writer, layout, pet::version));
    return;
  }
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (!read_line(line))
      refuse_restart(line.substr(0, 80));
}

// Whether a line of the settings in a restart file makes sense.
bool PairPET::read_line(const std::string &line) {
  std::istringstream words(line);
  std::string key, rest;
  words >> key >> std::ws;
  if (key == "model") {
    std::getline(words, coefficients_.path);
    return !coefficients_.path.empty();
  }
  if (key == "elements") {
    for (std::string element; words >> element;)
      coefficients_.elements.push_back(element);
    return !coefficients_.elements.empty();
  }
  if (key == "device")
    words >> settings_.device;
  else if (key == "dtype")
    words >> settings_.dtype;
  else if (key == "chunk")
    words >> settings_.chunk_size;
  else if (key == "charge")
    words >> settings_.charge;
  else if (key == "spin")
    words >> settings_.spin_multiplicity;
  else
    return false;
  return !words.fail() && !(words >> rest) && is_device(settings_.device) &&
         settings_.chunk_size >= -1 &&
         (settings_.dtype.empty() || pet::is_precision(settings_.dtype));
}

void PairPET::write_restart(FILE *fp) {
  write_restart_settings(fp);
}

// The model is loaded before the next run, unless pair_coeff names another one until then.
void PairPET::read_restart(FILE *fp) {
  read_restart_settings(fp);
  if (coefficients_.path.empty() && coefficients_.elements.empty())
    return;
  if (static_cast<int>(coefficients_.elements.size()) != atom->ntypes)
    refuse_restart(pet::text("elements of {} atom types, but there are {}",
                             coefficients_.elements.size(), atom->ntypes));
  set_flags(coefficients_.elements);
  // fix pair and compute pair may come before the model is loaded.
  try {
    declare(pet::read_metadata(coefficients_.path));
  } catch (const pet::Error &) {
    // The run says what is wrong with the file, unless pair_coeff names another one.
  }
}

int PairPET::read_int(FILE *fp) {
  int value = 0;
  if (comm->me == 0)
    utils::sfread(FLERR, &value, sizeof(int), 1, fp, nullptr, error);
  MPI_Bcast(&value, 1, MPI_INT, 0, world);
  return value;
}

// On rank 0; the others receive it.
std::string PairPET::read_string(FILE *fp) {
  const int size = read_int(fp);
  // A damaged length may be more than there is memory for.
  int is_there = 0;
  if (comm->me == 0) {
    const bigint here = platform::ftell(fp);
    if (size >= 0 && here >= 0 && platform::fseek(fp, platform::END_OF_FILE) == 0)
      is_there = size <= platform::ftell(fp) - here;
    if (here >= 0)
      platform::fseek(fp, here);
  }
  MPI_Bcast(&is_there, 1, MPI_INT, 0, world);
  if (!is_there)
    refuse_restart(pet::text("a text of {} bytes is not there", size));
  std::string text(size, ' ');
  if (comm->me == 0)
    utils::sfread(FLERR, text.data(), 1, text.size(), fp, nullptr, error);
  MPI_Bcast(text.data(), size, MPI_CHAR, 0, world);
  return text;
}

void PairPET::refuse_restart(const std::string &found) const {
  error->all(
      FLERR,
      pet::text("pair_style pet: its settings in this restart file are damaged ({}); use another "
                "restart file",
                found));
}
