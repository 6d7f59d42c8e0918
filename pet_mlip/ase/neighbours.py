"""A neighbour list that is kept while nothing moved far enough to matter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_mlip.data.neighbours import complete_cell, edge_vectors, neighbour_list

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Edges(NamedTuple):
    """Directed edges of one structure."""

    pairs: Ints
    """Centre i and neighbour j, (2, E)."""
    shifts: Ints
    """Cell shifts S, (E, 3)."""
    vectors: Floats
    """r_j - r_i + S @ cell in Å, (E, 3)."""


class _Reference(NamedTuple):
    """The structure that the kept list was built for."""

    numbers: Ints
    pbc: NDArray[np.bool_]
    positions: Floats
    cell: Floats
    pairs: Ints
    shifts: Ints


class SkinNeighbours:
    """Edges within a cutoff, found anew only when a pair outside the list could have come inside.

    The list reaches `skin` further than the cutoff. The vectors are computed from the current
    positions and cell in every call, in an order that depends on nothing but the structure: what
    a model that drops edges beyond its cutoff says never depends on when the list was built.

    Args:
        cutoff: In Å.
        skin: In Å; 0 builds the list in every call.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.n_builds = 0
        self._reference: _Reference | None = None

    def __call__(self, atoms: Atoms) -> Edges:
        """The edges of the structure, those within the cutoff and possibly some beyond."""
        reference = self._reference
        if reference is None or not self._is_valid(reference, atoms):
            reference = self._build(atoms)
        vectors = edge_vectors(atoms.positions, atoms.cell.array, reference.pairs, reference.shifts)
        return Edges(reference.pairs, reference.shifts, vectors)

    def _build(self, atoms: Atoms) -> _Reference:
        positions, cell = atoms.positions.copy(), atoms.cell.array.copy()
        edges = sorted_edges(positions, cell, atoms.pbc, self.cutoff + self.skin)
        self.n_builds += 1
        reference = _Reference(
            atoms.numbers.copy(), atoms.pbc.copy(), positions, cell, edges.pairs, edges.shifts
        )
        self._reference = reference if self.skin > 0 else None
        return reference

    def _is_valid(self, reference: _Reference, atoms: Atoms) -> bool:
        if len(atoms) == 0 or not np.array_equal(reference.numbers, atoms.numbers):
            return False
        if not np.array_equal(reference.pbc, atoms.pbc):
            return False
        strain = deformation(reference.cell, atoms.cell.array, atoms.pbc)
        # A pair at v became v @ strain plus the difference of two displacements: what was beyond
        # cutoff + skin is now beyond shrink * (cutoff + skin) - 2 * farthest.
        shrink = np.linalg.svd(strain, compute_uv=False)[-1]
        displacement = atoms.positions - reference.positions @ strain
        displacement -= displacement.mean(axis=0)
        farthest = np.sqrt(np.max(np.einsum("ij,ij->i", displacement, displacement), initial=0.0))
        return bool(shrink * (self.cutoff + self.skin) - 2.0 * farthest > self.cutoff)


def deformation(old: Floats, new: Floats, pbc: NDArray[np.bool_]) -> Floats:
    """A matrix D for which ``old @ D == new`` in the periodic cell vectors, (3, 3)."""
    if np.array_equal(old[pbc], new[pbc]):
        return np.eye(3)
    strain = np.linalg.solve(complete_cell(old, pbc), complete_cell(new, pbc))
    return np.asarray(strain, dtype=np.float64)


def sorted_edges(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float) -> Edges:
    """The neighbour list ordered by centre, neighbour and shift, whatever order it was found in."""
    pairs, shifts, vectors = neighbour_list(positions, cell, pbc, cutoff)
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], pairs[1], pairs[0]))
    return Edges(pairs[:, order], shifts[order], vectors[order])
