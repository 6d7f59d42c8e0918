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
from pet_mlip.errors import UserError
from pet_mlip.graph.graph import Graph

Floats = NDArray[np.float64]
Forces = Callable[[Graph, bool], Output]

STEP = 1e-5
"""Displacements in Å: their squares and round-off over them are equally small."""
CHECK = 20.0
"""How many times farther all atoms go together in the comparison that `check_steps` makes."""
REACH = 4 * CHECK * STEP
"""By how much edges that displaced copies share must reach beyond the cutoff, in Å."""
LARGEST_DIFFERENCE = 4e-3
"""Between both, of the largest element. As errors go with the square of the displacement, that of
the Hessian is `CHECK`^2 times smaller; usual models have 1e-8 to 1e-5."""
SMALL = 0.1
"""eV/Å^2; elements of a Hessian below which differences are round-off."""
MAX_ATOMS = 2000
"""Evaluated at once, of all copies, about."""


def compute_hessian(forces: Forces, graph: Graph, indices: Ints) -> Floats:
    """Compute d2E/dr_a dr_b of some atoms in eV/Å^2, (3n, 3n), symmetric.

    H_ab = -(F_b(r_a + h) - F_b(r_a - h)) / 2h, and the mean of H and its transpose.

    Args:
        forces: An engine in float64.
        graph: A structure with edges within the cutoff and `REACH` more.
        indices: The n atoms whose rows and columns are computed.

    Raises:
        UserError: The energy is so steep that the derivative depends on the displacement.
    """
    n_atoms, size = graph.species.shape[0], 3 * len(indices)
    per_batch = max(1, MAX_ATOMS // (2 * max(n_atoms, 1)))
    found = np.empty((size, size))
    for start in range(0, size, per_batch):
        rows = range(start, min(start + per_batch, size))
        copies = []
        for row in rows:
            moved = np.zeros((n_atoms, 3))
            moved[indices[row // 3], row % 3] = STEP
            copies += [_displaced(graph, moved), _displaced(graph, -moved)]
        of_copies = _forces_of(forces, copies).reshape(len(rows), 2, n_atoms, 3)[:, :, indices]
        difference = (of_copies[:, 1] - of_copies[:, 0]) / (2 * STEP)
        found[start : start + len(rows)] = difference.reshape(len(rows), size)
    found = 0.5 * (found + found.T)
    check_steps(forces, graph, indices, found)
    return found


def check_steps(forces: Forces, graph: Graph, indices: Ints, hessian: Floats) -> None:
    """Compare a Hessian with differences of another size along one direction, of all its atoms.

    Raises:
        UserError: They differ, as where attention that is saturated goes from one neighbour to
            another within less than the displacement.
    """
    if len(hessian) == 0:
        return
    moved = np.zeros((graph.species.shape[0], 3))
    moved[indices] = np.random.default_rng(0).uniform(-1.0, 1.0, size=(len(indices), 3))
    direction = moved[indices].ravel()
    copies = [_displaced(graph, sign * CHECK * STEP * moved) for sign in (1, -1)]
    of_copies = _forces_of(forces, copies)[:, indices]
    expected = (of_copies[1] - of_copies[0]).ravel() / (2 * CHECK * STEP)
    difference = np.abs(hessian @ direction - expected).max()
    if difference > LARGEST_DIFFERENCE * max(np.abs(hessian).max(), SMALL):
        raise UserError(
            f"The Hessian depends on the displacement: differences of {STEP:g} and "
            f"{CHECK * STEP:g} Å differ by {difference:.2g} eV/Å^2. The model's energy is steep "
            "here, which a training that went well does not make: train it anew with half the "
            "learning rate, or use another model."
        )


def _forces_of(forces: Forces, copies: list[Graph]) -> Floats:
    """The forces in each of the copies, (copies, N, 3)."""
    output = forces(join(copies), True)
    assert output.forces is not None
    return output.forces.reshape(len(copies), -1, 3)


def _displaced(graph: Graph, moved: Floats) -> Graph:
    """The graph after displacements of the atoms (N, 3), and of all their images."""
    with torch.inference_mode(False), torch.no_grad():
        by_atom = torch.from_numpy(moved).to(graph.edge_vectors.device)
        centre, neighbour = graph.edge_index
        change = by_atom.index_select(0, neighbour) - by_atom.index_select(0, centre)
        return graph._replace(edge_vectors=graph.edge_vectors + change)
