"""One structure with its labels, in eV and Å, raw as they stand in the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from pet_mlip.data.neighbours import is_degenerate

Floats = NDArray[np.float64]


class Source(NamedTuple):
    """Where a structure comes from."""

    file: str
    """Name of the file as the user gave it."""
    frame: int
    """Number of the structure in the file, from 0."""

    def __str__(self) -> str:
        return f"{self.file}, frame {self.frame}"


@dataclass(eq=False)
class Structure:
    """Atoms with the labels that the file holds for them; a missing label is None."""

    species: NDArray[np.integer]
    """Atomic numbers, (N,)."""
    positions: Floats
    """Positions in Å, (N, 3), not wrapped."""
    cell: Floats
    """Cell vectors as rows, (3, 3) in Å; zero where there is none."""
    pbc: NDArray[np.bool_]
    """Whether each direction is periodic, (3,)."""
    energy: float | None = None
    """Total energy in eV."""
    forces: Floats | None = None
    """Forces in eV/Å, (N, 3), never zeroed by constraints."""
    stress: Floats | None = None
    """Stress dE/d(strain) / V in eV/Å^3, (3, 3); None for structures without a volume."""
    results: dict[str, Floats] = field(default_factory=dict)
    """Other labels of the whole structure by name: (), (3,) or (3, 3)."""
    atomic_results: dict[str, Floats] = field(default_factory=dict)
    """Other labels of its atoms by name: (N,), (N, 3) or (N, 3, 3)."""
    charge: int = 0
    """Total charge, of effect on models with `system_conditioning` only."""
    spin_multiplicity: int = 1
    """2S + 1, of effect on models with `system_conditioning` only."""
    subtracted: str | None = None
    """What the file says was taken from the labels (by examples/tools/subtract_d3.py)."""
    config_type: str | None = None
    """Group to which the structure belongs."""
    source: Source = field(default_factory=lambda: Source("memory", 0))

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.species)

    @property
    def volume(self) -> float:
        """Volume of the user's own cell in Å^3; nan without periodicity or without a volume."""
        if not self.pbc.any() or is_degenerate(self.cell):
            return float("nan")
        return float(abs(np.linalg.det(self.cell)))

    def to_atoms(self) -> Atoms:
        """Make ASE atoms with the labels: energy, forces and stress as calculator results.

        Other labels, charge and multiplicity stand in `info` and `arrays`.
        """
        atoms = Atoms(self.species, self.positions, cell=self.cell, pbc=self.pbc)
        labels = {
            "energy": self.energy,
            "forces": self.forces,
            "stress": None if self.stress is None else full_3x3_to_voigt_6_stress(self.stress),
        }
        labels = {name: value for name, value in labels.items() if value is not None}
        if labels:
            atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info.update(self.results)
        for name, values in self.atomic_results.items():
            atoms.set_array(name, values)
        if self.config_type is not None:
            atoms.info["config_type"] = self.config_type
        if self.subtracted is not None:
            atoms.info["subtracted"] = self.subtracted
        if self.charge != 0:
            atoms.info["charge"] = self.charge
        if self.spin_multiplicity != 1:
            atoms.info["spin_multiplicity"] = self.spin_multiplicity
        return atoms
