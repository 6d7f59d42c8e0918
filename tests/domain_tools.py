"""Domains as a parallel simulation makes them: some atoms with a shell of ghosts."""

from typing import NamedTuple

import torch
from ase import Atoms
from model_tools import graph_of, lists_of, shifts_of
from torch import Tensor

from pet_mlip.graph.graph import Graph, electronic_state


class Domain(NamedTuple):
    """Own atoms first, then ghosts by their number of edges away."""

    graph: Graph
    """Its vectors are those of the structure that it was made from."""
    points: Tensor
    """Of the atoms and, behind them, of images, (P, 3)."""
    ends: Tensor
    """Point at which each edge ends, (E,) int64."""
    source: Tensor
    """Atom of the structure that each one is (an image of), (N,) int64."""

    @property
    def lists(self) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """What an exported module is driven with, besides points."""
        return lists_of(self.graph)


def whole_system(atoms: Atoms, list_cutoff: float) -> Domain:
    """A structure whose edges may end at images of atoms, without ghosts."""
    graph = graph_of(atoms, cutoff=list_cutoff)
    # An image for each edge.
    positions, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    shifts = shifts_of(atoms, list_cutoff).double()
    images = positions[graph.edge_index[1]] + shifts @ cell
    ends = len(atoms) + torch.arange(len(images))
    return Domain(graph, torch.cat([positions, images]), ends, torch.arange(len(atoms)))


def domain_of(
    atoms: Atoms, own: list[int], list_cutoff: float, interaction_range: int, shells: int
) -> Domain:
    """Some atoms of a periodic structure, with ghosts up to ``shells`` edges away."""
    graph, shifts = graph_of(atoms, cutoff=list_cutoff), shifts_of(atoms, list_cutoff)
    edges: dict[int, list[tuple[int, tuple[int, ...]]]] = {i: [] for i in range(len(atoms))}
    for (i, j), shift in zip(graph.edge_index.t().tolist(), shifts.tolist(), strict=True):
        edges[i].append((j, tuple(shift)))

    images = [(i, (0, 0, 0)) for i in own]
    hop = dict.fromkeys(images, 0)
    for node in images:  # grows while it is walked: breadth first
        if hop[node] < shells:
            for j, shift in edges[node[0]]:
                image = (j, tuple(a + b for a, b in zip(node[1], shift, strict=True)))
                if image not in hop:
                    hop[image] = hop[node] + 1
                    images.append(image)
    number = {image: n for n, image in enumerate(images)}
    atoms_within = [sum(h <= d for h in hop.values()) for d in range(interaction_range)]
    pairs = []
    for i, shift in images[: atoms_within[-1]]:
        for j, step in edges[i]:
            image = (j, tuple(a + b for a, b in zip(shift, step, strict=True)))
            if image in number:
                pairs.append((number[(i, shift)], number[image]))
    place = {pair: n for n, pair in enumerate(pairs)}
    source = torch.tensor([i for i, _ in images], dtype=torch.int64)
    shifts = torch.tensor([s for _, s in images], dtype=torch.float64).reshape(-1, 3)
    cell = torch.tensor(atoms.cell.array)
    points = torch.tensor(atoms.positions)[source] + shifts @ cell
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t().contiguous()
    part = Graph(
        graph.species[source],
        index,
        points[index[1]] - points[index[0]],
        torch.tensor([place.get((j, i), -1) for i, j in pairs], dtype=torch.int64),
        electronic_state(len(source)),
        atoms_within,
    )
    return Domain(part, points, index[1], source)
