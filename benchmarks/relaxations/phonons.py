"""By how much frequencies at Gamma differ that the space group makes equal."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import spglib
from ase import Atoms, units
from numpy.typing import NDArray

from benchmarks.relaxations.crystals import START, cell_of

Floats = NDArray[np.float64]
TO_WAVENUMBER = units._hbar * 1e10 * (units._e / units._amu) ** 0.5 / units._e / units.invcm
"""From the root of eV/Å^2/amu to 1/cm."""
EQUAL = 1e-6
"""Relative difference below which eigenvalues of the symmetric matrix are the same."""


def operations(atoms: Atoms) -> list[tuple[Floats, NDArray[np.int64]]]:
    """Return the Cartesian matrix R of each operation, and where it takes each atom."""
    found = spglib.get_symmetry(cell_of(atoms), symprec=START)
    cell = atoms.cell.array
    scaled = atoms.get_scaled_positions(wrap=False)
    result = []
    for rotation, shift in zip(found["rotations"], found["translations"], strict=True):
        difference = (scaled @ rotation.T + shift)[:, None, :] - scaled[None, :, :]
        difference -= np.round(difference)
        distance = np.linalg.norm(difference @ cell, axis=2)
        target = distance.argmin(axis=1)
        # Columns of cell.T are the lattice vectors, so that x = cell.T s.
        result.append((cell.T @ rotation @ np.linalg.inv(cell.T), target))
    return result


def symmetrize(hessian: Floats, atoms: Atoms) -> Floats:
    """Average a Hessian (3N, 3N) over the space group: H_(ga)(gb) = R H_ab R^T."""
    n = len(atoms)
    blocks = hessian.reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
    total = np.zeros_like(blocks)
    all_operations = operations(atoms)
    for matrix, target in all_operations:
        turned = matrix @ blocks @ matrix.T
        total[target[:, None], target[None, :]] += turned
    return (total / len(all_operations)).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def largest_splitting(hessian: Floats, atoms: Atoms) -> float | None:
    """Find the largest difference of frequencies, in 1/cm, within a set that should be degenerate.

    The sets are those of the symmetrized Hessian. Within each, the Hessian as it is is diagonalized
    (degenerate perturbation theory of first order), so that no mode is taken for another. None if
    the space group makes none equal. The three translations are left out.

    Args:
        hessian: d2E/dr_a dr_b in eV/Å^2 at wave vector zero, (3N, 3N).
        atoms: The crystal, with its symmetry.
    """
    mass = np.repeat(atoms.get_masses(), 3) ** -0.5
    dynamical = hessian * mass[:, None] * mass[None, :]
    ideal = symmetrize(hessian, atoms) * mass[:, None] * mass[None, :]
    # Translations have eigenvalue zero in exact arithmetic; they are moved out of the way.
    translations = np.tile(np.eye(3), (len(atoms), 1)) / mass[:, None]
    translations /= np.linalg.norm(translations, axis=0)
    beyond = 10 * np.abs(ideal).max() * len(ideal)
    values, vectors = np.linalg.eigh(ideal + beyond * translations @ translations.T)
    values, vectors = values[:-3], vectors[:, :-3]
    found = []
    jumps = np.flatnonzero(np.diff(values) > EQUAL * np.abs(ideal).max()) + 1
    for start, stop in pairwise([0, *jumps, len(values)]):
        if stop - start > 1:
            space = vectors[:, start:stop]
            spread = np.linalg.eigvalsh(space.T @ dynamical @ space)
            frequencies = np.sign(spread) * np.sqrt(np.abs(spread)) * TO_WAVENUMBER
            found.append(float(frequencies[-1] - frequencies[0]))
    return max(found, default=None)
