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
    counts, labels = _rows(structures, name, result, species)
    if len(labels) == 0:
        return ResultBaseline(dict.fromkeys(species, 0.0), 1.0)
    # Sums over atoms are compared per atom, as the loss compares them.
    atoms = counts.sum(axis=1)
    counts = counts / atoms[:, None]
    labels = labels / atoms.reshape(-1, *[1] * result.rank)
    values = np.zeros(len(species))
    if result.rank == 0:
        values = np.linalg.lstsq(counts, labels, rcond=None)[0]
        labels = labels - counts @ values
    elif result.rank == 2:
        traces = np.trace(labels, axis1=1, axis2=2) / 3.0
        values = np.linalg.lstsq(counts, traces, rcond=None)[0]
        labels = labels - (counts @ values)[:, None, None] * np.eye(3)
    scale = math.sqrt(float(np.mean(labels**2)))
    usable = scale > 1e-12 and math.isfinite(scale)
    return ResultBaseline(
        dict(zip(species, map(float, values), strict=True)), scale if usable else 1.0
    )


def _rows(
    structures: Sequence[Structure], name: str, result: Result, species: Sequence[int]
) -> tuple[Floats, Floats]:
    """Numbers of atoms of each species (L, species) behind each of L labels, and the labels."""
    counts: list[Floats] = [np.zeros((0, len(species)))]
    labels: list[Floats] = [np.zeros((0, *result.shape))]
    for s in structures:
        found = (s.atomic_results if result.per_atom else s.results).get(name)
        if found is None or s.n_atoms == 0:
            continue
        one_hot = (np.asarray(s.species)[:, None] == np.asarray(species)[None, :]).astype(float)
        counts.append(one_hot if result.per_atom else one_hot.sum(axis=0, keepdims=True))
        labels.append(found if result.per_atom else found[None])
    return np.concatenate(counts), np.concatenate(labels)
