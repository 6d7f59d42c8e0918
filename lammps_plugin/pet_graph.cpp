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
#include <map>
#include <tuple>
#include <unordered_map>
#include <utility>

using namespace LAMMPS_NS;

namespace pet {

namespace {

using Cells = std::array<int, 3>;

// One neighbour of a node; the order groups what `find_reverse` searches.
struct Edge {
  int64_t neighbour;
  Cells shift;
  int64_t end; // point

  bool operator<(const Edge &other) const {
    return std::tie(neighbour, shift) < std::tie(other.neighbour, other.shift);
  }
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
  Builder(LAMMPS *lmp, NeighList *list, const Atoms &atoms)
      : Pointers(lmp), list_(list), species_(atoms.species), hops_(atoms.hops),
        cutoff_squared_(atoms.list_cutoff * atoms.list_cutoff),
        node_(atom->nlocal + atom->nghost, -1), point_(node_.size(), -1) {
    // In a hybrid style the list covers only some of the own atoms: others are not the model's.
    listed_.assign(node_.size(), 0);
    for (int n = 0; n < list_->inum + list_->gnum; ++n)
      listed_[list_->ilist[n]] = 1;
    for (int i = 0; i < atom->nlocal; ++i)
      if (listed_[i] && species_[i] != 0)
        add_node(i);
  }

  Graph build() {
    Edges edges;
    if (comm->nprocs == 1) {
      edges = edges_to_owners();
    } else {
      edges = edges_to_ghosts();
      graph_.points = graph_.atoms;
    }
    fill(edges);
    return std::move(graph_);
  }

  Graph build_unfolded() {
    const Edges edges = unfold(edges_to_owners());
    fill(edges);
    return std::move(graph_);
  }

private:
  void add_node(int i) {
    if (node_[i] >= 0)
      return;
    node_[i] = static_cast<int64_t>(graph_.atoms.size());
    graph_.atoms.push_back(i);
  }

  int64_t add_point(int i) {
    if (point_[i] < 0) {
      point_[i] = static_cast<int64_t>(graph_.points.size());
      graph_.points.push_back(i);
    }
    return point_[i];
  }

  // Calls use(j) for each neighbour j of atom i within the list's cutoff.
  template <typename Use> void for_neighbours(int i, Use use) const {
    double **x = atom->x;
    for (int n = 0; n < list_->numneigh[i]; ++n) {
      const int j = list_->firstneigh[i][n] & NEIGHMASK;
      const double dx = x[j][0] - x[i][0], dy = x[j][1] - x[i][1], dz = x[j][2] - x[i][2];
      if (dx * dx + dy * dy + dz * dz <= cutoff_squared_)
        use(j);
    }
  }

  Edges edges_to_owners() {
    std::unordered_map<tagint, int> owner;
    for (int i = 0; i < atom->nlocal; ++i)
      if (!owner.emplace(atom->tag[i], i).second)
        throw Error("the atom ID " + std::to_string(atom->tag[i]) +
                    " is given twice, so that images of its atoms cannot be told apart; give "
                    "every atom an ID of its own (reset_atoms id)");
    for (const int i : graph_.atoms)
      add_point(i);
    Edges edges;
    for (const int i : graph_.atoms) {
      for_neighbours(i, [&](int j) {
        const auto found = owner.find(atom->tag[j]);
        if (found == owner.end())
          throw Error("a ghost atom has no owner; give every atom its own ID");
        const int own = found->second;
        if (node_[own] >= 0)
          edges.all.push_back({node_[own], image(j, own), add_point(j)});
      });
      edges.finish_centre();
    }
    graph_.topology.atoms_within.assign(hops_, static_cast<int64_t>(graph_.atoms.size()));
    return edges;
  }

  // Breadth first: centres are the own atoms and ghosts fewer than `hops_` edges away.
  Edges edges_to_ghosts() {
    Edges edges;
    size_t centre = 0;
    for (int hop = 0; hop < hops_; ++hop) {
      const size_t end = graph_.atoms.size();
      graph_.topology.atoms_within.push_back(static_cast<int64_t>(end));
      for (; centre < end; ++centre) {
        const int i = graph_.atoms[centre];
        if (listed_[i])
          for_neighbours(i, [&](int j) {
            if (species_[j] == 0)
              return;
            add_node(j);
            edges.all.push_back({node_[j], {0, 0, 0}, node_[j]});
          });
        edges.finish_centre();
      }
    }
    return edges;
  }

  // Breadth first through the images of the own atoms, which become nodes.
  Edges unfold(const Edges &folded) {
    const std::vector<int> owners = std::move(graph_.atoms);
    graph_.atoms.clear();
    graph_.topology.atoms_within.clear();
    std::vector<int64_t> folded_node;
    std::map<std::pair<int64_t, Cells>, int64_t> index;
    const auto add_image = [&](int64_t own, const Cells &cells) {
      const auto [found, is_new] = index.try_emplace({own, cells}, folded_node.size());
      if (is_new) {
        folded_node.push_back(own);
        graph_.atoms.push_back(owners[own]);
        graph_.cells.push_back(cells);
      }
      return found->second;
    };
    for (size_t own = 0; own < owners.size(); ++own)
      add_image(static_cast<int64_t>(own), {0, 0, 0});
    Edges edges;
    size_t centre = 0;
    for (int hop = 0; hop < hops_; ++hop) {
      const size_t last = folded_node.size();
      graph_.topology.atoms_within.push_back(static_cast<int64_t>(last));
      for (; centre < last; ++centre) {
        const int64_t own = folded_node[centre];
        const Cells from = graph_.cells[centre];
        for (int64_t e = folded.first[own]; e < folded.first[own + 1]; ++e) {
          const auto &[neighbour, step, ignored] = folded.all[e];
          const int64_t node =
              add_image(neighbour, {from[0] + step[0], from[1] + step[1], from[2] + step[2]});
          edges.all.push_back({node, {0, 0, 0}, node});
        }
        edges.finish_centre();
      }
    }
    graph_.points = graph_.atoms;
    return edges;
  }

  // Cells between an atom and its ghost.
  Cells image(int ghost, int own) const {
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
      topology.species.push_back(species_[i]);
    const size_t n_edges = edges.all.size();
    for (auto *const values :
         {&topology.centre, &topology.neighbour, &topology.ends, &topology.reverse})
      values->reserve(n_edges);
    for (int64_t i = 0; i < edges.centres(); ++i)
      for (int64_t e = edges.first[i]; e < edges.first[i + 1]; ++e) {
        const Edge &edge = edges.all[e];
        topology.centre.push_back(i);
        topology.neighbour.push_back(edge.neighbour);
        topology.ends.push_back(edge.end);
        topology.reverse.push_back(find_reverse(edges, i, edge));
      }
  }

  static int64_t find_reverse(const Edges &edges, int64_t centre, const Edge &edge) {
    if (edge.neighbour >= edges.centres())
      return -1;
    const Edge wanted{centre, {-edge.shift[0], -edge.shift[1], -edge.shift[2]}, 0};
    const auto begin = edges.all.begin() + edges.first[edge.neighbour];
    const auto end = edges.all.begin() + edges.first[edge.neighbour + 1];
    const auto found = std::lower_bound(begin, end, wanted);
    return found != end && !(wanted < *found) ? found - edges.all.begin() : -1;
  }

  NeighList *list_;
  const std::vector<int64_t> &species_;
  int hops_;
  double cutoff_squared_;
  std::vector<int64_t> node_, point_; // of each LAMMPS atom, -1 for none
  std::vector<char> listed_;          // whether it has neighbours of its own in the list
  Graph graph_;
};

} // namespace

Graph build_graph(LAMMPS *lmp, NeighList *list, const Atoms &atoms) {
  return Builder(lmp, list, atoms).build();
}

Graph build_unfolded_graph(LAMMPS *lmp, NeighList *list, const Atoms &atoms) {
  return Builder(lmp, list, atoms).build_unfolded();
}

} // namespace pet
