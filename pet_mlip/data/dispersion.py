"""D3, which models can leave out of what they learn: subtracted from labels, added to results."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, InputError
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import Bohr
from numpy.typing import NDArray

from pet_mlip.data.neighbours import complete_cell, is_degenerate
from pet_mlip.data.structure import Structure
from pet_mlip.errors import UserError
from pet_mlip.missing import missing

Floats = NDArray[np.float64]
PATTERN = re.compile(r"\s*d3\(\s*([^,()\s]+)\s*(?:,\s*(\w+)\s*)?\)\s*", re.IGNORECASE)

MARGIN = 1.0
"""Between slabs and wires and their box in Å."""
REACH = 60 * Bohr
"""Of dftd3's pairs, in Å."""


class D3Result(NamedTuple):
    """What D3 says of a structure."""

    energy: float
    """In eV."""
    forces: Floats
    """In eV/Å, (N, 3)."""
    stress: Floats | None
    """In eV/Å^3, (3, 3); None without a volume."""


class D3:
    """Dispersion energies of Grimme, Antony, Ehrlich and Krieg, J. Chem. Phys. 132, 154104 (2010).

    Computed by the package dftd3 (simple-dftd3), with its cutoffs, three-body terms included.

    Args:
        method: Functional that D3 is fitted to, as simple-dftd3 names it.
        damping: d3bj, d3zero, d3bjm, d3zerom, ...

    Raises:
        UserError: dftd3 is not installed, or has no parameters for the functional.
    """

    def __init__(self, method: str, damping: str = "d3bj") -> None:
        try:
            from dftd3.ase import DFTD3
        except ImportError as error:
            raise missing("d3", error) from error
        self.method, self.damping = method, damping
        try:
            self._calculator = DFTD3(method=method, damping=damping)
            self._calculator.get_property("energy", Atoms("H"))
        except (InputError, KeyError) as error:
            raise UserError(f"dftd3 has no parameters for {self.name}: {error}.") from None

    @property
    def name(self) -> str:
        """How configurations and files name it."""
        return _name(self.method, self.damping)

    @classmethod
    def parse(cls, text: str) -> D3:
        """Make what ``data.subtract`` names, as in d3(PBE) or d3(PBE, d3zero).

        Raises:
            UserError: It names something else, or as above.
        """
        try:
            return cls(*_method_and_damping(text))
        except ValueError as error:
            raise UserError(f"{error}.") from None

    def __reduce__(self) -> tuple[type[D3], tuple[str, str]]:
        """Copy and pickle without the library's own objects."""
        return type(self), (self.method, self.damping)

    def __call__(self, atoms: Atoms) -> D3Result:
        """Compute energy, forces and stress; constraints change nothing.

        Raises:
            UserError: D3 does not know an element.
        """
        if len(atoms) == 0:
            return D3Result(0.0, np.zeros((0, 3)), None)
        boxed = in_a_box(atoms)
        found = self._compute(boxed, "forces")
        energy, forces = float(found["energy"]), np.array(found["forces"])
        if is_degenerate(atoms.cell.array):
            return D3Result(energy, forces, None)
        if atoms.pbc.any():
            virial = boxed.get_volume() * voigt_6_to_full_3x3_stress(found["stress"])
        else:  # dE/dstrain of what has no images.
            virial = -atoms.positions.T @ forces
            virial = 0.5 * (virial + virial.T)
        return D3Result(energy, forces, virial / atoms.get_volume())

    def hessian(self, atoms: Atoms) -> Floats:
        """Compute the second derivatives over positions in eV/Å^2, (3N, 3N)."""
        return np.array(self._compute(in_a_box(atoms), "hessian")["hessian"])

    def _compute(self, atoms: Atoms, name: str) -> dict[str, Any]:
        try:
            self._calculator.calculate(atoms, ["energy", name])
        except (InputError, CalculationFailed, RuntimeError) as error:
            raise UserError(f"{self.name} cannot be computed: {error}.") from None
        return self._calculator.results


def canonical_name(text: str) -> str:
    """Write out what a user named, as in d3(PBE, d3bj).

    Raises:
        ValueError: It is nothing that can be subtracted.
    """
    return _name(*_method_and_damping(text))


def _name(method: str, damping: str) -> str:
    return f"d3({method.upper()}, {damping})"


def _method_and_damping(text: str) -> tuple[str, str]:
    match = PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not of the form d3(PBE) or d3(PBE, d3zero)")
    return match[1], (match[2] or "d3bj").lower()


def in_a_box(atoms: Atoms) -> Atoms:
    """Copy atoms such that dftd3 is right about them.

    It needs a volume; it moves atoms into the cell along all directions if any is periodic, which
    tears slabs and wires apart; and it misses images where a direction that is not periodic stands
    before one that is.
    """
    pbc, positions, cell = atoms.pbc, atoms.positions, atoms.cell.array
    if pbc.any() and not pbc.all():
        order = np.argsort(~pbc, kind="stable")
        pbc, cell = pbc[order], complete_cell(cell, pbc)[order]
        away = cell[~pbc]  # orthonormal
        along = positions @ away.T
        positions = positions + (MARGIN - along.min(axis=0)) @ away
        cell[~pbc] *= np.ptp(along, axis=0)[:, None] + 2 * MARGIN
    return Atoms(atoms.numbers, positions, cell=cell, pbc=pbc)


def subtract(d3: D3, structures: Iterable[Structure]) -> None:
    """Take D3 from the energies, forces and stresses that structures have as labels.

    Raises:
        UserError: D3 does not know an element, or is subtracted already.
    """
    for structure in structures:
        if structure.subtracted is not None:
            raise UserError(
                f"{structure.source}: {structure.subtracted} is subtracted from these labels "
                f"already, and {d3.name} would be once more: set data.subtract to null, or use "
                "the labels as they were."
            )
        found = d3(structure.to_atoms())
        if structure.energy is not None:
            structure.energy = structure.energy - found.energy
        if structure.forces is not None:
            structure.forces = structure.forces - found.forces
        if structure.stress is not None and found.stress is not None:
            structure.stress = structure.stress - found.stress
