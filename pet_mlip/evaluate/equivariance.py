"""How much a model's predictions depend on the orientation of a structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_mlip.ase.calculator import PETCalculator

Floats = NDArray[np.float64]


class RotationalErrors:
    """Rotational errors of a stream of structures.

    For each structure: standard deviations over random O(3) operations (rotations, reflections,
    inversions) of the energy per atom and of the force components, the forces rotated back; for
    molecules, which feel no torque in reality, also the net torque per atom. The summary holds root
    mean squares over the structures, and the largest.
    """

    def __init__(self) -> None:
        self.n_structures = 0
        self.n_molecules = 0
        self._squares = dict.fromkeys(("energy", "forces", "torque"), 0.0)
        self._largest = dict.fromkeys(("energy", "forces", "torque"), 0.0)
        self._n_forces = 0

    def add(self, energies: Floats, forces: Floats, torques: Floats | None) -> None:
        """Add one structure, seen in K orientations.

        Args:
            energies: eV per atom, (K,).
            forces: Rotated back, eV/Å, (K, N, 3).
            torques: Norm of the net torque per atom in eV, (K,); None for periodic structures.
        """
        self.n_structures += 1
        self._n_forces += forces[0].size
        self._count("energy", energies.std())
        spread = forces.var(axis=0)
        self._squares["forces"] += float(spread.sum())
        self._largest["forces"] = max(self._largest["forces"], float(spread.max()) ** 0.5)
        if torques is not None:
            self.n_molecules += 1
            self._count("torque", float(np.square(torques).mean()) ** 0.5)

    def _count(self, name: str, value: float) -> None:
        self._squares[name] += float(value) ** 2
        self._largest[name] = max(self._largest[name], float(value))

    def to_dict(self) -> dict[str, Any]:
        """Summarize in meV/atom and meV/Å; the torque is None without molecules."""
        counts = {
            "energy": ("energy_per_atom_std", self.n_structures, "meV/atom"),
            "forces": ("forces_std", self._n_forces, "meV/Å"),
            "torque": ("torque_per_atom", self.n_molecules, "meV/atom"),
        }
        summary: dict[str, Any] = {"structures": self.n_structures, "molecules": self.n_molecules}
        for name, (title, count, unit) in counts.items():
            if count == 0:
                summary[title] = None
                continue
            rms = 1000.0 * (self._squares[name] / count) ** 0.5
            summary[title] = {"rms": rms, "max": 1000.0 * self._largest[name], "unit": unit}
        return summary


def rotational_errors(
    calculator: PETCalculator,
    atoms: Atoms,
    operations: Floats,
    errors: RotationalErrors,
    max_atoms: int = 2000,
) -> None:
    """Evaluate a structure in several orientations and add the outcome to `errors`.

    Args:
        calculator: The model.
        atoms: The structure.
        operations: Orthogonal matrices Q, (K, 3, 3); each takes a position r to Q r.
        errors: What to add to.
        max_atoms: Atoms evaluated at once.
    """
    turned = [transformed(atoms, q) for q in operations]
    results = calculator.compute_batch(turned, ("energy", "forces"), max_atoms)
    energies = np.array([r["energy"] for r in results]) / len(atoms)
    back = np.stack([r["forces"] @ q for r, q in zip(results, operations, strict=True)])
    torques = None
    if not atoms.pbc.any():
        torques = np.array([np.linalg.norm(net_torque(atoms, f)) for f in back]) / len(atoms)
    errors.add(energies, back, torques)


def transformed(atoms: Atoms, operation: Floats) -> Atoms:
    """The structure with positions and cell taken through an orthogonal matrix.

    `info` comes along, since it may hold the charge and the spin multiplicity.
    """
    # A new object: rotating a copy would drag along constraints and labels.
    return Atoms(
        atoms.numbers,
        atoms.positions @ operation.T,
        cell=atoms.cell.array @ operation.T,
        pbc=atoms.pbc,
        info=dict(atoms.info),
    )


def net_torque(atoms: Atoms, forces: Floats) -> Floats:
    """Sum of (r - centre) x F in eV, (3,)."""
    arms = atoms.positions - atoms.positions.mean(axis=0)
    torque: Floats = np.cross(arms, forces).sum(axis=0)
    return torque


def random_operations(count: int, rng: np.random.Generator) -> Floats:
    """Haar-random orthogonal matrices, proper and improper, (count, 3, 3)."""
    q, r = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    # With these signs the QR factor is Haar distributed (Mezzadri, Notices AMS 54, 592 (2007)).
    operations: Floats = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return operations
