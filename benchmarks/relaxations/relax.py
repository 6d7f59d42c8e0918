"""One crystal relaxed by one calculator, and what became of its symmetry."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import spglib
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from benchmarks.relaxations.crystals import START, Crystal, cell_of, space_group

TOLERANCES = (1e-2, 1e-5)
"""Å within which the space group is looked for afterwards (spglib's symprec)."""


@dataclass
class Relaxation:
    """How a relaxation ended."""

    name: str
    system: str
    before: int
    """Number of the space group before it."""
    after: dict[str, int]
    """After it, by tolerance."""
    kept: dict[str, bool]
    """Whether no operation of the space group was lost, by tolerance."""
    converged: bool
    steps: int
    seconds: float
    """Of processor time."""
    change: float
    """Of the volume, relative."""

    def as_json(self) -> dict[str, Any]:
        """Return what can be written."""
        return asdict(self)


def relax(crystal: Crystal, calculator: Calculator, largest_force: float, steps: int) -> Relaxation:
    """Relax atoms and cell together, as Matbench Discovery does (FIRE, Frechet's cell filter).

    Args:
        crystal: With all its symmetry.
        calculator: Energies, forces and stresses.
        largest_force: eV/Å at which it ends.
        steps: At most so many.
    """
    atoms = crystal.atoms.copy()
    atoms.calc = calculator
    optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
    start = time.process_time()
    converged = bool(optimizer.run(fmax=largest_force, steps=steps))
    seconds = time.process_time() - start
    before = n_operations(crystal.atoms, START)
    return Relaxation(
        crystal.name,
        crystal.system,
        crystal.number,
        {str(t): space_group(atoms, t) for t in TOLERANCES},
        {str(t): n_operations(atoms, t) >= before for t in TOLERANCES},
        converged,
        optimizer.nsteps,
        seconds,
        atoms.get_volume() / crystal.atoms.get_volume() - 1,
    )


def n_operations(atoms: Atoms, tolerance: float) -> int:
    """Count the operations that map the crystal onto itself, 1 where spglib finds none."""
    found = spglib.get_symmetry(cell_of(atoms), symprec=tolerance)
    return 1 if found is None else len(found["rotations"])
