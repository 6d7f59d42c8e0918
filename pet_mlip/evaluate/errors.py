"""Errors of predictions, accumulated without keeping them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import ArrayLike, NDArray

from pet_mlip.data.structure import Structure

Floats = NDArray[np.float64]


class Quantity(NamedTuple):
    """Something that is compared."""

    title: str
    unit: str
    """Of its values."""
    error_unit: str
    factor: float
    """From the former to the latter."""


QUANTITIES = {
    "energy_per_atom": Quantity("energy per atom", "eV/atom", "meV/atom", 1000.0),
    "energy": Quantity("total energy", "eV", "meV", 1000.0),
    "forces": Quantity("force components", "eV/Å", "meV/Å", 1000.0),
    "stress": Quantity("stress components", "eV/Å^3", "meV/Å^3", 1000.0),
}
"""What comes from the energy."""


def quantity_of(name: str, unit: str) -> Quantity:
    """What is compared under a name; results that are no energies keep their unit."""
    return QUANTITIES.get(name, Quantity(name, unit, unit, 1.0))


class Errors:
    """Mean absolute, root mean square and largest error of a stream of numbers."""

    def __init__(self) -> None:
        self.count = 0
        self.largest = 0.0
        self._sum = 0.0
        self._sum_of_squares = 0.0
        self._reference_mean = 0.0
        self._reference_spread = 0.0

    def add(self, predicted: ArrayLike, reference: ArrayLike) -> None:
        """Add predictions with their references, two arrays of one shape."""
        known = np.asarray(reference, dtype=np.float64).ravel()
        error = np.abs(np.asarray(predicted, dtype=np.float64).ravel() - known)
        if len(error) == 0:
            return
        self.largest = max(self.largest, float(error.max()))
        self._sum += float(error.sum())
        self._sum_of_squares += float(np.square(error).sum())
        self._add_reference(known)
        self.count += len(error)

    def _add_reference(self, known: Floats) -> None:
        # Chan's update: total energies would lose all digits in a plain sum of squares.
        mean, n = float(known.mean()), len(known)
        shift, total = mean - self._reference_mean, self.count + n
        self._reference_spread += float(np.square(known - mean).sum())
        self._reference_spread += shift * shift * self.count * n / total
        self._reference_mean += shift * n / total

    @property
    def mae(self) -> float:
        """Mean absolute error; nan if nothing was added."""
        return self._sum / self.count if self.count else float("nan")

    @property
    def rmse(self) -> float:
        """Root mean square error; nan if nothing was added."""
        return (self._sum_of_squares / self.count) ** 0.5 if self.count else float("nan")

    @property
    def reference_std(self) -> float:
        """Standard deviation of the references: the error of predicting their mean."""
        return (self._reference_spread / self.count) ** 0.5 if self.count else float("nan")

    def to_dict(self, scale: float = 1.0) -> dict[str, Any]:
        """Summarize in plain numbers, errors multiplied by `scale`."""
        return {
            "mae": scale * self.mae,
            "rmse": scale * self.rmse,
            "max": scale * self.largest,
            "reference_std": scale * self.reference_std,
            "count": self.count,
        }


class ErrorTable:
    """Errors of energies, forces, stresses and other results: of all data, per element and group.

    Errors are of components, those of symmetric tensors of the six that are independent. Only
    structures with a label count for it.

    Args:
        result_units: Of results that are no energies, by name.
    """

    def __init__(self, result_units: Mapping[str, str] | None = None) -> None:
        self.quantities = {**QUANTITIES}
        for name, unit in (result_units or {}).items():
            self.quantities[name] = quantity_of(name, unit)
        self.all: dict[str, Errors] = {}
        self.elements: dict[str, dict[str, Errors]] = {}
        self.groups: dict[str, dict[str, Errors]] = {}

    def add(self, structure: Structure, prediction: dict[str, Any]) -> None:
        """Add a structure with labels and what a calculator says of it (eV, Å)."""
        for quantity, predicted, reference in labelled(structure, prediction):
            _entry(self.all, quantity).add(predicted, reference)
            if structure.config_type is not None:
                group = self.groups.setdefault(structure.config_type, {})
                _entry(group, quantity).add(predicted, reference)
        if structure.forces is not None:
            for z in np.unique(structure.species):
                mine = structure.species == z
                element = self.elements.setdefault(chemical_symbols[z], {})
                _entry(element, "forces").add(prediction["forces"][mine], structure.forces[mine])

    def to_dict(self) -> dict[str, Any]:
        """Summarize in plain types, in the units of errors; groups only where the data have any."""

        def convert(errors: dict[str, Errors]) -> dict[str, Any]:
            known = {name: q for name, q in self.quantities.items() if name in errors}
            return {name: errors[name].to_dict(q.factor) for name, q in known.items()}

        return {
            "units": {k: q.error_unit for k, q in self.quantities.items() if k in self.all},
            "all": convert(self.all),
            "elements": {name: convert(self.elements[name]) for name in sorted(self.elements)},
            "groups": {name: convert(self.groups[name]) for name in sorted(self.groups)},
        }


def labelled(
    structure: Structure, prediction: dict[str, Any]
) -> list[tuple[str, ArrayLike, ArrayLike]]:
    """(quantity, prediction, reference) for the labels that a structure has."""
    found: list[tuple[str, ArrayLike, ArrayLike]] = []
    if structure.energy is not None:
        energies = prediction["energy"], structure.energy
        n_atoms = structure.n_atoms
        found.append(("energy_per_atom", energies[0] / n_atoms, energies[1] / n_atoms))
        found.append(("energy", *energies))
    if structure.forces is not None:
        found.append(("forces", prediction["forces"], structure.forces))
    if structure.stress is not None and "stress" in prediction:
        reference = full_3x3_to_voigt_6_stress(structure.stress)
        found.append(("stress", prediction["stress"], reference))
    for name, values in structure.results.items():
        if name in prediction:
            pair = components(prediction[name][None]), components(values[None])
            found.append((name, *pair))
    for name, values in structure.atomic_results.items():
        if name in prediction:
            found.append((name, components(prediction[name]), components(values)))
    return found


def components(values: Floats) -> Floats:
    """The numbers in K scalars, vectors, or symmetric tensors, of which six are independent."""
    i, j = np.triu_indices(3)
    return values[:, i, j] if values.ndim == 3 else values


def _entry(errors: dict[str, Errors], quantity: str) -> Errors:
    return errors.setdefault(quantity, Errors())
