"""The numbers that describe a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Range:
    """Smallest, mean and largest value, and the standard deviation."""

    min: float
    mean: float
    max: float
    std: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Range | None:
        """Of the finite values; None if there are none."""
        array = np.asarray(list(values), dtype=np.float64)
        array = array[np.isfinite(array)]
        if len(array) == 0:
            return None
        return cls(float(array.min()), float(array.mean()), float(array.max()), float(array.std()))


@dataclass(frozen=True)
class Outlier:
    """A structure far from the others."""

    source: str
    quantity: str
    value: float
    sigmas: float
    """Distance from the median in robust standard deviations."""


@dataclass
class DataStatistics:
    """Numbers about a data set; eV and Å, and None where nothing can be said."""

    n_structures: int
    n_atoms: int
    elements: dict[str, int]
    """Atoms of each element."""
    atoms_per_structure: Range | None
    periodicity: dict[str, int]
    """Structures by periodic directions: "none", "c", "ab", "abc" ..."""
    labels: dict[str, int]
    """Structures with energy, forces, stress."""
    config_types: dict[str, int]
    cutoff: float
    neighbours: Range | None
    """Neighbours per atom within the cutoff."""
    nearest_distance: Range | None
    """Shortest distance of each structure."""
    shortest_by_pair: dict[str, float]
    """Shortest distance of each pair of elements within the cutoff, as in "C-H"."""
    volume_per_atom: Range | None
    energy_per_atom: Range | None
    energy_residual: Range | None
    """Energy per atom less the least-squares composition baseline."""
    force_norm: Range | None
    force_rms: float | None
    """Root mean square of the components."""
    force_rms_by_element: dict[str, float]
    pressure: Range | None
    """-trace(stress) / 3 in eV/Å^3."""
    outliers: list[Outlier] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    """Groups of identical structures."""
    problems: list[str] = field(default_factory=list)
    """Mistakes that training would refuse."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)
