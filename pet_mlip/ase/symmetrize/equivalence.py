"""Frames in which a receptive field looks the same: they need be evaluated once only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pet_mlip.ase.symmetrize.fields import Bonds, Fields, ranges

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOLERANCE = 1e-11
"""Largest difference of coordinates in Å that is taken for round-off."""


class Framed(NamedTuple):
    """A structure in the frames of its atoms."""

    numbers: Ints
    """Atomic numbers and whatever else tells atoms apart, (N, k)."""
    bonds: Bonds
    fields: Fields
    vectors: Floats
    """(E, 3)."""
    distances: Floats
    """(E,)."""
    atom: Ints
    """Atom of each frame, (F,)."""
    matrix: Floats
    """(F, 3, 3)."""

    def rotated(self, frame: int, atom: int) -> Floats:
        """Neighbours of an atom, as a frame shows them: rotated vectors and distances, (m, 4)."""
        edges = slice(self.bonds.first[atom], self.bonds.first[atom + 1])
        turned = self.vectors[edges] @ self.matrix[frame]
        return np.column_stack([turned, self.distances[edges]])


class Copies(NamedTuple):
    """Which frames are copies of which, F frames in all."""

    original: Ints
    """For each frame the one that is evaluated in its place, or itself, (F,)."""
    frame: Ints
    """For each edge of the field of each copied frame: that frame, (C,)."""
    edge: Ints
    """... that edge of the structure, (C,)."""
    source: Ints
    """... and the edge of the original's field that it corresponds to, (C,)."""


def find_copies(framed: Framed, depth: int) -> Copies:
    """Frames whose receptive fields are the same up to the numbering of atoms and edges.

    Everything that an atomic energy depends on is compared: the rotated coordinates of all atoms
    that are at most ``depth`` edges away. Equal fields have equal energies, and gradients that
    differ by the numbering only.
    """
    original = np.arange(len(framed.atom))
    found: list[tuple[int, Ints, Ints]] = []
    for group in alike(framed):
        originals: list[int] = []
        for frame in group:
            for candidate in originals:
                match = correspondence(framed, candidate, frame, depth)
                if match is not None:
                    original[frame] = candidate
                    found.append((frame, *match))
                    break
            else:
                originals.append(frame)
    empty = np.zeros(0, dtype=np.int64)
    return Copies(
        original,
        np.concatenate([empty, *(np.full(len(edge), f) for f, edge, _ in found)]),
        np.concatenate([empty, *(edge for _, edge, _ in found)]),
        np.concatenate([empty, *(source for _, _, source in found)]),
    )


def alike(framed: Framed) -> list[Ints]:
    """Groups of frames whose first neighbours have the same fingerprint, each of several frames."""
    if len(framed.atom) == 0:
        return []
    first = framed.bonds.first[framed.atom]
    degree = framed.bonds.first[framed.atom + 1] - first
    edge = ranges(first, degree)
    frame = np.repeat(np.arange(len(framed.atom)), degree)
    turned = np.einsum("ei,eij->ej", framed.vectors[edge], framed.matrix[frame])
    # Any function of a neighbour serves, if different neighbours rarely have equal values.
    kind = framed.numbers @ np.sqrt(2.0 + np.arange(framed.numbers.shape[1]))
    phase = turned @ [0.731, 1.173, 1.618] + 0.3 * framed.distances[edge]
    value = np.sin(phase) * (1.0 + 0.1 * kind[framed.bonds.pairs[1][edge]])
    total = np.bincount(frame, value, minlength=len(framed.atom))
    total = total + 10.0 * kind[framed.atom] + 100.0 * degree
    order = np.argsort(total, kind="stable")
    # Round-off and tolerance of the coordinates, summed over the neighbours.
    gap = np.diff(total[order]) > 1e-8
    groups = np.split(order, np.flatnonzero(gap) + 1)
    return [group for group in groups if len(group) > 1]


def correspondence(
    framed: Framed, original: int, copy: int, depth: int
) -> tuple[Ints, Ints] | None:
    """Edges of a frame's field and those of another one's that they correspond to.

    Walks both fields from their owners: the neighbours of corresponding atoms correspond where
    their rotated coordinates agree. None if they do not agree everywhere.
    """
    bonds, fields = framed.bonds, framed.fields
    owner = framed.atom[original]
    partner = {owner: framed.atom[copy]}
    edges, sources = [], []
    own = slice(fields.first[owner], fields.first[owner + 1])
    for atom in fields.atom[own][fields.hop[own] < depth]:
        there, here = framed.rotated(original, atom), framed.rotated(copy, partner[atom])
        if len(there) != len(here) or (framed.numbers[atom] != framed.numbers[partner[atom]]).any():
            return None
        difference = np.abs(there[:, None] - here[None]).max(axis=2, initial=0.0)
        match = difference.argmin(axis=1) if len(there) else np.zeros(0, dtype=np.int64)
        if len(np.unique(match)) < len(match):
            return None
        if (difference[np.arange(len(match)), match] > TOLERANCE).any():
            return None
        source = bonds.first[atom] + np.arange(len(there))
        edge = bonds.first[partner[atom]] + match
        for a, b in zip(bonds.pairs[1][source], bonds.pairs[1][edge], strict=True):
            if partner.setdefault(a, b) != b or (framed.numbers[a] != framed.numbers[b]).any():
                return None
        edges.append(edge)
        sources.append(source)
    return np.concatenate(edges), np.concatenate(sources)
