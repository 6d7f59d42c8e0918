"""Errors on a validation set beside what their variances are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.data.batch import Batch

ZERO = 1e-4
"""Of the root mean square length of the vectors behind the variances: shorter ones, and the
energies that they belong to, are zero by symmetry and say nothing of a size."""
ZERO_FORCES = 1e-2
"""The same for forces: in nearly perfect crystals their errors are the noise of their labels."""


class Comparison(NamedTuple):
    """Errors on validation data, in eV or eV/Å, and what their variances are made of."""

    values: Tensor
    """(R,) float64."""
    vectors: Tensor
    """F or dF/dx of each, (R, D) float64."""
    n_atoms: Tensor
    """Of the structure of each, (R,) int64."""

    def where(self, chosen: Tensor) -> Comparison:
        """Return those of a mask (R,)."""
        return Comparison(*(part[chosen] for part in self))


class Errors(NamedTuple):
    """Errors on validation data, and what each atom contributes to the vectors of a comparison."""

    values: Tensor
    """(R,) float64."""
    n_atoms: Tensor
    """Of the structure of each, (R,) int64."""
    parts: Tensor
    """f or df/dx of atoms, (P, D)."""
    atom: Tensor
    """Place of each part's atom in `Validation.features`, (P,) int64."""
    row: Tensor
    """Which of the errors each part belongs to, (P,) int64."""

    def compare(self, weights: Tensor) -> Comparison:
        """Add up what atoms contribute, times their weights (A, 1)."""
        total = weights.new_zeros(len(self.values), self.parts.shape[1])
        parts = weights[self.atom] * self.parts
        return Comparison(self.values, total.index_add(0, self.row, parts), self.n_atoms)


class Validation(NamedTuple):
    """What was found of the validation set, on the CPU."""

    features: Tensor
    """Last features f of A atoms, (A, D) float64."""
    species: Tensor
    """Their elements, as the potential numbers them, (A,) int64."""
    energies: Errors
    forces: Errors


class Collected:
    """The errors of batch after batch."""

    def __init__(self, size: int) -> None:
        self.n_errors = 0
        whole = torch.zeros(0, dtype=torch.int64)
        self.columns: list[tuple[Tensor, ...]] = [
            (torch.zeros(0, dtype=torch.float64), whole, torch.zeros(0, size), whole, whole)
        ]

    def add(self, batch: Batch, values: Tensor, known: Tensor, parts: Tensor, first: int) -> None:
        """Add those of the structures of a mask.

        Args:
            batch: The structures.
            values: Error of each, (S,).
            known: The mask, (S,) bool.
            parts: What each atom contributes, (N, D) on the CPU.
            first: Place of the batch's first atom among all.
        """
        known, structure = known.cpu(), batch.structure.cpu()
        row = self.n_errors + known.cumsum(0) - 1
        # Most atoms of a large cell are too far from the one that moves.
        atom = (known[structure] & (parts != 0).any(dim=1)).nonzero().squeeze(1)
        self.n_errors += int(known.sum())
        self.columns.append(
            (
                values.cpu()[known],
                batch.n_atoms.cpu()[known],
                parts[atom],
                first + atom,
                row[structure[atom]],
            )
        )

    def errors(self) -> Errors:
        """Return them all."""
        return Errors(*(torch.cat(column) for column in zip(*self.columns, strict=True)))


class OpenErrors:
    """The errors that symmetry leaves open, and that say something of sizes.

    Args:
        found: All of them.
        floor: Length of features that is round-off.
    """

    def __init__(self, found: Validation, floor: float) -> None:
        self.energies, self.forces = found.energies, found.forces
        alike = torch.ones_like(found.features[:, :1])
        energies, forces = found.energies.compare(alike), found.forces.compare(alike)
        self.open_energies = is_open(energies, ZERO, floor)
        self.open_forces = is_open(forces, ZERO_FORCES, floor)
        self.unweighted = energies.where(self.open_energies), forces.where(self.open_forces)
        """Energies and forces, with all atoms alike."""

    def compare(self, weights: Tensor) -> tuple[Comparison, Comparison]:
        """Compare energies and forces, with weights (A, 1) of the atoms."""
        return (
            self.energies.compare(weights).where(self.open_energies),
            self.forces.compare(weights).where(self.open_forces),
        )


def is_open(errors: Comparison, shortest: float, floor: float) -> Tensor:
    """Tell whose variance is not zero by symmetry, or nearly, (R,) bool.

    Args:
        errors: With R vectors.
        shortest: Length, over the root mean square of all, below which they are.
        floor: Length in eV or eV/Å that is round-off, where all of them are zero.
    """
    length = errors.vectors.norm(dim=1)
    least = shortest * float(length.square().mean().sqrt()) if len(length) > 0 else 0.0
    return length > max(least, floor)
