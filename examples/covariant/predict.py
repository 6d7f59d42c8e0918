"""Errors of a trained model's dipoles and polarizabilities, and of its covariance.

    pet-mlip train examples/covariant/pet.yaml --output covariant
    python examples/covariant/predict.py covariant/model.pt

Prints the root mean square errors on the unseen structures of this folder, in per cent of the
standard deviation of the labels, and how far the predictions for turned and mirrored molecules,
turned back, are from each other.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from scipy.spatial.transform import Rotation

from pet_mlip import PETCalculator

DATA = Path(__file__).resolve().parent
RESULTS = ("dipole", "polarizability")


def predict(
    calculator: PETCalculator, atoms: Atoms, operation: np.ndarray
) -> dict[str, np.ndarray]:
    """Results of the molecule after an O(3) operation, turned back."""
    turned = Atoms(atoms.numbers, atoms.positions @ operation)
    (found,) = calculator.compute_batch([turned], RESULTS)
    return {
        "dipole": found["dipole"] @ operation.T,
        "polarizability": operation @ found["polarizability"] @ operation.T,
    }


def main() -> None:
    """Print one line for each result."""
    # In double precision the covariance is exact to round-off.
    calculator = PETCalculator(sys.argv[1], dtype="float64")
    operations = Rotation.random(4, rng=0).as_matrix() * np.array([1, -1, 1, -1])[:, None, None]
    labels: dict[str, list[np.ndarray]] = {name: [] for name in RESULTS}
    values: dict[str, list[list[np.ndarray]]] = {name: [] for name in RESULTS}
    for atoms in read(DATA / "test.xyz", ":"):
        labels["dipole"].append(atoms.get_dipole_moment())
        labels["polarizability"].append(atoms.info["polarizability"])
        found = [predict(calculator, atoms, operation) for operation in operations]
        for name in RESULTS:
            values[name].append([each[name] for each in found])
    for name in RESULTS:
        label, value = np.array(labels[name]), np.array(values[name])
        error = np.sqrt(np.mean((value - label[:, None]) ** 2))
        spread = np.sqrt(np.mean((label - label.mean(axis=0)) ** 2))
        turned = np.sqrt(np.mean((value - value.mean(axis=1, keepdims=True)) ** 2))
        unit = calculator.declared[name]["unit"]
        print(
            f"{name}: error {error:.4f} {unit} ({100 * error / spread:.1f} % of the standard "
            f"deviation), rotational error {turned:.1e} {unit}"
        )


if __name__ == "__main__":
    main()
