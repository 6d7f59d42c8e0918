"""Neighbour lists of molecules, wires, slabs and crystals, found by matscipy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.geometry import minkowski_reduce
from matscipy.neighbours import neighbour_list as matscipy_neighbour_list
from numpy.typing import ArrayLike, NDArray

from pet_mlip.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The search goes a little further than asked; the strict cutoff is applied to the final vectors.
# Positions up to 1e9 Å are thereby safe from rounding.
SEARCH_MARGIN = 1e-5
# Largest number of periodic images that may be visited before the cell is reduced.
MANY_IMAGES = 1000
# Unwrapped atoms further away than this many cells are mistakes, not diffusion.
FARTHEST_CELL = 1e9


def neighbour_list(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float
) -> tuple[Ints, Ints, Floats]:
    """All directed pairs of atoms closer than the cutoff, periodic images included.

    Works for any periodicity, for cells smaller than the cutoff, skewed or left-handed, for atoms
    outside the cell, and without a cell; cell vectors of directions that are not periodic are
    ignored. For every edge (i, j, S) the reverse (j, i, -S) exists exactly once and its vector is
    the bitwise negative. Edges are ordered by their centre i.

    Args:
        positions: (N, 3) in Å.
        cell: (3, 3) cell vectors as rows in Å.
        pbc: Whether each of the three directions is periodic.
        cutoff: In Å; pairs with distance < cutoff are listed.

    Returns:
        edge_index (2, E), shifts S (E, 3) and vectors r_j - r_i + S @ cell (E, 3) in Å.

    Raises:
        UserError: Positions, cell or cutoff are not finite, or periodic cell vectors are linearly
            dependent.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    cell = np.ascontiguousarray(cell, dtype=np.float64).reshape(3, 3)
    edge_index, shifts = candidate_edges(prepare_search(positions, cell, pbc, cutoff))
    vectors = edge_vectors(positions, cell, edge_index, shifts)
    inside = np.einsum("ij,ij->i", vectors, vectors) < cutoff * cutoff
    if inside.all():
        return edge_index, shifts, vectors
    return edge_index[:, inside], shifts[inside], vectors[inside]


def edge_vectors(
    positions: Floats, cell: Floats, edge_index: NDArray[np.integer], shifts: NDArray[np.integer]
) -> Floats:
    """Vectors r_j - r_i + S @ cell of the edges, (E, 3) in Å.

    A matrix product could round the two directions of a pair differently; these element-wise
    operations cannot, so reverse edges have bitwise opposite vectors.
    """
    vectors = positions[edge_index[1]] - positions[edge_index[0]]
    if shifts.any():
        offset = shifts[:, 0:1] * cell[0] + shifts[:, 1:2] * cell[1]
        vectors += offset + shifts[:, 2:3] * cell[2]
    return vectors


def complete_cell(cell: Floats, pbc: NDArray[np.bool_]) -> Floats:
    """The cell with the vectors of non-periodic directions replaced by orthonormal ones.

    Raises:
        UserError: The periodic cell vectors are linearly dependent.
    """
    if not pbc.any():
        return np.eye(3)
    completed = cell.copy()
    if not pbc.all():
        _, _, basis = np.linalg.svd(cell[pbc])
        completed[~pbc] = basis[int(pbc.sum()) :]
    if is_degenerate(completed):
        directions = ", ".join(name for name, flag in zip("abc", pbc, strict=True) if flag)
        raise UserError(
            f"The cell is periodic along {directions}, but these cell vectors are zero or linearly "
            "dependent; set pbc to False for directions that are not periodic."
        )
    return completed


def is_degenerate(cell: Floats) -> bool:
    """Whether the cell vectors span no volume, judged by their directions."""
    lengths = np.linalg.norm(cell, axis=1)
    if not lengths.min() > 0:
        return True
    return bool(abs(np.linalg.det(cell / lengths[:, None])) < 1e-8)


def _check_finite(positions: Floats, cell: Floats, cutoff: float) -> None:
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise UserError(f"The cutoff of a neighbour list must be a positive length, not {cutoff}.")
    finite = np.isfinite(positions).all(axis=1)
    if not finite.all():
        raise UserError(f"The position of atom {int(np.argmin(finite))} is not finite.")
    if not np.isfinite(cell).all():
        raise UserError("The cell is not finite.")


class Search(NamedTuple):
    """A structure as finders of neighbours can take it: all atoms inside a box that spans a volume.

    Finders are slow or wrong for atoms outside the cell, want a volume, and allocate bins for
    vacuum. They are therefore given wrapped atoms in a box that is closely filled along
    non-periodic directions, which are orthogonal to all others.
    """

    positions: Floats
    """(N, 3) in Å."""
    box: Floats
    """(3, 3); cell vectors as rows in Å."""
    pbc: NDArray[np.bool_]
    reach: float
    """How far to search, in Å; a little beyond the cutoff."""
    wraps: Ints
    """Cells by which each atom was outside the box, (N, 3)."""
    reduction: Ints | None
    """Vectors of a reduced box in those of the cell, (3, 3); None if the cell was not reduced."""


def prepare_search(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float) -> Search:
    """What is to be searched for the neighbours of a structure.

    Arguments and errors are those of `neighbour_list`.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    cell = np.ascontiguousarray(cell, dtype=np.float64).reshape(3, 3)
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    _check_finite(positions, cell, cutoff)
    reach = float(cutoff) + SEARCH_MARGIN
    if len(positions) == 0:
        return Search(positions, np.eye(3), periodic, reach, np.zeros((0, 3), np.int64), None)
    box = complete_cell(cell, periodic)
    reduction = None
    if periodic.any() and _visited_images(box, periodic, reach) > MANY_IMAGES:
        box, reduction = minkowski_reduce(box, periodic)

    fractional = positions if not periodic.any() else positions @ np.linalg.inv(box)
    wraps = _wraps(fractional, periodic)
    fractional = fractional - wraps
    for axis in np.flatnonzero(~periodic):
        # The completed vectors have length one: fractional coordinates are lengths.
        filled = _close_gaps(fractional[:, axis], reach)
        extent = filled.max() + 1.0
        fractional[:, axis] = (filled + 0.5) / extent
        box[axis] *= extent
    return Search(fractional @ box, box, periodic, reach, wraps, reduction)


def candidate_edges(search: Search) -> tuple[Ints, Ints]:
    """Every pair within the cutoff, and some beyond, found by matscipy; ordered by centre.

    Returns:
        edge_index (2, E) and shifts (E, 3) of the structure that the search was prepared for.
    """
    n_atoms = len(search.positions)
    if n_atoms == 0:
        return np.zeros((2, 0), np.int64), np.zeros((0, 3), np.int64)
    centre, neighbour, image = matscipy_neighbour_list(
        "ijS",
        positions=search.positions,
        cell=search.box,
        pbc=search.pbc,
        cutoff=_affordable_cutoff(search.box, search.reach, n_atoms),
    )
    edge_index = np.empty((2, len(centre)), np.int64)
    edge_index[0], edge_index[1] = centre, neighbour
    shifts = image.astype(np.int64)
    if search.wraps.any():
        shifts += search.wraps[edge_index[0]] - search.wraps[edge_index[1]]
    return edge_index, shifts if search.reduction is None else shifts @ search.reduction


def _wraps(fractional: Floats, pbc: NDArray[np.bool_]) -> Ints:
    """Cells by which each atom lies outside the cell in the periodic directions, (N, 3)."""
    wraps = np.zeros(fractional.shape, np.int64)
    cells = np.floor(fractional[:, pbc])
    far = np.abs(cells).max(initial=0.0, axis=1)
    if far.max() > FARTHEST_CELL:
        atom = int(far.argmax())
        raise UserError(f"Atom {atom} is more than {FARTHEST_CELL:.0e} cells away from the cell.")
    wraps[:, pbc] = cells
    return wraps


def _heights(box: Floats) -> Floats:
    """Distances between opposite faces of the box."""
    inverse = np.linalg.inv(box)
    return 1.0 / np.sqrt((inverse * inverse).sum(axis=0))


def _visited_images(box: Floats, pbc: NDArray[np.bool_], reach: float) -> float:
    return float(np.prod(2 * np.ceil(reach / _heights(box)[pbc]) + 1))


def _close_gaps(coordinates: Floats, reach: float) -> Floats:
    """Coordinates from 0 on, with every gap wider than the reach narrowed to just above it.

    Atoms on both sides of such a gap are no neighbours before or after, and distances between
    atoms that no gap separates do not change.
    """
    order = coordinates.argsort()
    ordered = coordinates[order]
    coordinates = coordinates - ordered[0]
    gaps = ordered[1:] - ordered[:-1]
    excess = np.maximum(gaps - 1.01 * reach, 0.0)
    if not excess.any():
        return coordinates
    coordinates[order[1:]] -= np.cumsum(excess)
    return coordinates


def count_bins(box: Floats, reach: float) -> float:
    """Number of bins, each at least as wide as the reach, that fill the box."""
    return float(np.prod(np.maximum(np.floor(_heights(box) / reach), 1)))


def _affordable_cutoff(box: Floats, reach: float, n_atoms: int) -> float:
    """A cutoff, not below the reach, for which matscipy's bins stay in proportion to the atoms."""
    while count_bins(box, reach) > 100_000 + 64 * n_atoms:
        reach *= 1.25
    return reach
