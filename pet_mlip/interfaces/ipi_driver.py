"""A driver for i-PI, which loads this file: `i-pi-driver-py -m custom -P FILE`.

`python -m pet_mlip.interfaces.ipi_driver` prints where it is.
"""

from __future__ import annotations

import json
from inspect import signature
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.missing import missing

try:
    from ipi.pes.dummy import Dummy_driver
    from ipi.utils.units import unit_to_internal, unit_to_user
except ImportError as error:
    raise missing("ipi", error) from error

Floats = NDArray[np.float64]
Answer = tuple[float, Floats, Floats, str]
"""Energy, forces and virial in atomic units; further results as JSON."""

# i-PI reads these two names, as literals.
__DRIVER_NAME__ = "pet_mlip"
__DRIVER_CLASS__ = "PETDriver"


class PETDriver(Dummy_driver):
    """Energies, forces and virials of a `PETCalculator` for i-PI.

    Beads that i-PI sends together are evaluated together, 2,000 atoms at once. What else the model
    predicts, and the uncertainty of the energy if it is asked for, are in i-PI's `extras` under the
    calculator's names and in its units.

    Args:
        template: File with the atoms in the order of i-PI's, as ASE reads it; models that depend
            on the electronic state read its `info`, as the calculator does.
        model: Path of an exported model, or the name of one that comes with the package.
        periodic: Whether the cell is periodic in all directions; by default what the template says,
            and to be given if that says it is not (most formats cannot tell).
        device: As for `PETCalculator`.
        dtype: As for `PETCalculator`.
        symmetrization: As for `PETCalculator`.
        uncertainty: Whether to compute the uncertainty of the energy.
        verbose: As i-PI's drivers have it.

    Raises:
        UserError: There is no such model or parameter, a parameter is not what it should be, or
            nobody said whether the structure is periodic.
    """

    def __init__(
        self,
        template: str,
        model: str,
        periodic: bool | None = None,
        device: str = "auto",
        dtype: str | None = None,
        symmetrization: str | None = None,
        uncertainty: bool = False,
        verbose: bool = False,
        **unknown: Any,
    ) -> None:
        unknown.pop("verbosity", None)  # i-PI adds it to the user's.
        if unknown:
            known = [name for name in signature(PETDriver).parameters if name != "unknown"]
            raise UserError(
                f"The driver has no parameter {', '.join(unknown)}; it has {', '.join(known)}."
            )
        for name, value in (("periodic", periodic), ("uncertainty", uncertainty)):
            if not isinstance(value, bool | None):
                raise UserError(f"{name} is true or false, not {value!r}.")
        self.atoms = read_template(template, periodic)
        self.calculator = PETCalculator(
            model,
            device=device,
            dtype=dtype,
            symmetrization=symmetrization,
            uncertainty="energy" if uncertainty else False,
        )
        self.extras = list(self.calculator.declared)
        if uncertainty:
            self.extras.append("energy_uncertainty")
        super().__init__(verbose)

    def compute(self, cell: Any, pos: Any) -> Answer | list[Answer]:
        """Evaluate a structure, or a list of them at once.

        Args:
            cell: Cell vectors as columns in bohr, (3, 3), or a list of such.
            pos: Positions in bohr, (N, 3), or a list of such.

        Returns:
            Energy in hartree, forces in hartree/bohr, (N, 3), virial in hartree, (3, 3), and other
            results as JSON; or a list of such.

        Raises:
            UserError: As `PETCalculator.compute_batch` does, or a cell has no volume.
        """
        if isinstance(cell, list):
            return self.compute_beads(cell, pos)
        return self.compute_structure(cell, pos)

    def compute_structure(self, cell: Floats, pos: Floats) -> Answer:
        """Evaluate one structure; arguments as in `compute`."""
        return self.compute_beads([cell], [pos])[0]

    def compute_beads(self, cells: list[Floats], positions: list[Floats]) -> list[Answer]:
        """Evaluate structures at once.

        Args:
            cells: Cell vectors as columns in bohr, (3, 3) each.
            positions: In bohr, (N, 3) each.

        Raises:
            UserError: As `PETCalculator.compute_batch` does, or a cell has no volume.
        """
        beads = []
        for cell, pos in zip(cells, positions, strict=True):
            bead = self.atoms.copy()
            if len(pos) != len(bead):
                raise UserError(
                    f"i-PI sends {len(pos)} atoms, but the template has {len(bead)}: they must be "
                    "the same ones in the same order."
                )
            bead.positions = unit_to_user("length", "angstrom", pos)
            bead.cell = unit_to_user("length", "angstrom", cell.T)
            beads.append(bead)
        properties = ["energy", "forces", "stress", *self.extras]
        results = self.calculator.compute_batch(beads, properties)
        return [self.answer(*pair) for pair in zip(beads, results, strict=True)]

    def answer(self, bead: Atoms, result: dict[str, Any]) -> Answer:
        """Convert results to atomic units."""
        if "stress" not in result:
            raise UserError("i-PI's cell spans no volume: give one, a large one for a molecule.")
        virial = -bead.get_volume() * voigt_6_to_full_3x3_stress(result["stress"])
        extras = {name: np.asarray(result[name]).tolist() for name in self.extras}
        hartree = unit_to_internal("energy", "electronvolt", 1.0)
        # i-PI rounds its unit of forces to seven digits, so that they would be no exact derivative.
        of_forces = hartree / unit_to_internal("length", "angstrom", 1.0)
        return (
            hartree * result["energy"],
            of_forces * result["forces"],
            hartree * virial,
            json.dumps(extras) if extras else "",
        )


def read_template(path: str, periodic: bool | None) -> Atoms:
    """Read the atoms that i-PI will move.

    Args:
        path: File that ASE reads.
        periodic: Whether they are periodic; None for what the file says.

    Raises:
        UserError: The file cannot be read, or nobody said whether the structure is periodic.
    """
    try:
        atoms = read(path, -1)
    except Exception as error:  # every format has its own
        raise UserError(f"{path}: ASE cannot read the template ({error}).") from error
    assert isinstance(atoms, Atoms)
    if periodic is not None:
        atoms.pbc = periodic
    elif not atoms.pbc.any():
        raise UserError(
            f"{path} does not say that the structure is periodic, and most formats cannot: add "
            "periodic:true or periodic:false to the driver's parameters."
        )
    return atoms


if __name__ == "__main__":
    print(__file__)
