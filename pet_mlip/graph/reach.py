"""How far into a domain each layer has to be evaluated."""

from typing import NamedTuple

import torch
from torch import Tensor


class Reach(NamedTuple):
    """The centres that each step of the network needs, as leading parts of the atoms and edges.

    Atoms are ordered by how many edges away from the domain's own atoms they are, edges by their
    centre. Entry ``l`` counts what layer ``l`` is evaluated on; the last entry, after all layers,
    counts the domain's own atoms and the edges out of them.
    """

    atoms: list[int]
    edges: list[int]


def full_reach(n_layers: int, n_atoms: int, n_edges: int) -> Reach:
    """Every layer on every atom: the atoms are all there are."""
    return Reach([n_atoms] * (n_layers + 1), [n_edges] * (n_layers + 1))


def domain_reach(
    n_layers: int, message_range: int, atoms_within: list[int], centre: Tensor
) -> Reach:
    """Layer ``l`` on the atoms at most ``message_range - 1 - l`` edges away.

    Args:
        n_layers: GNN layers.
        message_range: Edges through which messages can reach an atomic energy, in a row.
        atoms_within: How many atoms are at most 0, 1, ... ``message_range - 1`` (or more) edges
            away from the domain's own; the first number counts those themselves.
        centre: Centre of each edge, ascending, (E,) int64.
    """
    atoms: list[int] = []
    for layer in range(n_layers + 1):
        atoms.append(atoms_within[max(message_range - 1 - layer, 0)])
    starts = torch.searchsorted(centre, torch.tensor(atoms).to(centre.device))
    edges: list[int] = starts.tolist()
    return Reach(atoms, edges)
