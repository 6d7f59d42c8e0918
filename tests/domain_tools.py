"""Domains as a parallel simulation makes them: some atoms with a shell of ghosts."""

from typing import NamedTuple

import torch
from ase import Atoms
from torch import Tensor

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.graph.graph import Topology, reverse_edges


class Domain(NamedTuple):
    """Own atoms first, then ghosts by their number of edges away."""

    topology: Topology
    points: Tensor
    """Of the atoms and, behind them, of images, (P, 3)."""
    ends: Tensor
    """Point at which each edge ends, (E,) int64."""
    source: Tensor
    """Atom of the structure that each one is (an image of), (N,) int64."""


def whole_system(atoms: Atoms, list_cutoff: float, interaction_range: int) -> Domain:
    """A structure whose edges may end at images of atoms, without ghosts."""
    graph = batch_from_atoms([atoms], list_cutoff).graph
    order = torch.argsort(graph.edge_index[0], stable=True)
    graph = graph._replace(
        edge_index=graph.edge_index[:, order],
        edge_shifts=graph.edge_shifts[order],
        edge_vectors=graph.edge_vectors[order],
    )
    topology = Topology(
        graph.species,
        graph.edge_index,
        reverse_edges(graph),
        [len(atoms)] * interaction_range,
    )
    # An image for each edge.
    positions, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    images = positions[graph.edge_index[1]] + graph.edge_shifts.double() @ cell
    ends = len(atoms) + torch.arange(len(images))
    return Domain(topology, torch.cat([positions, images]), ends, torch.arange(len(atoms)))


def domain_of(
    atoms: Atoms, own: list[int], list_cutoff: float, interaction_range: int, shells: int
) -> Domain:
    """Some atoms of a periodic structure, with ghosts up to ``shells`` edges away."""
    graph = batch_from_atoms([atoms], list_cutoff).graph
    edges: dict[int, list[tuple[int, tuple[int, ...]]]] = {i: [] for i in range(len(atoms))}
    for (i, j), shift in zip(
        graph.edge_index.t().tolist(), graph.edge_shifts.tolist(), strict=True
    ):
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
    index = {image: n for n, image in enumerate(images)}
    atoms_within = [sum(h <= d for h in hop.values()) for d in range(interaction_range)]
    pairs = []
    for i, shift in images[: atoms_within[-1]]:
        for j, step in edges[i]:
            image = (j, tuple(a + b for a, b in zip(shift, step, strict=True)))
            if image in index:
                pairs.append((index[(i, shift)], index[image]))
    place = {pair: n for n, pair in enumerate(pairs)}
    source = torch.tensor([i for i, _ in images], dtype=torch.int64)
    shifts = torch.tensor([s for _, s in images], dtype=torch.float64).reshape(-1, 3)
    topology = Topology(
        graph.species[source],
        torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t().contiguous(),
        torch.tensor([place.get((j, i), -1) for i, j in pairs], dtype=torch.int64),
        atoms_within,
    )
    cell = torch.tensor(atoms.cell.array)
    points = torch.tensor(atoms.positions)[source] + shifts @ cell
    return Domain(topology, points, topology.edge_index[1], source)
