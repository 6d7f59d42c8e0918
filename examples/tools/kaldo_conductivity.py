"""Thermal conductivity of diamond by kaldo.

    pip install torch==2.13.0 && pip install . kaldo     # in a clone; kaldo brings tensorflow
    pet-mlip train examples/lammps/diamond.yaml --output diamond
    python examples/tools/kaldo_conductivity.py diamond/model.pt

kaldo takes the calculator as it is.
"""

from __future__ import annotations

import argparse
import os
from tempfile import TemporaryDirectory

import numpy as np
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from kaldo.conductivity import Conductivity
from kaldo.forceconstants import ForceConstants
from kaldo.phonons import Phonons

from pet_mlip import PETCalculator


def main() -> None:
    """Relax, take force constants from displaced supercells, and print frequencies and kappa."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--supercell", type=int, default=2)
    parser.add_argument("--mesh", type=int, default=7)
    options = parser.parse_args()
    # Force constants are differences of small forces.
    calculator = PETCalculator(os.path.abspath(options.model), dtype="float64")
    atoms = bulk("C", "diamond", a=3.57)
    atoms.calc = calculator
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=200)
    with TemporaryDirectory() as folder:
        constants = ForceConstants(
            atoms=atoms, supercell=(options.supercell,) * 3, folder=f"{folder}/constants"
        )
        constants.second.calculate(calculator, delta_shift=1e-3, is_storing=False)
        constants.third.calculate(calculator, delta_shift=1e-3, is_storing=False, use_symmetry=True)
        phonons = Phonons(
            forceconstants=constants,
            kpts=(options.mesh,) * 3,
            temperature=300,
            folder=f"{folder}/phonons",
            storage="memory",
        )
        frequencies = np.asarray(phonons.frequency)
        kappa = Conductivity(phonons=phonons, method="rta", storage="memory").conductivity
        tensor = np.asarray(kappa).sum(axis=0)
        print(f"| highest frequency, THz | {frequencies.max():.4g} |")
        print(f"| its splitting at Γ, THz | {np.ptp(frequencies.reshape(-1, 6)[0][3:]):.2g} |")
        print(f"| thermal conductivity at 300 K, W/m/K | {np.trace(tensor) / 3:.4g} |")


if __name__ == "__main__":
    main()
