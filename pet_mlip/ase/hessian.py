"""Second derivatives of the energy over positions, as differences of forces.

The derivative that the network writes out itself is exact and, in float64, has a dozen digits more
than a difference of it needs: that is why differences are taken, of many displaced copies at once
(`benchmarks/hessians.py` prints how exact they are).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pet_mlip.ase.engine import Ints, Output, join
from pet_mlip.ase.neighbours import Edges

Floats = NDArray[np.float64]
Forces = Callable[[Ints, Edges, Ints | None, bool], Output]

STEP = 1e-5
"""Displacements in Å: their squares and round-off over them are equally small."""
REACH = 4 * STEP
"""By how much edges that displaced copies share must reach beyond the cutoff, in Å."""
MAX_ATOMS = 2000
"""Evaluated at once, of all copies, about."""


def compute_hessian(
    forces: Forces, numbers: Ints, edges: Edges, electronic: Ints | None, indices: Ints
) -> Floats:
    """Compute d2E/dr_a dr_b of some atoms in eV/Å^2, (3n, 3n), symmetric.

    H_ab = -(F_b(r_a + h) - F_b(r_a - h)) / 2h, and the mean of H and its transpose.

    Args:
        forces: An engine in float64.
        numbers: Atomic numbers, (N,).
        edges: Within the cutoff and `REACH` more.
        electronic: Charge and spin multiplicity, (N, 2), or None.
        indices: The n atoms whose rows and columns are computed.
    """
    n_atoms, size = len(numbers), 3 * len(indices)
    per_batch = max(1, MAX_ATOMS // (2 * max(n_atoms, 1)))
    found = np.empty((size, size))
    for start in range(0, size, per_batch):
        rows = range(start, min(start + per_batch, size))
        copies = [
            _displaced(edges, int(indices[row // 3]), row % 3, sign * STEP)
            for row in rows
            for sign in (1, -1)
        ]
        joined_numbers, joined = join([numbers] * len(copies), copies)
        state = None if electronic is None else np.tile(electronic, (len(copies), 1))
        output = forces(joined_numbers, joined, state, True)
        assert output.forces is not None
        of_copies = output.forces.reshape(len(rows), 2, n_atoms, 3)[:, :, indices]
        difference = (of_copies[:, 1] - of_copies[:, 0]) / (2 * STEP)
        found[start : start + len(rows)] = difference.reshape(len(rows), size)
    return 0.5 * (found + found.T)


def _displaced(edges: Edges, atom: int, axis: int, step: float) -> Edges:
    """The edges after a displacement of an atom, and of all its images."""
    with torch.inference_mode(False), torch.no_grad():
        moved = (edges.pairs[1] == atom).double() - (edges.pairs[0] == atom).double()
        vectors = edges.vectors.clone()
        vectors[:, axis] += step * moved
    return edges._replace(vectors=vectors)
