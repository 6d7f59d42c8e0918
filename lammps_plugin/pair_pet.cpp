// SPDX-License-Identifier: GPL-2.0-only
#include "pair_pet.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "modify.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pet_elements.h"
#include "pet_exclusions.h"
#include "pet_machine.h"
#include "pet_text.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

using namespace LAMMPS_NS;

namespace {

constexpr int share_size = 3 + 9 + 9; // force and virials of one atom, as ranks exchange them

// Of neighbour lists that have become wrong. The fixes build lists only if cutoffs differ.
constexpr const char remedy[] =
    "; let them be built in every step (neigh_modify every 1 delay 0 check no) or, with fix "
    "atom/swap or mol/swap, in every swap, by another cutoff for one of its types";

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
  comm_forward = 1;
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

// Commands that fail leave everything as it was: what may fail comes first.
void PairPET::coeff(int narg, char **arg) {
  if (narg != 3 + atom->ntypes)
    error->all(
        FLERR,
        pet::text(
            "pair_coeff of pair_style pet needs * * model.pt and one element (or NULL) for each "
            "of the {} atom types, but there are {} words",
            atom->ntypes, narg));
  if (strcmp(arg[0], "*") != 0 || strcmp(arg[1], "*") != 0)
    error->all(FLERR, "pair_coeff of pair_style pet must start with * *");
  Coefficients coefficients{arg[2], {arg + 3, arg + narg}};
  Loaded loaded = load(settings_, coefficients);
  std::swap(coefficients_, coefficients);
  source_ = "pair_coeff";
  declare(loaded.model->metadata());
  loaded_ = std::move(loaded);
  is_set_up_ = false;
  set_flags(coefficients_.elements);
  announce();
}

void PairPET::set_flags(const std::vector<std::string> &elements) {
  if (!allocated)
    allocate();
  for (int i = 1; i <= atom->ntypes; ++i)
    for (int j = i; j <= atom->ntypes; ++j)
      setflag[i][j] = elements[i - 1] != "NULL" && elements[j - 1] != "NULL";
}

// The model on every rank; any rank's problem stops all of them.
PairPET::Loaded PairPET::load(const Settings &settings, const Coefficients &coefficients) {
  Loaded loaded;
  std::string problem;
  const auto [rank_of_machine, ranks_of_machine] = pet::place_on_machine(lmp);
  try {
    loaded.model = pet::load_model(coefficients.path,
                                   choose_device(rank_of_machine, settings.device), settings.dtype);
    loaded.model->set_electronic_state(settings.charge, settings.spin_multiplicity);
    loaded.tokens_held = settings.chunk_size < 0
                             ? default_chunk_size(*loaded.model, ranks_of_machine)
                             : settings.chunk_size;
    loaded.species = find_species(*loaded.model, coefficients);
    if (loaded.model->device() == "cpu")
      pet::keep_freed_memory();
  } catch (const std::exception &failure) {
    problem = failure.what();
  }
  problem = agree(problem);
  if (!problem.empty())
    error->all(FLERR, pet::text("pair_style pet: {}", problem));
  return loaded;
}

// The results that 'fix pair' and 'compute pair' ask for are those of this model from now on. What
// is there of these has its columns, whatever another model predicts.
void PairPET::declare(const pet::Metadata &metadata) {
  // Rounding takes away the differences that uncertainties are.
  const int64_t size = pet::rounds(metadata.dtype) ? 0 : metadata.uncertainty_size;
  const bool other = results_.is_declared() && uncertainty_.is_known() != (size > 0);
  if ((other || results_.differ(metadata.results)) &&
      (!modify->get_fix_by_style("^pair$").empty() ||
       !modify->get_compute_by_style("^pair$").empty()))
    error->all(
        FLERR,
        pet::text(
            "pair_style pet: {} predicts other results, or has other uncertainties, than the "
            "model before it, which fix pair or compute pair read; remove these with unfix and "
            "uncompute first",
            coefficients_.path));
  uncertainty_.declare(size, metadata.uncertainty_members);
  results_.declare(metadata.results, uncertainty_.is_known() ? pet::Uncertainty::n_whole : 0);
  nextra = results_.n_sums();
  pvector = results_.sums();
}

// Say what was loaded.
void PairPET::announce() {
  const pet::Metadata &metadata = loaded_.model->metadata();
  const std::string devices = devices_of_ranks();
  const std::string held =
      loaded_.tokens_held == 0
          ? "all activations held"
          : pet::text("activations of up to {} tokens held by a rank", loaded_.tokens_held);
  if (comm->me == 0)
    utils::logmesg(
        lmp,
        pet::text("pair_style pet: {} ({}, cutoff {} A, reach {} cutoffs) written by pet_mlip {}, "
                  "on {} with {} thread(s), {}\n",
                  coefficients_.path, metadata.dtype, metadata.cutoff, metadata.interaction_range,
                  metadata.package_version, devices, comm->nthreads, held));
  if (comm->me == 0 && !metadata.subtracted.empty())
    utils::logmesg(lmp, pet::text("pair_style pet: dispersion/d3 has to add {}; whether it has "
                                  "this functional and damping cannot be checked\n",
                                  metadata.subtracted));
}

// Its functional and damping cannot be compared.
void PairPET::check_dispersion() const {
  const std::string &subtracted = loaded_.model->metadata().subtracted;
  if (subtracted.empty())
    return;
  const Pair *first = force->pair_match("dispersion/d3", 0, 1);
  if (first == nullptr)
    error->all(FLERR, pet::text("pair_style pet: the model {} learned labels without {}, which has "
                                "to be added: pair_style hybrid/overlay pet dispersion/d3 ..., "
                                "with the same functional and damping (docs/engines.md)",
                                coefficients_.path, subtracted));
  if (force->pair_match("dispersion/d3", 0, 2) != first)
    error->all(FLERR, pet::text("pair_style pet: the model {} learned labels without {}, which two "
                                "dispersion/d3 would add twice; remove one",
                                coefficients_.path, subtracted));
}

// Every rank of a machine takes the next GPU.
std::string PairPET::choose_device(int rank_of_machine, const std::string &wanted) const {
  const int n_gpus = pet::gpu_count();
  if (wanted == "cpu" || (wanted == "auto" && n_gpus == 0))
    return "cpu";
  if (n_gpus == 0)
    throw pet::Error("device " + wanted + " was asked for, but torch sees no GPU; use device cpu");
  if (wanted.rfind("cuda:", 0) == 0) {
    const int index = utils::is_integer(wanted.substr(5)) ? std::stoi(wanted.substr(5)) : -1;
    if (index < 0 || index >= n_gpus)
      throw pet::Error("device " + wanted + " does not exist; torch sees " +
                       std::to_string(n_gpus) + " GPU(s)");
    return wanted;
  }
  return "cuda:" + std::to_string(rank_of_machine % n_gpus);
}

// As the ASE calculator: what fits into a quarter of the memory, and into 4 GB. A GPU's memory is
// not known here.
bigint PairPET::default_chunk_size(const pet::Model &model, int ranks_of_machine) {
  constexpr bigint on_gpu = 131072, smallest = 1024;
  if (model.device() != "cpu")
    return on_gpu;
  const double available = pet::available_memory();
  const double allowed = std::min(available > 0.0 ? 0.25 * available : 2e9, 4e9);
  const double bytes = model.metadata().bytes_per_token * ranks_of_machine;
  return std::max(static_cast<bigint>(allowed / bytes), smallest);
}

// The device of each rank, on rank 0; one word if it is the same everywhere.
std::string PairPET::devices_of_ranks() const {
  const std::string device = loaded_.model->device();
  const auto colon = device.find(':');
  const int mine = colon == std::string::npos ? -1 : std::stoi(device.substr(colon + 1));
  std::vector<int> all(comm->nprocs);
  MPI_Gather(&mine, 1, MPI_INT, all.data(), 1, MPI_INT, 0, world);
  if (std::all_of(all.begin(), all.end(), [&](int index) { return index == all[0]; }))
    return device;
  std::string list = "GPUs";
  for (const int index : all)
    list += pet::text(" {}", index);
  return list + " of the ranks in turn";
}

// The atomic number of each type, 0 for NULL.
std::vector<int64_t> PairPET::find_species(const pet::Model &model,
                                           const Coefficients &coefficients) const {
  const auto &known = model.metadata().species;
  std::vector<int64_t> species(1, 0);
  for (const std::string &symbol : coefficients.elements) {
    const int z = symbol == "NULL" ? 0 : pet::atomic_number(symbol);
    if (z == 0 && symbol != "NULL")
      throw pet::Error(symbol + " is not a chemical element");
    if (z != 0 && std::find(known.begin(), known.end(), z) == known.end()) {
      std::string list;
      for (const auto k : known)
        list += pet::text(" {}", pet::symbols[k]);
      throw pet::Error(coefficients.path + " does not know the element " + symbol + "; it knows" +
                       list);
    }
    species.push_back(z);
  }
  return species;
}

void PairPET::init_style() {
  if (coefficients_.path.empty())
    error->all(FLERR, "pair_style pet: no model was given; add pair_coeff * * model.pt ...");
  // After pair_style was given again, or a restart file was read.
  if (!loaded_.model) {
    std::string problem;
    if (source_ != "pair_coeff" && !platform::file_is_readable(coefficients_.path))
      problem = source_ + " names the model file " + coefficients_.path +
                ", which cannot be read here; after read_restart, give pair_coeff * * and the path "
                "of the model";
    problem = agree(problem);
    if (!problem.empty())
      error->all(FLERR, pet::text("pair_style pet: {}", problem));
    loaded_ = load(settings_, coefficients_);
    declare(loaded_.model->metadata());
    announce();
  }
  if (strcmp(update->unit_style, "metal") == 0)
    energy_unit_ = 1.0;
  else if (strcmp(update->unit_style, "real") == 0)
    energy_unit_ = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  else
    error->all(FLERR, pet::text("pair_style pet works in units metal or real, not in units {}",
                                update->unit_style));
  check_dispersion();
  if (!atom->tag_enable)
    error->all(FLERR, "pair_style pet needs atom IDs; remove atom_modify id no");
  if (atom->molecular != Atom::ATOMIC)
    for (int k = 1; k <= 3; ++k)
      if (force->special_lj[k] == 0.0 || force->special_coul[k] == 0.0)
        error->all(
            FLERR,
            "pair_style pet needs all neighbours, but special_bonds removes bonded ones from "
            "the list; set special_bonds lj/coul 1 1 1, or, if another style of a hybrid "
            "needs zeros, 1e-50 instead of 0, which keeps the pairs in the list");
  if (modify->get_fix_by_style("^pair$").empty())
    uncertainty_.forget();
  else if (utils::strmatch(update->integrate_style, "^respa"))
    error->all(FLERR, "fix pair reads nothing after the first step with run_style respa; use "
                      "run_style verlet, or remove the fix");
  has_graph_ = false;
  was_initialized_ = true;
  is_set_up_ = true;
  warn_of_exclusions();
  if (comm->nprocs == 1) {
    neighbor->add_request(this, NeighConst::REQ_FULL);
    return;
  }

  const pet::Metadata &metadata = loaded_.model->metadata();
  const double shell = metadata.interaction_range * metadata.cutoff + neighbor->skin;
  if (comm->cutghostuser < shell) {
    comm->cutghostuser = shell;
    if (comm->me == 0)
      utils::logmesg(
          lmp,
          pet::text("pair_style pet: ghost atoms up to {} A: an atomic energy depends on atoms {} "
                    "cutoffs of {} A away, plus the skin of {} A\n",
                    shell, metadata.interaction_range, metadata.cutoff, neighbor->skin));
  }
  check_communication();
  neighbor->add_request(this, NeighConst::REQ_FULL | NeighConst::REQ_GHOST);
}

// What several ranks cannot do with the thick shell of ghosts and their neighbours.
void PairPET::check_communication() const {
  if (comm->mode != Comm::SINGLE)
    error->all(FLERR, "pair_style pet needs comm_modify mode single on several ranks");
  // Not by the names of all multi styles: LAMMPS 4 Jul 2026 has one, earlier ones two.
  if (neighbor->style != Neighbor::NSQ && neighbor->style != Neighbor::BIN)
    error->all(
        FLERR,
        pet::text("pair_style pet needs the neighbours of ghost atoms on several ranks, which "
                  "neighbor multi does not find; use neighbor {} bin",
                  neighbor->skin));
  if (comm->style != Comm::TILED)
    return;
  // A triclinic box is as wide as its planes are apart.
  const double *h = domain->h_inv;
  const double width[3] = {1.0 / std::hypot(h[0], h[5], h[4]), 1.0 / std::hypot(h[1], h[3]),
                           1.0 / h[2]};
  for (int k = 0; k < 3; ++k)
    if (domain->periodicity[k] && width[k] < comm->cutghostuser)
      error->all(
          FLERR,
          pet::text(
              "pair_style pet needs ghost atoms up to {} A, but with comm_style tiled no farther "
              "than one periodic box, which is {} A wide here; use comm_style brick, one rank, "
              "or replicate the box",
              comm->cutghostuser, width[k]));
}

// Once: an environment without its excluded atoms is another one.
void PairPET::warn_of_exclusions() {
  if (warned_of_exclusions_ || !pet::exclusions_in_force(lmp, loaded_.species))
    return;
  warned_of_exclusions_ = true;
  if (comm->me == 0)
    error->warning(FLERR,
                   "pair_style pet: neigh_modify exclude is in force for atoms of this style: what "
                   "an atom does not see as a neighbour is missing from its environment, so that "
                   "energies are not those of the whole structure, and atoms excluded from all "
                   "others have no energy and no force");
}

double PairPET::init_one(int i, int j) {
  if (setflag[i][j] == 0)
    error->all(FLERR, pet::text("pair_style pet: no pair_coeff for the types {} and {}", i, j));
  const double cutoff = loaded_.model->metadata().cutoff;
  cutghost[i][j] = cutghost[j][i] = cutoff;
  return cutoff;
}

void PairPET::init_list(int id, NeighList *new_list) {
  Pair::init_list(id, new_list);
  has_seen_list_ = false;
}

void PairPET::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  if (!is_set_up_)
    error->all(FLERR, "pair_style pet: pair_style or pair_coeff was given after the last set-up; "
                      "run without 'pre no'");
  pet::Result result;
  std::string problem;
  const int level =
      uncertainty_.wanted(eflag_global && !modify->get_compute_by_style("^pair$").empty());
  try {
    update_graph();
    results_.clear(atom->nlocal);
    uncertainty_.clear(level, atom->nlocal, atom->nlocal + atom->nghost);
    if (graph_.topology.own_atoms() > 0) {
      const bool unfold = comm->nprocs == 1 && cvflag_atom;
      if (unfold)
        tally_unfolded();
      result = evaluate(graph_, {vflag_atom != 0, cvflag_atom != 0 && !unfold, level});
      check_finite(result);
      tally(result);
    }
  } catch (const pet::Error &failure) {
    problem = failure.what();
  }
  // All ranks stop together: the message of one that aborts alone may never be printed.
  problem = agree(problem);
  if (!problem.empty()) {
    has_graph_ = false;
    error->all(FLERR, pet::text("pair_style pet: {}", problem));
  }
  // With newton on, LAMMPS itself returns what ghosts got to their owners.
  if (comm->nprocs > 1 && !force->newton_pair)
    tally_ghosts(result);
  if (level > 0)
    tally_uncertainty(result, level);
}

// The graph follows LAMMPS' neighbour list and the types of the atoms, which may change while the
// list stays (set, fix atom/swap); then also on other ranks, whose ghosts they are.
void PairPET::update_graph() {
  const bool is_as_it_was = neighbor->ago != 0 && !was_initialized_ && has_seen_list_ &&
                            step_of_list_ == neighbor->lastcall &&
                            count_of_list_ == neighbor->ncalls;
  const uint64_t content = is_as_it_was ? content_of_list_ : content_of_list();
  pet::Listing now = pet::find_listing(lmp);
  // With a list that was built in this step, atoms may have moved to other cells.
  const int mine[2] = {list_is_new(content), !has_graph_ || neighbor->ago == 0 || now != of_graph_};
  int any[2] = {mine[0], mine[1]};
  if (comm->nprocs > 1)
    MPI_Allreduce(mine, any, 2, MPI_INT, MPI_MAX, world);
  const bool is_new = any[0];
  if (!is_new && !any[1])
    return;
  has_graph_ = false;
  current_ = nullptr;
  was_initialized_ = false;
  has_seen_list_ = true;
  step_of_list_ = neighbor->lastcall;
  count_of_list_ = neighbor->ncalls;
  content_of_list_ = content;
  if (is_new)
    of_list_ = now;

  const pet::Metadata &metadata = loaded_.model->metadata();
  const std::string stale = is_new ? "" : pet::find_stale_exclusions(lmp, of_list_, now);
  excluded_ = pet::excluded_from_all(lmp, metadata.cutoff);
  species_.assign(atom->nlocal + atom->nghost, 0);
  for (int i = 0; i < atom->nlocal; ++i)
    species_[i] = excluded_[i] ? 0 : loaded_.species[atom->type[i]];
  if (comm->nprocs > 1)
    comm->forward_comm(this);
  // No rank may leave before this: what is above takes all of them.
  if (now.kinds.size() != of_list_.kinds.size())
    throw pet::Error("atoms were added or removed while the neighbour lists stayed; run without "
                     "'pre no'");
  if (!stale.empty())
    throw pet::Error(stale + remedy);
  check_lists_of_types(now);
  graph_ = pet::build_graph(
      lmp, list, {species_, metadata.cutoff + neighbor->skin, metadata.interaction_range});
  of_graph_ = std::move(now);
  has_graph_ = true;
}

// Whether LAMMPS built the list after it was seen. LAMMPS counts its lists from zero at times, and
// builds several of them in some steps; other lists have another content.
bool PairPET::list_is_new(uint64_t content) const {
  if (!has_seen_list_ || content != content_of_list_)
    return true;
  // A set-up counts from zero, and builds lists if it is one of a run.
  if (was_initialized_)
    return neighbor->ago == 0;
  return step_of_list_ != neighbor->lastcall || count_of_list_ != neighbor->ncalls;
}

uint64_t PairPET::content_of_list() const {
  uint64_t hash = 14695981039346656037u;
  const auto add = [&](int word) { hash = (hash ^ static_cast<uint32_t>(word)) * 1099511628211u; };
  for (int n = 0; n < list->inum + list->gnum; ++n) {
    const int i = list->ilist[n];
    add(i);
    add(list->numneigh[i]);
    for (int k = 0; k < list->numneigh[i]; ++k)
      add(list->firstneigh[i][k]);
  }
  return hash;
}

// In a hybrid style LAMMPS has given each style the pairs of its types: atoms that change between
// types which are listed in other ways are in the wrong lists until new ones are built.
void PairPET::check_lists_of_types(const pet::Listing &now) const {
  const NeighList *source = list;
  while (source->copy && source->listcopy)
    source = source->listcopy;
  if (source->iskip == nullptr)
    return;
  for (int i = 0; i < atom->nlocal; ++i) {
    const int before = of_list_.kinds[i].type, type = now.kinds[i].type;
    if (before == type)
      continue;
    bool same = source->iskip[before] == source->iskip[type];
    for (int other = 1; other <= atom->ntypes; ++other)
      same = same && source->ijskip[before][other] == source->ijskip[type][other];
    if (!same)
      throw pet::Error(pet::text("atom {} changed from type {} to {}, which other styles of the "
                                 "hybrid handle, while the neighbour lists stayed",
                                 atom->tag[i], before, type) +
                       remedy);
  }
}

// Centroid virials on one rank: the heat flux needs images of atoms apart. All else does not come
// from here, so that a trajectory is the same whether or not somebody asks.
void PairPET::tally_unfolded() {
  // Without a skin there are several times fewer images, which outweighs making the graph anew.
  const pet::Metadata &metadata = loaded_.model->metadata();
  unfolded_ =
      pet::build_unfolded_graph(lmp, list, {species_, metadata.cutoff, metadata.interaction_range});
  current_ = nullptr;
  const auto result = evaluate(unfolded_, {false, true, 0});
  for (size_t k = 0; k < unfolded_.atoms.size(); ++k)
    add_centroid_virial(unfolded_.atoms[k], result.centroid_virials + 9 * k);
}

void PairPET::gather_points(const pet::Graph &graph) {
  const auto &[topology, atoms, points, cells] = graph;
  points_.resize(3 * points.size());
  double *to = points_.data();
  for (const int i : points)
    to = std::copy_n(atom->x[i], 3, to);
  const double *h = domain->h;
  for (size_t k = 0; k < cells.size(); ++k) {
    const auto [a, b, c] = cells[k];
    points_[3 * k] += a * h[0] + b * h[5] + c * h[4];
    points_[3 * k + 1] += b * h[1] + c * h[3];
    points_[3 * k + 2] += c * h[2];
  }
  if (!std::all_of(points_.begin(), points_.end(), [](double x) { return std::isfinite(x); }))
    throw pet::Error("a position is not a finite number; look at the initial structure and the "
                     "time step");
}

pet::Result PairPET::evaluate(const pet::Graph &graph, pet::Wanted wanted) {
  if (current_ != &graph)
    loaded_.model->set_topology(graph.topology);
  current_ = &graph;
  gather_points(graph);
  return loaded_.model->compute(points_, wanted, loaded_.tokens_held);
}

void PairPET::check_finite(const pet::Result &result) const {
  double sum = 0.0;
  for (int64_t k = 0; k < graph_.topology.own_atoms(); ++k)
    sum += result.energies[k];
  for (size_t k = 0; k < 3 * graph_.atoms.size(); ++k)
    sum += result.forces[k];
  for (int64_t k = 0; result.vectors && k < graph_.topology.own_atoms() * uncertainty_.size(); ++k)
    sum += result.vectors[k];
  const auto n_deviations = uncertainty_.n_components() * static_cast<int64_t>(graph_.atoms.size());
  for (int64_t k = 0; result.deviations && k < n_deviations; ++k)
    sum += result.deviations[k];
  if (!std::isfinite(sum))
    throw pet::Error(
        "the energy, a force or an uncertainty is not a finite number; do atoms lie on "
        "each other?");
}

// Of own atoms, in the model's units; those that are not the model's have zeros.
void *PairPET::extract_peratom(const char *name, int &columns) {
  if (!results_.is_declared())
    error->all(FLERR, "pair_style pet does not know yet what its model predicts; give pair_coeff "
                      "with the model's file before fix pair");
  try {
    if (void *found = uncertainty_.find(name, update->whichflag == 0)) {
      columns = 0;
      return found;
    }
  } catch (const pet::Error &failure) {
    error->all(FLERR, pet::text("pair_style pet: {}", failure.what()));
  }
  return results_.find(name, columns);
}

void *PairPET::extract(const char *name, int &dimension) {
  dimension = 0;
  return uncertainty_.find_trigger(name);
}

void PairPET::tally(const pet::Result &result) {
  const auto &atoms = graph_.atoms;
  const auto n_own = graph_.topology.own_atoms();
  for (int64_t k = 0; k < n_own; ++k) {
    const double energy = energy_unit_ * result.energies[k];
    if (eflag_global)
      eng_vdwl += energy;
    if (eflag_atom)
      eatom[atoms[k]] += energy;
  }
  if (vflag_global)
    for (int k = 0; k < 6; ++k) {
      const auto [a, b] = voigt[k];
      virial[k] -= 0.5 * energy_unit_ * (result.virial[3 * a + b] + result.virial[3 * b + a]);
    }

  results_.store(result, atoms, n_own);
  const size_t n_nodes = force->newton_pair ? atoms.size() : static_cast<size_t>(n_own);
  const auto of_node = [](const double *values, size_t k) {
    return values == nullptr ? nullptr : values + 9 * k;
  };
  for (size_t k = 0; k < n_nodes; ++k)
    add_to_atom(atoms[k], result.forces + 3 * k, of_node(result.atomic_virials, k),
                of_node(result.centroid_virials, k));
}

// Add a force in eV/A and, if given, virials (3, 3) in eV with the model's signs.
void PairPET::add_to_atom(int i, const double *of_force, const double *of_virial,
                          const double *of_centroid) {
  for (int a = 0; a < 3; ++a)
    atom->f[i][a] += energy_unit_ * of_force[a];
  if (vflag_atom && of_virial != nullptr)
    for (int k = 0; k < 6; ++k) {
      const auto [a, b] = voigt[k];
      vatom[i][k] -= 0.5 * energy_unit_ * (of_virial[3 * a + b] + of_virial[3 * b + a]);
    }
  if (cvflag_atom && of_centroid != nullptr)
    add_centroid_virial(i, of_centroid);
}

void PairPET::add_centroid_virial(int i, const double *of_centroid) {
  for (int k = 0; k < 9; ++k)
    cvatom[i][k] += energy_unit_ * of_centroid[3 * centroid[k][0] + centroid[k][1]];
}

// With newton off: send what this rank's ghosts got to the atoms they are images of.
void PairPET::tally_ghosts(const pet::Result &result) {
  const int n_all = atom->nlocal + atom->nghost;
  of_ghosts_.assign(static_cast<size_t>(share_size) * n_all, 0.0);
  const auto &atoms = graph_.atoms;
  for (size_t k = graph_.topology.own_atoms(); result.forces && k < atoms.size(); ++k) {
    double *share = &of_ghosts_[static_cast<size_t>(share_size) * atoms[k]];
    std::copy_n(result.forces + 3 * k, 3, share);
    if (result.atomic_virials)
      std::copy_n(result.atomic_virials + 9 * k, 9, share + 3);
    if (result.centroid_virials)
      std::copy_n(result.centroid_virials + 9 * k, 9, share + 12);
  }
  comm->reverse_comm(this);
  for (int i = 0; i < atom->nlocal; ++i) {
    const double *share = &of_ghosts_[static_cast<size_t>(share_size) * i];
    add_to_atom(i, share, share + 3, share + 12);
  }
}

// Norms of sums: these come first, over the ranks and over the ghosts of each atom.
void PairPET::tally_uncertainty(const pet::Result &result, int level) {
  const int n_all = atom->nlocal + atom->nghost;
  if (result.vectors)
    uncertainty_.store(result, graph_.atoms, graph_.topology.own_atoms(), energy_unit_);
  const auto n_components = static_cast<int>(uncertainty_.n_components());
  for (int first = 0; level > 1 && comm->nprocs > 1 && first < n_components; first += share_size) {
    const int n = std::min(share_size, n_components - first);
    of_ghosts_.assign(static_cast<size_t>(share_size) * n_all, 0.0);
    for (int i = atom->nlocal; i < n_all; ++i)
      std::copy_n(uncertainty_.deviations(i) + first, n, &of_ghosts_[share_size * size_t(i)]);
    comm->reverse_comm(this);
    for (int i = 0; i < atom->nlocal; ++i)
      for (int c = 0; c < n; ++c)
        uncertainty_.deviations(i)[first + c] += of_ghosts_[share_size * size_t(i) + c];
  }
  uncertainty_.finish(level > 1);

  auto &sum = uncertainty_.sum();
  MPI_Allreduce(MPI_IN_PLACE, sum.data(), static_cast<int>(sum.size()), MPI_DOUBLE, MPI_SUM, world);
  double largest[2] = {uncertainty_.largest_energy(), uncertainty_.largest_force()};
  MPI_Allreduce(MPI_IN_PLACE, largest, 2, MPI_DOUBLE, MPI_MAX, world);
  // compute pair adds up over the ranks.
  if (comm->me == 0) {
    double *whole = results_.more();
    whole[0] = std::sqrt(std::inner_product(sum.begin(), sum.end(), sum.begin(), 0.0));
    whole[1] = largest[0];
    whole[2] = largest[1];
  }
}

int PairPET::pack_forward_comm(int n, int *which, double *buf, int /*pbc_flag*/, int * /*pbc*/) {
  for (int k = 0; k < n; ++k)
    buf[k] = static_cast<double>(species_[which[k]]);
  return n;
}

void PairPET::unpack_forward_comm(int n, int first, double *buf) {
  for (int k = 0; k < n; ++k)
    species_[first + k] = static_cast<int64_t>(buf[k]);
}

int PairPET::pack_reverse_comm(int n, int first, double *buf) {
  std::copy_n(&of_ghosts_[static_cast<size_t>(share_size) * first], share_size * n, buf);
  return share_size * n;
}

void PairPET::unpack_reverse_comm(int n, int *which, double *buf) {
  for (int k = 0; k < n; ++k)
    for (int c = 0; c < share_size; ++c)
      of_ghosts_[static_cast<size_t>(share_size) * which[k] + c] += *buf++;
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
  const auto n_edges = graph_.topology.centre.size() + unfolded_.topology.centre.size();
  return Pair::memory_usage() + 4.0 * sizeof(int64_t) * static_cast<double>(n_edges) +
         sizeof(double) * static_cast<double>(points_.size() + of_ghosts_.size());
}
