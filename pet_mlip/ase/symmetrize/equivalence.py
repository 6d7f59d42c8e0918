"""Frames in which a receptive field looks the same: they need be evaluated once only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pet_mlip.ase.symmetrize.fields import Bonds, Fields, ranges

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DIRECTION = np.array([0.731, 1.173, 1.618, 0.347])
"""Some direction that no symmetry has."""
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

    def seen(self, frames: Ints, edges: Ints) -> Floats:
        """Edges as frames show them: rotated vectors and distances, (D, 4)."""
        turned = np.einsum("ei,eij->ej", self.vectors[edges], self.matrix[frames])
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
    for group in alike(framed, depth):
        orders = {frame: edge_order(framed, frame) for frame in group}
        originals: list[int] = []
        for frame in group:
            for candidate in originals:
                match = correspondence(framed, candidate, frame, orders, depth)
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


def alike(framed: Framed, depth: int) -> list[Ints]:
    """Groups of frames whose fields have the same fingerprint, each of several frames."""
    everything = np.arange(len(framed.atom))
    groups = split(everything, fingerprint(framed, everything, 1))
    return [part for group in groups for part in split(group, fingerprint(framed, group, depth))]


def split(frames: Ints, fingerprints: Floats) -> list[Ints]:
    """The frames in groups of the same fingerprint, without single ones."""
    order = np.argsort(fingerprints, kind="stable")
    # Round-off and tolerance of the coordinates, summed over the edges.
    gap = np.diff(fingerprints[order]) > 1e-8
    groups = np.split(frames[order], np.flatnonzero(gap) + 1)
    return [np.sort(group) for group in groups if len(group) > 1]


def fingerprint(framed: Framed, frames: Ints, depth: int) -> Floats:
    """A number for each frame that is equal for equal fields, and rarely for others.

    The sum over the edges that leave atoms less than ``depth`` edges away of some function of what
    the frame shows of them.
    """
    bonds, fields = framed.bonds, framed.fields
    kind = framed.numbers @ np.sqrt(2.0 + np.arange(framed.numbers.shape[1]))
    total = 10.0 * kind[framed.atom[frames]]
    for k, frame in enumerate(frames):
        owner = framed.atom[frame]
        own = slice(fields.first[owner], fields.first[owner + 1])
        atoms, hops = fields.atom[own], fields.hop[own]
        atoms, hops = atoms[hops < depth], hops[hops < depth]
        degree = bonds.first[atoms + 1] - bonds.first[atoms]
        edges = ranges(bonds.first[atoms], degree)
        seen = framed.seen(np.full(len(edges), frame), edges)
        weight = (1.0 + 0.1 * kind[bonds.pairs[1][edges]]) / (1.0 + np.repeat(hops, degree))
        total[k] += weight @ np.sin(seen @ DIRECTION) + 100.0 * len(edges)
    return total


def edge_order(framed: Framed, frame: int) -> Ints:
    """The edges ordered by centre, then by a coordinate of what the frame shows of them, (E,)."""
    edges = np.arange(framed.bonds.pairs.shape[1])
    seen = framed.seen(np.full(len(edges), frame), edges)
    return np.lexsort((seen @ DIRECTION, framed.bonds.pairs[0]))


def correspondence(
    framed: Framed, original: int, copy: int, orders: dict[int, Ints], depth: int
) -> tuple[Ints, Ints] | None:
    """Edges of a frame's field and those of another one's that they correspond to.

    Walks both fields from their owners: the neighbours of corresponding atoms correspond, in the
    order of their rotated coordinates, if these agree. None if they do not agree everywhere.
    """
    bonds, fields = framed.bonds, framed.fields
    owner = framed.atom[original]
    partner = np.full(bonds.n_atoms, -1)
    partner[owner] = framed.atom[copy]
    edges, sources = [], []
    own = slice(fields.first[owner], fields.first[owner + 1])
    for hop in range(depth):
        atoms = fields.atom[own][fields.hop[own] == hop]
        partners = partner[atoms]
        degree = bonds.first[atoms + 1] - bonds.first[atoms]
        if (degree != bonds.first[partners + 1] - bonds.first[partners]).any():
            return None
        source = orders[original][ranges(bonds.first[atoms], degree)]
        edge = orders[copy][ranges(bonds.first[partners], degree)]
        there = framed.seen(np.full(len(source), original), source)
        here = framed.seen(np.full(len(edge), copy), edge)
        if np.abs(there - here).max(initial=0.0) > TOLERANCE:
            return None
        reached, of_reached = bonds.pairs[1][source], bonds.pairs[1][edge]
        known = partner[reached]
        if ((known >= 0) & (known != of_reached)).any():
            return None
        partner[reached] = of_reached
        if (partner[reached] != of_reached).any():
            return None
        edges.append(edge)
        sources.append(source)
    matched = np.flatnonzero(partner >= 0)
    if (framed.numbers[matched] != framed.numbers[partner[matched]]).any():
        return None
    return np.concatenate(edges), np.concatenate(sources)
