"""Energies and forces of GFN2-xTB, by tblite."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree
from numpy.typing import NDArray
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator

LARGEST_FORCE = 20.0
"""eV/Å: what is farther out is left out."""
STEP = 0.01
"""Å^2/eV: a geometry's second label is taken where its forces lead, half relaxed."""
LARGEST_STEP = 0.1
"""Å."""


def label(numbers: list[int], positions: NDArray[np.float64], smiles: str) -> list[Atoms]:
    """Label a geometry and a second one a step along its forces; fewer if GFN2 fails."""
    found = []
    calculator = Calculator("GFN2-xTB", np.array(numbers), positions / Bohr)
    calculator.set("verbosity", 0)
    state = None
    for step in range(2):
        try:
            state = calculator.singlepoint(state)
        except TBLiteRuntimeError:
            break
        energy = float(state.get("energy")) * Hartree
        forces = -np.asarray(state.get("gradient")) * Hartree / Bohr
        if not np.isfinite(forces).all():
            break
        if np.linalg.norm(forces, axis=1).max() <= LARGEST_FORCE:
            atoms = Atoms(numbers, positions, info={"smiles": smiles, "step": step})
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            found.append(atoms)
        move = STEP * forces
        longest = float(np.linalg.norm(move, axis=1).max())
        positions = positions + move * min(1.0, LARGEST_STEP / max(longest, 1e-12))
        calculator.update(positions / Bohr)
    return found
