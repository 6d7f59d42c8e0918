// SPDX-License-Identifier: GPL-2.0-only
#include "pair_pet.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pet_elements.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

using namespace LAMMPS_NS;

namespace {

constexpr int share_size = 3 + 9; // force and virial of one atom, as ranks exchange them

// Where LAMMPS keeps the components of virials, in matrices by rows.
constexpr int voigt[6][2] = {{0, 0}, {1, 1}, {2, 2}, {0, 1}, {0, 2}, {1, 2}};
constexpr int centroid[9][2] = {{0, 0}, {1, 1}, {2, 2}, {0, 1}, {0, 2},
                                {1, 2}, {1, 0}, {2, 0}, {2, 1}};

} // namespace

PairPET::PairPET(LAMMPS *lmp) : Pair(lmp) {
  single_enable = 0;
  one_coeff = 1;
  manybody_flag = 1;
  restartinfo = 1;
  ghostneigh = 1;
  unit_convert_flag = 0;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_AVAIL;
  comm_reverse = comm_reverse_off = share_size;
}

PairPET::~PairPET() {
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
    memory->destroy(cutghost);
  }
}

void PairPET::allocate() {
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  memory->create(cutghost, n, n, "pair:cutghost");
  for (int i = 1; i < n; ++i)
    for (int j = 1; j < n; ++j)
      setflag[i][j] = 0;
}

void PairPET::coeff(int narg, char **arg) {
  if (narg != 3 + atom->ntypes)
    error->all(FLERR,
               "pair_coeff of pair_style pet needs * * model.pt and one element (or NULL) for each "
               "of the {} atom types, but there are {} words",
               atom->ntypes, narg);
  if (strcmp(arg[0], "*") != 0 || strcmp(arg[1], "*") != 0)
    error->all(FLERR, "pair_coeff of pair_style pet must start with * *");
  path_ = arg[2];
  elements_.assign(arg + 3, arg + narg);
  load();
}

// Load the model on every rank and describe it; any rank's problem stops all of them.
void PairPET::load() {
  std::string problem;
  const auto [rank_of_machine, ranks_of_machine] = place_on_machine();
  try {
    model_ = pet::load_model(path_, choose_device(rank_of_machine), dtype_);
    model_->set_electronic_state(charge_, spin_multiplicity_);
    tokens_held_ = chunk_size_ < 0 ? default_chunk_size(ranks_of_machine) : chunk_size_;
    check_part();
    if (model_->device() == "cpu")
      pet::keep_freed_memory();
  } catch (const std::exception &failure) {
    problem = failure.what();
  }
  problem = agree(problem);
  if (!problem.empty())
    error->all(FLERR, "pair_style pet: {}", problem);
  map_elements();

  const pet::Metadata &metadata = model_->metadata();
  const std::string devices = devices_of_ranks();
  if (comm->me == 0)
    utils::logmesg(lmp,
                   "pair_style pet: {} ({}, cutoff {} A, reach {} cutoffs) written by pet_mlip {}, "
                   "on {} with {} thread(s)\n",
                   path_, metadata.dtype, metadata.cutoff, metadata.interaction_range,
                   metadata.package_version, devices, comm->nthreads);
}

// Whether the model has the part that was asked for.
void PairPET::check_part() const {
  if (part_ == "all")
    return;
  const pet::Metadata &metadata = model_->metadata();
  if (metadata.ensemble == "none" && part_ == "correction")
    throw pet::Error(path_ + " is a plain model: there is no correction to it; leave out 'part'");
  if (metadata.train == "full" || metadata.train == "sample")
    throw pet::Error(path_ + " was trained in frames of its ensemble only (symmetrization.train: " +
                     metadata.train +
                     "), so that its plain part means nothing; train or "
                     "fine-tune it with symmetrization.train: environment");
}

// This rank's place among those of its machine, and how many they are. Collective.
std::pair<int, int> PairPET::place_on_machine() const {
  int rank = 0, size = 1;
#if defined(MPI_VERSION) && MPI_VERSION >= 3 // LAMMPS' own stand-in for MPI has one rank only
  MPI_Comm machine;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, comm->me, MPI_INFO_NULL, &machine);
  MPI_Comm_rank(machine, &rank);
  MPI_Comm_size(machine, &size);
  MPI_Comm_free(&machine);
#endif
  return {rank, size};
}

// Every rank of a machine takes the next GPU.
std::string PairPET::choose_device(int rank_of_machine) const {
  const int n_gpus = pet::gpu_count();
  if (device_ == "cpu" || (device_ == "auto" && n_gpus == 0))
    return "cpu";
  if (n_gpus == 0)
    throw pet::Error("device " + device_ + " was asked for, but torch sees no GPU; use device cpu");
  if (device_.rfind("cuda:", 0) == 0) {
    const int wanted = utils::is_integer(device_.substr(5)) ? std::stoi(device_.substr(5)) : -1;
    if (wanted < 0 || wanted >= n_gpus)
      throw pet::Error("device " + device_ + " does not exist; torch sees " +
                       std::to_string(n_gpus) + " GPU(s)");
    return device_;
  }
  return "cuda:" + std::to_string(rank_of_machine % n_gpus);
}

// As the ASE calculator: what fits into a quarter of the memory, and into 4 GB. A GPU's memory is
// not known here.
bigint PairPET::default_chunk_size(int ranks_of_machine) const {
  constexpr bigint on_gpu = 131072, smallest = 1024;
  if (model_->device() != "cpu")
    return on_gpu;
  const double available = pet::available_memory();
  const double allowed = std::min(available > 0.0 ? 0.25 * available : 2e9, 4e9);
  const double bytes = std::max(model_->metadata().bytes_per_token, 1.0) * ranks_of_machine;
  return std::max(static_cast<bigint>(allowed / bytes), smallest);
}

// The device of each rank, on rank 0; one word if it is the same everywhere.
std::string PairPET::devices_of_ranks() const {
  const std::string device = model_->device();
  const auto colon = device.find(':');
  const int mine = colon == std::string::npos ? -1 : std::stoi(device.substr(colon + 1));
  std::vector<int> all(comm->nprocs);
  MPI_Gather(&mine, 1, MPI_INT, all.data(), 1, MPI_INT, 0, world);
  if (std::all_of(all.begin(), all.end(), [&](int index) { return index == all[0]; }))
    return device;
  std::string list = "GPUs";
  for (const int index : all)
    list += fmt::format(" {}", index);
  return list + " of the ranks in turn";
}

void PairPET::map_elements() {
  const auto &known = model_->metadata().species;
  species_.assign(atom->ntypes + 1, 0);
  for (int type = 1; type <= atom->ntypes; ++type) {
    const std::string &symbol = elements_[type - 1];
    if (symbol == "NULL")
      continue;
    const int z = pet::atomic_number(symbol);
    if (z == 0)
      error->all(FLERR, "pair_style pet: {} is not a chemical element", symbol);
    if (std::find(known.begin(), known.end(), z) == known.end()) {
      std::string list;
      for (const auto k : known)
        list += fmt::format(" {}", pet::symbols[k]);
      error->all(FLERR, "pair_style pet: {} does not know the element {}; it knows{}", path_,
                 symbol, list);
    }
    species_[type] = z;
  }

  if (!allocated)
    allocate();
  for (int i = 1; i <= atom->ntypes; ++i)
    for (int j = i; j <= atom->ntypes; ++j)
      setflag[i][j] = species_[i] != 0 && species_[j] != 0;
}

void PairPET::init_style() {
  if (!model_)
    error->all(FLERR, "pair_style pet: no model was given; add pair_coeff * * model.pt ...");
  if (strcmp(update->unit_style, "metal") == 0)
    energy_unit_ = 1.0;
  else if (strcmp(update->unit_style, "real") == 0)
    energy_unit_ = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  else
    error->all(FLERR, "pair_style pet works in units metal or real, not in units {}",
               update->unit_style);
  if (!atom->tag_enable)
    error->all(FLERR, "pair_style pet needs atom IDs; remove atom_modify id no");
  if (atom->molecular != Atom::ATOMIC)
    for (int k = 1; k <= 3; ++k)
      if (force->special_lj[k] == 0.0 || force->special_coul[k] == 0.0)
        error->all(FLERR, "pair_style pet needs all neighbours, but special_bonds removes bonded "
                          "ones from the list; set special_bonds lj/coul 1 1 1");
  graph_built_ = -1;
  if (comm->nprocs == 1) {
    neighbor->add_request(this, NeighConst::REQ_FULL);
    return;
  }

  if (comm->mode != Comm::SINGLE)
    error->all(FLERR, "pair_style pet needs comm_modify mode single on several ranks");
  const pet::Metadata &metadata = model_->metadata();
  const double shell = metadata.interaction_range * metadata.cutoff + neighbor->skin;
  if (comm->cutghostuser < shell) {
    comm->cutghostuser = shell;
    if (comm->me == 0)
      utils::logmesg(lmp,
                     "pair_style pet: ghost atoms up to {} A: an atomic energy depends on atoms {} "
                     "cutoffs of {} A away, plus the skin of {} A\n",
                     shell, metadata.interaction_range, metadata.cutoff, neighbor->skin);
  }
  neighbor->add_request(this, NeighConst::REQ_FULL | NeighConst::REQ_GHOST);
}

double PairPET::init_one(int i, int j) {
  if (setflag[i][j] == 0)
    error->all(FLERR, "pair_style pet: no pair_coeff for the types {} and {}", i, j);
  const double cutoff = model_->metadata().cutoff;
  cutghost[i][j] = cutghost[j][i] = cutoff;
  return cutoff;
}

void PairPET::init_list(int id, NeighList *new_list) {
  Pair::init_list(id, new_list);
  graph_built_ = -1;
}

void PairPET::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  pet::Result result;
  std::string problem;
  try {
    update_graph();
    if (graph_.topology.own_atoms() > 0) {
      gather_positions();
      result = evaluate();
      check_finite(result);
      tally(result);
    }
  } catch (const pet::Error &failure) {
    problem = failure.what();
  }
  // All ranks stop together: the message of one that aborts alone may never be printed.
  problem = agree(problem);
  if (!problem.empty())
    error->all(FLERR, "pair_style pet: {}", problem);
  // With newton on, LAMMPS itself returns what ghosts got to their owners.
  if (comm->nprocs > 1 && !force->newton_pair)
    tally_ghosts(result);
}

// The topology follows LAMMPS' neighbour list and stays until that is built again.
void PairPET::update_graph() {
  if (neighbor->ago != 0 && graph_built_ == neighbor->lastcall)
    return;
  const double list_cutoff = model_->metadata().cutoff + neighbor->skin;
  graph_ = pet::build_graph(lmp, list, species_, list_cutoff, model_->metadata().interaction_range);
  if (graph_.topology.own_atoms() > 0)
    model_->set_topology(graph_.topology);
  graph_built_ = neighbor->lastcall;
}

void PairPET::gather_positions() {
  positions_.resize(3 * graph_.atoms.size());
  double *to = positions_.data();
  for (const int i : graph_.atoms)
    to = std::copy_n(atom->x[i], 3, to);
  if (!std::all_of(positions_.begin(), positions_.end(), [](double x) { return std::isfinite(x); }))
    throw pet::Error("a position is not a finite number; look at the initial structure and the "
                     "time step");
}

// Energies and derivatives of the part of the model that was asked for.
pet::Result PairPET::evaluate() {
  const double *h = domain->h;
  const double cell[9] = {h[0], 0.0, 0.0, h[5], h[1], 0.0, h[4], h[3], h[2]};
  const bool atomic_virials = vflag_atom || cvflag_atom;
  const auto result =
      model_->compute(positions_.data(), cell, atomic_virials, tokens_held_, part_ == "plain");
  return part_ == "correction" ? subtract_plain(result, cell, atomic_virials) : result;
}

// What the ensemble adds to the plain model. The model keeps its last result only.
pet::Result PairPET::subtract_plain(const pet::Result &whole, const double *cell,
                                    bool atomic_virials) {
  const size_t n_own = graph_.topology.own_atoms(), n_nodes = graph_.atoms.size();
  energies_.assign(whole.energies, whole.energies + n_own);
  forces_.assign(whole.forces, whole.forces + 3 * n_nodes);
  virial_.assign(whole.virial, whole.virial + 9);
  if (atomic_virials)
    atomic_virials_.assign(whole.atomic_virials, whole.atomic_virials + 9 * n_nodes);
  const auto plain = model_->compute(positions_.data(), cell, atomic_virials, tokens_held_, true);
  const auto subtract = [](std::vector<double> &from, const double *what) {
    std::transform(from.begin(), from.end(), what, from.begin(), std::minus<>());
  };
  subtract(energies_, plain.energies);
  subtract(forces_, plain.forces);
  subtract(virial_, plain.virial);
  if (atomic_virials)
    subtract(atomic_virials_, plain.atomic_virials);
  return {energies_.data(), forces_.data(), virial_.data(),
          atomic_virials ? atomic_virials_.data() : nullptr};
}

void PairPET::check_finite(const pet::Result &result) const {
  double sum = 0.0;
  for (int64_t k = 0; k < graph_.topology.own_atoms(); ++k)
    sum += result.energies[k];
  for (size_t k = 0; k < positions_.size(); ++k)
    sum += result.forces[k];
  if (!std::isfinite(sum))
    throw pet::Error("the energy or a force is not a finite number; do atoms lie on each other?");
}

void PairPET::tally(const pet::Result &result) {
  const auto n_own = graph_.topology.own_atoms();
  for (int64_t k = 0; k < n_own; ++k) {
    const double energy = energy_unit_ * result.energies[k];
    if (eflag_global)
      eng_vdwl += energy;
    if (eflag_atom)
      eatom[graph_.atoms[k]] += energy;
  }
  if (vflag_global)
    for (int k = 0; k < 6; ++k) {
      const auto [a, b] = voigt[k];
      virial[k] -= 0.5 * energy_unit_ * (result.virial[3 * a + b] + result.virial[3 * b + a]);
    }

  const size_t n_nodes = force->newton_pair ? graph_.atoms.size() : static_cast<size_t>(n_own);
  for (size_t k = 0; k < n_nodes; ++k)
    add_to_atom(graph_.atoms[k], result.forces + 3 * k,
                result.atomic_virials ? result.atomic_virials + 9 * k : nullptr);
}

// Add a force in eV/A and, if given, a virial (3, 3) in eV with the model's sign.
void PairPET::add_to_atom(int i, const double *of_force, const double *of_virial) {
  for (int a = 0; a < 3; ++a)
    atom->f[i][a] += energy_unit_ * of_force[a];
  if (of_virial == nullptr)
    return;
  if (vflag_atom)
    for (int k = 0; k < 6; ++k) {
      const auto [a, b] = voigt[k];
      vatom[i][k] -= 0.5 * energy_unit_ * (of_virial[3 * a + b] + of_virial[3 * b + a]);
    }
  if (cvflag_atom)
    for (int k = 0; k < 9; ++k)
      cvatom[i][k] -= energy_unit_ * of_virial[3 * centroid[k][0] + centroid[k][1]];
}

// With newton off: send what this rank's ghosts got to the atoms they are images of.
void PairPET::tally_ghosts(const pet::Result &result) {
  const int n_all = atom->nlocal + atom->nghost;
  of_ghosts_.assign(static_cast<size_t>(share_size) * n_all, 0.0);
  for (size_t k = graph_.topology.own_atoms(); result.forces && k < graph_.atoms.size(); ++k) {
    double *share = &of_ghosts_[static_cast<size_t>(share_size) * graph_.atoms[k]];
    std::copy_n(result.forces + 3 * k, 3, share);
    if (result.atomic_virials)
      std::copy_n(result.atomic_virials + 9 * k, 9, share + 3);
  }
  comm->reverse_comm(this);
  const bool virials = vflag_atom || cvflag_atom;
  for (int i = 0; i < atom->nlocal; ++i) {
    const double *share = &of_ghosts_[static_cast<size_t>(share_size) * i];
    add_to_atom(i, share, virials ? share + 3 : nullptr);
  }
}

int PairPET::pack_reverse_comm(int n, int first, double *buf) {
  std::copy_n(&of_ghosts_[static_cast<size_t>(share_size) * first], share_size * n, buf);
  return share_size * n;
}

void PairPET::unpack_reverse_comm(int n, int *list, double *buf) {
  for (int k = 0; k < n; ++k)
    for (int c = 0; c < share_size; ++c)
      of_ghosts_[static_cast<size_t>(share_size) * list[k] + c] += *buf++;
}

// The problem of the lowest rank that has one; the same text on every rank.
std::string PairPET::agree(const std::string &problem) const {
  int mine = problem.empty() ? comm->nprocs : comm->me, first = mine;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs)
    return "";
  auto size = static_cast<int>(problem.size());
  MPI_Bcast(&size, 1, MPI_INT, first, world);
  std::string text = problem;
  text.resize(size);
  MPI_Bcast(text.data(), size, MPI_CHAR, first, world);
  return text;
}

double PairPET::memory_usage() {
  const pet::Topology &topology = graph_.topology;
  const double bytes_per_edge = 3 * sizeof(int64_t) + 3 * sizeof(double);
  return Pair::memory_usage() + bytes_per_edge * static_cast<double>(topology.centre.size()) +
         sizeof(double) * static_cast<double>(positions_.size() + of_ghosts_.size() +
                                              forces_.size() + atomic_virials_.size());
}
