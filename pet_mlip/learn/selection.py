"""Which structures of the simulations are labelled: uncertain ones that are far from all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_mlip.ase.calculator import PETCalculator

Floats = NDArray[np.float64]

BLOCK = 2048
"""Atoms whose distances to others are held at once."""


def farthest_structures(
    calculator: PETCalculator, known: Sequence[Atoms], candidates: Sequence[Atoms], count: int
) -> list[int]:
    """Choose candidates one by one, each the farthest from what is known and chosen before.

    The distance of two atoms of the same element is that of their last features, measured by what
    the training data say of them: how uncertain the difference of their energies is. A structure is
    as far from others as its farthest atom is from its nearest one there.

    Args:
        calculator: Of a model that knows its uncertainty.
        known: Structures that were learned from.
        candidates: To choose from.
        count: Most of them.

    Returns:
        Places of those chosen, the farthest first.
    """
    if not candidates:
        return []
    numbers = np.concatenate([atoms.numbers for atoms in candidates])
    owner = np.repeat(np.arange(len(candidates)), [len(atoms) for atoms in candidates])
    features = np.concatenate(calculator.compute_features(candidates))
    nearest = np.full(len(numbers), np.inf)
    for group in _groups(known):
        known_numbers = np.concatenate([atoms.numbers for atoms in group])
        known_features = np.concatenate(calculator.compute_features(group))
        nearest = np.minimum(nearest, _to_nearest(features, numbers, known_features, known_numbers))
    chosen: list[int] = []
    while len(chosen) < min(count, len(candidates)):
        far = np.full(len(candidates), -np.inf)
        np.maximum.at(far, owner, nearest)
        far[chosen] = -np.inf
        best = int(np.argmax(far))
        if not far[best] > 0:
            break  # copies of what is there
        chosen.append(best)
        own = owner == best
        new = _to_nearest(features, numbers, features[own], numbers[own])
        nearest = np.minimum(nearest, new)
    return chosen


def _groups(structures: Sequence[Atoms]) -> list[list[Atoms]]:
    """Consecutive structures of about a block of atoms."""
    groups: list[list[Atoms]] = []
    size = BLOCK
    for atoms in structures:
        if size >= BLOCK:
            groups.append([])
            size = 0
        groups[-1].append(atoms)
        size += len(atoms)
    return groups


def _to_nearest(
    features: Floats, numbers: NDArray[np.int64], others: Floats, other_numbers: NDArray[np.int64]
) -> Floats:
    """Distance of each atom to the nearest of others of its element; infinite without any."""
    found = np.full(len(numbers), np.inf)
    for z in np.intersect1d(numbers, other_numbers):
        targets = others[other_numbers == z]
        squares = np.square(targets).sum(axis=1)
        places = np.flatnonzero(numbers == z)
        for start in range(0, len(places), BLOCK):
            block = places[start : start + BLOCK]
            own = features[block]
            distance = np.square(own).sum(axis=1)[:, None] + squares - 2.0 * own @ targets.T
            found[block] = np.sqrt(np.maximum(distance.min(axis=1), 0.0))
    return found
