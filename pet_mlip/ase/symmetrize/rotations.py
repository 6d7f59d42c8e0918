"""Approximate invariance: the average over a fixed set of orientations, or one at random."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import lebedev_rule
from scipy.spatial.transform import Rotation

from pet_mlip.ase.engine import Engine, Output, join
from pet_mlip.graph.graph import Graph

Floats = NDArray[np.float64]

LEBEDEV_DEGREES = (*range(3, 32, 2), *range(35, 132, 6))
GROUPS = {"C1": 0, "D2": 1, "T": 2, "O": 3, "I": 5}
"""Rotation groups, and the degree up to which they average exactly."""


class RotationAverage:
    """Predictions averaged over orthogonal matrices, the same for every structure.

    Args:
        engine: A plain exported model.
        matrices: Orthogonal, (K, 3, 3).
        weights: Adding up to one, (K,).
        max_atoms: Atoms evaluated at once.
    """

    def __init__(
        self, engine: Engine, matrices: Floats, weights: Floats, max_atoms: int = 2000
    ) -> None:
        self.engine = engine
        self.matrices = matrices
        self.weights = weights
        self.max_atoms = max_atoms

    def __call__(self, graph: Graph, gradient: bool) -> Output:
        """Evaluate a graph; arguments as for `Engine`."""
        n_atoms = graph.species.shape[0]
        at_once = max(self.max_atoms // max(n_atoms, 1), 1)
        energies, forces = np.zeros(n_atoms), np.zeros((n_atoms, 3))
        virials = np.zeros((n_atoms, 3, 3))
        for start in range(0, len(self.matrices), at_once):
            matrices = self.matrices[start : start + at_once]
            weights = self.weights[start : start + at_once]
            with torch.inference_mode(False), torch.no_grad():
                turned = torch.from_numpy(matrices).to(graph.edge_vectors.device)
                vectors = graph.edge_vectors @ turned
            copies = join([graph._replace(edge_vectors=v) for v in vectors])
            output = self.engine(copies, gradient)
            energies += weights @ output.energies.reshape(-1, n_atoms)
            if output.forces is not None and output.virials is not None:
                of_copies = output.forces.reshape(-1, n_atoms, 3)
                forces += np.einsum("k,knj,kij->ni", weights, of_copies, matrices)
                v = output.virials.reshape(-1, n_atoms, 3, 3)
                virials += np.einsum("k,kab,knbc,kdc->nad", weights, matrices, v, matrices)
        n_frames = np.full(n_atoms, len(self.matrices))
        return Output(
            energies, n_frames, forces if gradient else None, virials if gradient else None
        )


class RandomRotation:
    """Predictions in one random orientation, another one in every call.

    Energies and forces fluctuate from call to call around the average over all orientations: of
    use in a thermostatted simulation, not in a relaxation.

    Args:
        engine: A plain exported model.
        seed: Of the rotations.
    """

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.random = np.random.default_rng(seed)
        self.before = self.random.bit_generator.state
        """State of the generator before the last rotation: set again, it repeats that one."""

    def __call__(self, graph: Graph, gradient: bool) -> Output:
        """Evaluate a graph; arguments as for `Engine`."""
        self.before = self.random.bit_generator.state
        matrix = Rotation.random(rng=self.random).as_matrix()
        if self.random.random() < 0.5:
            matrix = -matrix
        average = RotationAverage(self.engine, matrix[None], np.ones(1))
        return average(graph, gradient)


def quadrature(degree: int) -> tuple[Floats, Floats]:
    """Orthogonal matrices and weights that average exactly what has that angular degree at most.

    The average over all rotations of a Wigner function of degree l > 0 is zero. The average over a
    finite group is zero too, unless the group leaves some function of degree l alone: the first
    such l are 2, 3, 4 and 6 for the rotations of a rectangle, tetrahedron, cube and icosahedron.
    Above, a Lebedev grid of axes, with degree + 1 equally spaced angles about each: they leave only
    the functions that do not depend on that angle, which are spherical harmonics of the axis. All
    of it is taken with the inversion.

    Args:
        degree: Largest degree of Wigner functions that are averaged exactly, 0 ... 131.

    Returns:
        Matrices (K, 3, 3) and weights (K,).
    """
    group = next((name for name, largest in GROUPS.items() if largest >= degree), None)
    if group is not None:
        proper = Rotation.create_group(group).as_matrix()
        weights = np.full(len(proper), 1.0 / len(proper))
    else:
        proper, weights = lebedev_grid(degree)
    return np.concatenate([proper, -proper]), np.concatenate([weights, weights]) / 2.0


def lebedev_grid(degree: int) -> tuple[Floats, Floats]:
    """Rotations (K, 3, 3) and weights (K,) for degrees of 1 ... 131."""
    order = next(order for order in LEBEDEV_DEGREES if order >= degree)
    axes, weights = lebedev_rule(order)
    n_angles = degree + 1
    angles = np.tile(2.0 * np.pi / n_angles * np.arange(n_angles), len(weights))
    polar = np.repeat(np.arccos(np.clip(axes[2], -1.0, 1.0)), n_angles)
    azimuth = np.repeat(np.arctan2(axes[1], axes[0]), n_angles)
    euler = np.column_stack([azimuth, polar, angles])
    # A position r goes to r @ R^T, as in metatomic: first about z, then z onto the grid.
    rotations = Rotation.from_euler("ZYZ", euler).as_matrix().transpose(0, 2, 1)
    return rotations, np.repeat(weights / weights.sum(), n_angles) / n_angles
