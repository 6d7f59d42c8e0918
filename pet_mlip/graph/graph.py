"""The neighbour graph that every model reads, and its padded layout."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.errors import UserError


class Graph(NamedTuple):
    """Atoms and directed edges of one or several structures, or of a domain of one.

    This is what data sets, calculators and programs of molecular dynamics hand to a model. All but
    the vectors stays the same as long as a neighbour list does.

    Edges are ordered by their centre. Every edge ``(i, j, S)``, to the image of j that is S cells
    away, comes with its reverse ``(j, i, -S)``; an atom may be its own neighbour through a periodic
    image and two atoms may share several edges. Edges longer than the model's cutoff are allowed
    and have no effect. Several structures are concatenated by offsetting their atom indices.

    A domain's own atoms come first, then those 1, 2, ... edges away from them, as far as the
    energies of its own atoms depend on them.
    """

    species: Tensor
    """Atomic numbers, (N,) int64."""
    edge_index: Tensor
    """Centre i (row 0, ascending) and neighbour j (row 1) of each edge, (2, E) int64."""
    edge_vectors: Tensor
    """r_j - r_i + S @ cell in Å, (E, 3) float64."""
    reverse: Tensor
    """Edge (j, i, -S) of each edge, (E,) int64; -1 where j is too far away to be a centre."""
    electronic: Tensor
    """Total charge and spin multiplicity 2S + 1 of each atom's structure, (N, 2) int64; of effect
    on models with `system_conditioning` only."""
    atoms_within: list[int]
    """How many atoms are at most 0, 1, 2, ... edges away from the domain's own, as far as energies
    reach; [N] where there are no others."""


class Padding(NamedTuple):
    """Where each edge sits in the padded (N, M) layout, M being the largest neighbour count."""

    edge: Tensor
    """Edge in each place, (N, M) int64; padded places hold some edge that exists."""
    mask: Tensor
    """True where the place is occupied, (N, M) bool."""


def electronic_state(n_atoms: int, charge: int = 0, spin_multiplicity: int = 1) -> Tensor:
    """The same total charge and spin multiplicity for all atoms, (N, 2) int64."""
    return torch.tensor([[charge, spin_multiplicity]], dtype=torch.int64).repeat(n_atoms, 1)


def check_order(graph: Graph) -> None:
    """Raise a UserError if edges are not ordered by centre: energies would be wrong."""
    centre = graph.edge_index[0]
    if bool((centre[1:] < centre[:-1]).any()):
        raise UserError(
            "The edges of a graph must be ordered by their centre: make it by "
            "pet_mlip.graph.graph.sort_edges."
        )


def map_tensors(graph: Graph, change: Callable[[Tensor], Tensor]) -> Graph:
    """Apply a function, such as one that copies to a device, to each tensor of a graph."""
    return Graph(
        change(graph.species),
        change(graph.edge_index),
        change(graph.edge_vectors),
        change(graph.reverse),
        change(graph.electronic),
        graph.atoms_within,
    )


def sort_edges(
    species: Tensor,
    edge_index: Tensor,
    edge_vectors: Tensor,
    edge_shifts: Tensor,
    electronic: Tensor,
    cutoff: float,
) -> Graph:
    """Make a graph of the edges shorter than a cutoff, which may come in any order.

    Args:
        species: Atomic numbers, (N,) int64.
        edge_index: Centre and neighbour of each edge, (2, E) int64.
        edge_vectors: r_j - r_i + S @ cell in Å, (E, 3) float64; may require grad.
        edge_shifts: Cell shifts S, (E, 3) int64.
        electronic: Charge and spin multiplicity, (N, 2) int64.
        cutoff: In Å.
    """
    length = edge_vectors.detach().square().sum(dim=1)
    near = torch.nonzero(length < cutoff * cutoff).squeeze(1)
    near = near[torch.argsort(edge_index[0, near], stable=True)]
    n_atoms = species.shape[0]
    pairs = edge_index[:, near]
    reverse = find_reverse(pairs, edge_shifts[near], n_atoms)
    return Graph(species, pairs, edge_vectors[near], reverse, electronic, [n_atoms])


def select_edges(graph: Graph, inside: Tensor) -> Graph:
    """Keep some of the edges, both directions of each, in a graph without ghosts.

    Args:
        graph: Atoms and edges.
        inside: Which edges stay, (E,) bool.
    """
    edges = torch.nonzero(inside).squeeze(1)
    return Graph(
        graph.species,
        graph.edge_index[:, edges],
        graph.edge_vectors[edges],
        renumber(graph.reverse, inside, edges),
        graph.electronic,
        graph.atoms_within,
    )


def renumber(reverse: Tensor, inside: Tensor, edges: Tensor) -> Tensor:
    """Find the reverses among some of the edges, (E',) int64; any number where there is none.

    Args:
        reverse: Reverse of every edge, (E,) int64; -1 where it is missing.
        inside: Whether it is among them, (E,) bool.
        edges: Their numbers, ascending, (E',) int64.
    """
    place = inside.cumsum(0) - 1
    return place.index_select(0, reverse.index_select(0, edges).clamp(min=0))


def find_reverse(edge_index: Tensor, edge_shifts: Tensor, n_atoms: int) -> Tensor:
    """Find the reverse (j, i, -S) of each edge, (E,) int64; -1 where it is missing.

    Edges are identified by integers: images are never confused.

    Args:
        edge_index: Centre and neighbour of each edge, (2, E) int64.
        edge_shifts: Cell shifts S, (E, 3).
        n_atoms: Number of atoms.
    """
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
