"""The neighbour graph that every model reads, and its padded layout."""

from typing import NamedTuple

import torch
from torch import Tensor


class Graph(NamedTuple):
    """Atoms and directed edges of one or several structures.

    Every edge ``(i, j, S)`` comes with its reverse ``(j, i, -S)``; an atom may be its own
    neighbour through a periodic image and two atoms may share several edges. Edges longer than the
    model's cutoff are allowed and have no effect. Several structures are concatenated by
    offsetting their atom indices.
    """

    species: Tensor
    """Atomic numbers, (N,) int64."""
    edge_index: Tensor
    """Centre i (row 0) and neighbour j (row 1) of each edge, (2, E) int64."""
    edge_vectors: Tensor
    """r_j - r_i + S @ cell in Å, (E, 3) float64."""
    edge_shifts: Tensor
    """Cell shifts S, (E, 3) int64."""
    electronic: Tensor
    """Total charge and spin multiplicity 2S + 1 of each atom's structure, (N, 2) int64; of effect
    on models with `system_conditioning` only."""


class Topology(NamedTuple):
    """What stays the same while atoms move: a neighbour list with a skin, built for a domain."""

    species: Tensor
    """Atomic numbers, (N,) int64; the domain's own atoms first, then those 1, 2, ... edges away."""
    edge_index: Tensor
    """Centre i and neighbour j of each directed edge, ordered by centre, (2, E) int64."""
    reverse: Tensor
    """Edge (j, i, -S) of each edge, (E,) int64; -1 where j is too far away to be a centre."""
    atoms_within: list[int]
    """How many atoms are at most 0, 1, 2, ... edges away from the domain's own."""


class Padding(NamedTuple):
    """Where each edge sits in the padded (N, M) layout, M being the largest neighbour count."""

    edge: Tensor
    """Edge in each place, (N, M) int64; padded places hold some edge that exists."""
    mask: Tensor
    """True where the place is occupied, (N, M) bool."""


def electronic_state(n_atoms: int, charge: int = 0, spin_multiplicity: int = 1) -> Tensor:
    """The same total charge and spin multiplicity for all atoms, (N, 2) int64."""
    return torch.tensor([[charge, spin_multiplicity]], dtype=torch.int64).repeat(n_atoms, 1)


def select_edges(graph: Graph, edges: Tensor) -> Graph:
    """The graph with only the given edges, in the given order."""
    return Graph(
        graph.species,
        graph.edge_index[:, edges],
        graph.edge_vectors[edges],
        graph.edge_shifts[edges],
        graph.electronic,
    )


def edges_within(graph: Graph, cutoff: float) -> Tensor:
    """Indices of the edges shorter than the cutoff, ordered by centre, (E',) int64."""
    vectors = graph.edge_vectors.detach()
    inside = torch.nonzero((vectors * vectors).sum(dim=1) < cutoff * cutoff).squeeze(1)
    order = torch.argsort(graph.edge_index[0, inside], stable=True)
    return inside[order]


def reverse_edges(graph: Graph) -> Tensor:
    """Index of the reverse (j, i, -S) of each edge, (E,) int64; -1 where it is missing."""
    return find_reverse(graph.edge_index, graph.edge_shifts, graph.species.shape[0])


def find_reverse(edge_index: Tensor, edge_shifts: Tensor, n_atoms: int) -> Tensor:
    """See `reverse_edges`. Edges are identified by integers: images are never confused."""
    n_edges = edge_index.shape[1]
    if n_edges == 0:
        return torch.zeros(0, dtype=torch.int64, device=edge_index.device)
    centre, neighbour = edge_index[0], edge_index[1]
    shifts = edge_shifts.to(torch.int64)
    # The range is symmetric, so that S and -S have codes in the same range.
    largest = shifts.abs().max() + 1
    width = 2 * largest + 1

    code = ((shifts[:, 0] + largest) * width + shifts[:, 1] + largest) * width + shifts[:, 2]
    reverse_code = ((largest - shifts[:, 0]) * width + largest - shifts[:, 1]) * width
    reverse_code = reverse_code - shifts[:, 2]
    n_codes = width * width * width
    key = (centre * n_atoms + neighbour) * n_codes + code + largest
    reverse_key = (neighbour * n_atoms + centre) * n_codes + reverse_code + largest

    sorted_key, order = torch.sort(key)
    place = torch.searchsorted(sorted_key, reverse_key).clamp(max=n_edges - 1)
    found = sorted_key[place] == reverse_key
    return torch.where(found, order[place], torch.full_like(place, -1))


def count_each(index: Tensor, n: int) -> Tensor:
    """How often each of 0 ... n - 1 occurs, (n,) int64; the host waits for nothing."""
    count = torch.zeros(n, dtype=torch.int64, device=index.device)
    return count.index_add_(0, index, torch.ones_like(index))


def pad_edges(centre: Tensor, n_atoms: int) -> Padding:
    """Padded layout of edges that are ordered by centre.

    Args:
        centre: Centre of each edge, ascending, (E,) int64.
        n_atoms: Number of atoms.
    """
    n_edges = centre.shape[0]
    count = count_each(centre, n_atoms)
    first = torch.cumsum(count, dim=0) - count
    width = int(count.max()) if n_edges > 0 else 0
    places = torch.arange(width, device=centre.device)
    mask = places[None, :] < count[:, None]
    # Padded places read an edge of their own atom: gradients of a gather never pile up on one row.
    edge = first[:, None] + torch.where(mask, places[None, :], torch.zeros_like(places))
    return Padding(edge.clamp(max=max(n_edges - 1, 0)), mask)
