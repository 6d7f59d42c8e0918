// SPDX-License-Identifier: GPL-2.0-only
#include "pet_graph.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pointers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>

using namespace LAMMPS_NS;

namespace pet {

namespace {

// One neighbour of a node; the order groups what `find_reverse` searches.
struct Edge {
  int64_t neighbour;
  std::array<int, 3> shift;

  auto operator<=>(const Edge &) const = default;
};

// Edges of all centres, one centre after the other; first[i] is where those of centre i begin.
struct Edges {
  std::vector<Edge> all;
  std::vector<int64_t> first{0};

  void finish_centre() {
    std::sort(all.begin() + first.back(), all.end());
    first.push_back(static_cast<int64_t>(all.size()));
  }
  int64_t centres() const { return static_cast<int64_t>(first.size()) - 1; }
};

class Builder : protected Pointers {
public:
  Builder(LAMMPS *lmp, NeighList *list, const std::vector<int64_t> &species, double list_cutoff)
      : Pointers(lmp), list_(list), species_(species), cutoff_squared_(list_cutoff * list_cutoff),
        node_(atom->nlocal + atom->nghost, -1) {}

  Graph build(int hops) {
    for (int i = 0; i < atom->nlocal; ++i)
      add_node(i);
    Edges edges = comm->nprocs == 1 ? edges_to_owners(hops) : edges_to_ghosts(hops);
    fill(edges);
    return std::move(graph_);
  }

private:
  bool is_ours(int i) const { return species_[atom->type[i]] != 0; }

  void add_node(int i) {
    if (!is_ours(i) || node_[i] >= 0)
      return;
    node_[i] = static_cast<int64_t>(graph_.atoms.size());
    graph_.atoms.push_back(i);
  }

  // Calls use(j) for each neighbour j of atom i within the list's cutoff.
  template <typename Use> void for_neighbours(int i, Use use) const {
    double **x = atom->x;
    for (int n = 0; n < list_->numneigh[i]; ++n) {
      const int j = list_->firstneigh[i][n] & NEIGHMASK;
      const double dx = x[j][0] - x[i][0], dy = x[j][1] - x[i][1], dz = x[j][2] - x[i][2];
      if (is_ours(j) && dx * dx + dy * dy + dz * dz <= cutoff_squared_)
        use(j);
    }
  }

  // In a hybrid style the list covers only some of the own atoms.
  std::vector<char> listed() const {
    std::vector<char> has_list(node_.size(), 0);
    for (int n = 0; n < list_->inum + list_->gnum; ++n)
      has_list[list_->ilist[n]] = 1;
    return has_list;
  }

  Edges edges_to_owners(int hops) {
    std::unordered_map<tagint, int> owner;
    for (int i = 0; i < atom->nlocal; ++i)
      owner.emplace(atom->tag[i], i);
    const auto has_list = listed();
    Edges edges;
    for (const int i : graph_.atoms) {
      if (has_list[i])
        for_neighbours(i, [&](int j) {
          const auto found = owner.find(atom->tag[j]);
          if (found == owner.end())
            throw Error("a ghost atom has no owner; give every atom its own ID");
          edges.all.push_back({node_[found->second], image(j, found->second)});
        });
      edges.finish_centre();
    }
    graph_.topology.atoms_within.assign(hops, static_cast<int64_t>(graph_.atoms.size()));
    return edges;
  }

  // Breadth first: centres are the own atoms and ghosts fewer than `hops` edges away.
  Edges edges_to_ghosts(int hops) {
    const auto has_list = listed();
    Edges edges;
    size_t centre = 0;
    for (int hop = 0; hop < hops; ++hop) {
      const size_t end = graph_.atoms.size();
      graph_.topology.atoms_within.push_back(static_cast<int64_t>(end));
      for (; centre < end; ++centre) {
        const int i = graph_.atoms[centre];
        if (has_list[i])
          for_neighbours(i, [&](int j) {
            add_node(j);
            edges.all.push_back({node_[j], {0, 0, 0}});
          });
        edges.finish_centre();
      }
    }
    return edges;
  }

  // Cell shift that takes an atom to its ghost.
  std::array<int, 3> image(int ghost, int own) const {
    const double *h = domain->h_inv;
    const double *a = atom->x[own], *b = atom->x[ghost];
    const double dx = b[0] - a[0], dy = b[1] - a[1], dz = b[2] - a[2];
    return {static_cast<int>(std::lround(h[0] * dx + h[5] * dy + h[4] * dz)),
            static_cast<int>(std::lround(h[1] * dy + h[3] * dz)),
            static_cast<int>(std::lround(h[2] * dz))};
  }

  void fill(const Edges &edges) {
    Topology &topology = graph_.topology;
    for (const int i : graph_.atoms)
      topology.species.push_back(species_[atom->type[i]]);
    const size_t n_edges = edges.all.size();
    topology.centre.reserve(n_edges);
    topology.neighbour.reserve(n_edges);
    topology.shifts.reserve(3 * n_edges);
    topology.reverse.reserve(n_edges);
    for (int64_t i = 0; i < edges.centres(); ++i)
      for (int64_t e = edges.first[i]; e < edges.first[i + 1]; ++e) {
        const Edge &edge = edges.all[e];
        topology.centre.push_back(i);
        topology.neighbour.push_back(edge.neighbour);
        topology.shifts.insert(topology.shifts.end(), edge.shift.begin(), edge.shift.end());
        topology.reverse.push_back(find_reverse(edges, i, edge));
      }
  }

  static int64_t find_reverse(const Edges &edges, int64_t centre, const Edge &edge) {
    if (edge.neighbour >= edges.centres())
      return -1;
    const Edge wanted{centre, {-edge.shift[0], -edge.shift[1], -edge.shift[2]}};
    const auto begin = edges.all.begin() + edges.first[edge.neighbour];
    const auto end = edges.all.begin() + edges.first[edge.neighbour + 1];
    const auto found = std::lower_bound(begin, end, wanted);
    return found != end && *found == wanted ? found - edges.all.begin() : -1;
  }

  NeighList *list_;
  const std::vector<int64_t> &species_;
  double cutoff_squared_;
  std::vector<int64_t> node_; // of each LAMMPS atom, -1 for none
  Graph graph_;
};

} // namespace

Graph build_graph(LAMMPS *lmp, NeighList *list, const std::vector<int64_t> &species,
                  double list_cutoff, int hops) {
  return Builder(lmp, list, species, list_cutoff).build(hops);
}

} // namespace pet
