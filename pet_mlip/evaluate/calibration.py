"""Errors against the uncertainties that a model states, accumulated without keeping them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from pet_mlip.data.structure import Structure
from pet_mlip.evaluate.errors import QUANTITIES
from pet_mlip.evaluate.sample import Sample

Floats = NDArray[np.float64]

GOOD = (0.55, 0.80)
"""Fractions within one standard deviation that are taken for well calibrated; 0.68 is right."""
SMALLEST = 1e-7
"""In eV or eV/Å: a standard deviation below it is that of something fixed by symmetry."""
ENOUGH = 20
"""Errors below which nothing is said about that."""


class Calibration:
    """How a stream of errors compares with their standard deviations."""

    def __init__(self) -> None:
        self.count = 0
        self.within_one = 0
        self.within_two = 0
        self._sum_of_squares = 0.0
        self._sum_of_variances = 0.0
        self._surprise = 0.0

    def add(self, error: ArrayLike, sigma: ArrayLike) -> None:
        """Add errors with their standard deviations, two arrays of one shape."""
        errors, sigmas = (np.asarray(x, dtype=np.float64).ravel() for x in (error, sigma))
        # What is zero by symmetry is no statement on errors.
        said = sigmas > SMALLEST
        errors, sigmas = errors[said], sigmas[said]
        ratio = np.abs(errors) / sigmas
        self.count += len(errors)
        self.within_one += int((ratio < 1.0).sum())
        self.within_two += int((ratio < 2.0).sum())
        self._sum_of_squares += float(np.square(errors).sum())
        self._sum_of_variances += float(np.square(sigmas).sum())
        self._surprise += float((0.5 * np.square(ratio) + np.log(sigmas)).sum())

    def to_dict(self, factor: float) -> dict[str, Any]:
        """Plain numbers; errors and uncertainties multiplied by a factor.

        ``nll`` is the mean of -log p of the errors in units of the quantity (not multiplied), of a
        normal distribution; smaller is better.
        """
        n = max(self.count, 1)
        return {
            "rmse": factor * math.sqrt(self._sum_of_squares / n),
            "uncertainty": factor * math.sqrt(self._sum_of_variances / n),
            "within_1_sigma": self.within_one / n,
            "within_2_sigma": self.within_two / n,
            "nll": self._surprise / n + 0.5 * math.log(2.0 * math.pi),
            "count": self.count,
        }


class CalibrationTable:
    """Calibration of energies and forces: of all data, per element and group."""

    def __init__(self) -> None:
        self.all: dict[str, Calibration] = {}
        self.elements: dict[str, dict[str, Calibration]] = {}
        self.groups: dict[str, dict[str, Calibration]] = {}
        self.samples: dict[str, Sample] = {}
        """(uncertainty, absolute error) pairs of each quantity, in its unit."""

    def add(self, structure: Structure, prediction: dict[str, Any]) -> None:
        """Add a structure with labels, and a prediction that has uncertainties."""
        if structure.energy is not None and "energy_uncertainty" in prediction:
            error = np.array([prediction["energy"] - structure.energy])
            self._add("energy", structure, error, np.array([prediction["energy_uncertainty"]]))
        if structure.forces is not None and "forces_uncertainty" in prediction:
            error = prediction["forces"] - structure.forces
            sigma = np.repeat(prediction["forces_uncertainty"][:, None], 3, axis=1)
            self._add("forces", structure, error, sigma)
            for z in np.unique(structure.species):
                mine = structure.species == z
                element = self.elements.setdefault(chemical_symbols[z], {})
                element.setdefault("forces", Calibration()).add(error[mine], sigma[mine])

    def _add(self, quantity: str, structure: Structure, error: Floats, sigma: Floats) -> None:
        self.all.setdefault(quantity, Calibration()).add(error, sigma)
        self.samples.setdefault(quantity, Sample()).add(np.abs(error), sigma)
        if structure.config_type is not None:
            group = self.groups.setdefault(structure.config_type, {})
            group.setdefault(quantity, Calibration()).add(error, sigma)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, in the units of errors."""

        def convert(found: dict[str, Calibration]) -> dict[str, Any]:
            return {name: c.to_dict(QUANTITIES[name].factor) for name, c in found.items()}

        return {
            "units": {name: QUANTITIES[name].error_unit for name in self.all},
            "all": convert(self.all),
            "elements": {name: convert(self.elements[name]) for name in sorted(self.elements)},
            "groups": {name: convert(self.groups[name]) for name in sorted(self.groups)},
            "miscalibrated": self.warnings(),
        }

    def warnings(self) -> list[str]:
        """Sentences on what is not calibrated on these data."""
        found = []
        for name, calibration in self.all.items():
            if calibration.count < ENOUGH:
                continue
            share = calibration.within_one / calibration.count
            if not GOOD[0] <= share <= GOOD[1]:
                what = "too small" if share < GOOD[0] else "too large"
                found.append(
                    f"The uncertainties of {QUANTITIES[name].title} are {what} on these data: "
                    f"{100 * share:.0f} % of the errors lie within one of them, and 68 % should. "
                    "Take them for a ranking, or find them anew with such data "
                    "(`pet-mlip uncertainty --set data.validation=...`)."
                )
        return found
