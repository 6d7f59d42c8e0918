"""Receptive fields: the part of a structure that one atomic energy depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Bonds:
    """The directed edges of N atoms, ordered by centre."""

    pairs: Ints
    """Centre and neighbour, (2, E)."""
    reverse: Ints
    """Reverse of each edge, (E,)."""
    first: Ints
    """First edge of each atom, then E, (N + 1,)."""

    @property
    def n_atoms(self) -> int:
        """N."""
        return len(self.first) - 1


class Fields(NamedTuple):
    """For each of N atoms, the atoms at most a number of edges away, nearest first."""

    first: Ints
    """Where each atom's list starts in the arrays below, then their length, (N + 1,)."""
    atom: Ints
    hop: Ints
    """Number of edges from the list's owner."""


class Domain(NamedTuple):
    """U receptive fields side by side, in the order that the exported model asks for."""

    atom: Ints
    """Atom of the structure that each node is a copy of, (P,); the owners come first."""
    atoms_within: list[int]
    """Nodes at most 0, 1, ... edges away from an owner."""
    pairs: Ints
    """Centre and neighbour, (2, D)."""
    reverse: Ints
    """(D,); -1 where the neighbour is no centre."""
    edge: Ints
    """Edge of the structure that each edge is a copy of, (D,)."""
    field: Ints
    """Which of the U fields each edge belongs to, (D,)."""


def ranges(start: Ints, count: Ints) -> Ints:
    """The numbers start, ..., start + count - 1 of each row, one row after another."""
    before = np.cumsum(count) - count
    return np.arange(count.sum()) + np.repeat(start - before, count)


def receptive_fields(bonds: Bonds, depth: int) -> Fields:
    """The atoms at most ``depth`` edges away from each atom, found breadth first for all at once.

    Atoms are those of the structure: images of one atom are one atom.
    """
    n_atoms = bonds.n_atoms
    # A pair (owner, atom) is the number owner * N + atom.
    frontier = np.arange(n_atoms, dtype=np.int64) * (n_atoms + 1)
    seen, hops = frontier, np.zeros(n_atoms, dtype=np.int64)
    for hop in range(1, depth + 1):
        owner, atom = np.divmod(frontier, n_atoms)
        count = bonds.first[atom + 1] - bonds.first[atom]
        reached = bonds.pairs[1][ranges(bonds.first[atom], count)]
        frontier = np.setdiff1d(np.repeat(owner, count) * n_atoms + reached, seen)
        seen = np.concatenate([seen, frontier])
        hops = np.concatenate([hops, np.full(len(frontier), hop)])
    owner, atom = np.divmod(seen, max(n_atoms, 1))
    order = np.lexsort((atom, hops, owner))
    first = np.searchsorted(owner[order], np.arange(n_atoms + 1))
    return Fields(first, atom[order], hops[order])


def make_domain(bonds: Bonds, fields: Fields, owners: Ints, depth: int) -> Domain:
    """Copies of the receptive fields of some atoms, which may repeat.

    Args:
        bonds: Edges of the structure.
        fields: Its receptive fields of the same depth.
        owners: Atom whose energy each copy is for, (U,).
        depth: How many edges away an atom can matter.
    """
    count = fields.first[owners + 1] - fields.first[owners]
    place = ranges(fields.first[owners], count)
    field = np.repeat(np.arange(len(owners)), count)
    order = np.argsort(fields.hop[place], kind="stable")
    atom, hop, field = fields.atom[place[order]], fields.hop[place[order]], field[order]
    node = np.full((len(owners), bonds.n_atoms), -1, dtype=np.int64)
    node[field, atom] = np.arange(len(atom))

    within = [int(n) for n in np.searchsorted(hop, np.arange(depth), side="right")]
    centres = atom[: within[-1]]
    first = bonds.first[centres]
    degree = bonds.first[centres + 1] - first
    edge = ranges(first, degree)
    centre = np.repeat(np.arange(len(centres)), degree)
    neighbour = node[field[centre], bonds.pairs[1][edge]]
    is_centre = neighbour < len(centres)
    target = np.where(is_centre, neighbour, 0)
    start = np.cumsum(degree) - degree
    reverse = start[target] + bonds.reverse[edge] - first[target]
    return Domain(
        atom,
        within,
        np.stack([centre, neighbour]),
        np.where(is_centre, reverse, -1),
        edge,
        field[centre],
    )
