"""Errors of a trained model on test sets: the same for everyone, through ASE calculators.

    python -m benchmarks.learning.errors CONTESTANT MODEL RESULT.json NAME=FILE ...

is how `benchmarks.learning.suite` runs it, in a process of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from benchmarks.learning.prepare import ENERGY, FORCES, STRESS
from pet_mlip.files import write_text

Floats = NDArray[np.float64]


def load(contestant: str, model: Path) -> Calculator:
    """The calculator of a contestant's model."""
    if contestant == "mace":
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=str(model), device="cpu", default_dtype="float32")
    if contestant == "metatrain":
        from metatomic_ase import MetatomicCalculator

        return MetatomicCalculator(str(model), device="cpu")
    from pet_mlip import PETCalculator

    return PETCalculator(model, "cpu")


def errors(calculator: Calculator, structures: list[Atoms]) -> dict[str, float]:
    """RMSE and MAE of energies in meV/atom, forces in meV/Å, and stresses in meV/Å^3.

    Args:
        calculator: Of the model.
        structures: With labels; stresses are compared where there are some.
    """
    found: dict[str, list[Floats]] = {"energy": [], "forces": [], "stress": []}
    for atoms in structures:
        atoms.calc = calculator
        energy = atoms.get_potential_energy() - atoms.info[ENERGY]
        found["energy"].append(np.array([energy / len(atoms)]))
        found["forces"].append((atoms.get_forces() - atoms.arrays[FORCES]).ravel())
        if STRESS in atoms.info:
            stress = atoms.get_stress(voigt=False)
            found["stress"].append((stress - atoms.info[STRESS]).ravel())
    result = {}
    for quantity, differences in found.items():
        if differences:
            all_of_them = 1000.0 * np.concatenate(differences)
            result[f"{quantity}_rmse"] = float(np.sqrt(np.mean(all_of_them**2)))
            result[f"{quantity}_mae"] = float(np.mean(np.abs(all_of_them)))
    return result


def main(contestant: str, model: str, result: str, *files: str) -> None:
    """Write the errors on some files as JSON."""
    import torch

    torch.set_num_threads(1)
    calculator = load(contestant, Path(model))
    found: dict[str, Any] = {}
    for named in files:
        name, _, file = named.partition("=")
        found[name] = errors(calculator, list(ase.io.iread(file)))
    write_text(result, json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
