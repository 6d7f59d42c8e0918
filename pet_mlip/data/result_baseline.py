"""Baselines and scales of results that are no energies: networks learn numbers of size one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pet_mlip.data.structure import Structure
from pet_mlip.results import Result

Floats = NDArray[np.float64]


class ResultBaseline(NamedTuple):
    """What the network need not learn of a result."""

    values: dict[int, float]
    """Of an atom of each species, by atomic number; of tensors, a third of the trace."""
    scale: float
    """Root mean square of the remaining components, of sums over atoms per atom; one if all vanish
    or there is no label."""


def fit_result_baseline(
    structures: Sequence[Structure], name: str, result: Result, species: Sequence[int]
) -> ResultBaseline:
    """Fit the values of the species to the labels by least squares.

    Vectors have no baseline: it would have to have a direction. Where compositions do not tell the
    species apart, the solution of least norm is taken.

    Args:
        structures: The training set.
        name: Of the result.
        result: Its declaration.
        species: Atomic numbers, ascending.
    """
    if result.per_atom:
        return _fit_atoms(structures, name, result, species)
    known = [s for s in structures if name in s.results and s.n_atoms > 0]
    if not known:
        return ResultBaseline(dict.fromkeys(species, 0.0), 1.0)
    # Sums over atoms are compared per atom, as the loss compares them.
    shares = np.array([[np.mean(s.species == z) for z in species] for s in known])
    labels = np.array([s.results[name] / s.n_atoms for s in known])
    values = np.zeros(len(species))
    if result.rank != 1:
        values = np.linalg.lstsq(shares, _scalars(labels), rcond=None)[0]
    remaining = _without(labels, shares @ values)
    return ResultBaseline(_by_species(species, values), _scale(np.sum(remaining**2), labels.size))


def _fit_atoms(
    structures: Sequence[Structure], name: str, result: Result, species: Sequence[int]
) -> ResultBaseline:
    """As `fit_result_baseline`, of labels of atoms: means over the atoms of each species."""
    sums, counts, place = np.zeros(len(species)), np.zeros(len(species)), np.asarray(species)
    known = [s for s in structures if name in s.atomic_results and s.n_atoms > 0]
    for s in known:
        index = np.searchsorted(place, s.species)
        counts += np.bincount(index, minlength=len(species))
        if result.rank != 1:
            sums += np.bincount(index, _scalars(s.atomic_results[name]), minlength=len(species))
    values = sums / np.maximum(counts, 1.0)
    total, size = 0.0, 0
    for s in known:
        labels = s.atomic_results[name]
        remaining = _without(labels, values[np.searchsorted(place, s.species)])
        total, size = total + float(np.sum(remaining**2)), size + labels.size
    return ResultBaseline(_by_species(species, values), _scale(total, size))


def _scalars(values: Floats) -> Floats:
    """What a baseline can describe of scalars (L,) or tensors (L, 3, 3): a third of the trace."""
    return np.trace(values, axis1=1, axis2=2) / 3.0 if values.ndim == 3 else values


def _without(values: Floats, baseline: Floats) -> Floats:
    """The values less a baseline (L,), which vectors do not have."""
    if values.ndim == 3:
        return values - baseline[:, None, None] * np.eye(3)
    return values - baseline if values.ndim == 1 else values


def _by_species(species: Sequence[int], values: Floats) -> dict[int, float]:
    return dict(zip(species, map(float, values), strict=True))


def _scale(sum_of_squares: float, count: int) -> float:
    """Root mean square; one where that is no scale."""
    scale = math.sqrt(sum_of_squares / count) if count else 0.0
    return scale if scale > 1e-12 and math.isfinite(scale) else 1.0
