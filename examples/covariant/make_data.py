"""Makes the data in this folder: dipoles and polarizabilities of small molecules, GFN2-xTB.

    OMP_NUM_THREADS=1 python examples/covariant/make_data.py [--output DIR]

Everything is drawn from fixed seeds. Dipoles in e Å, polarizabilities in Å^3. See README.md beside
this file for what was chosen and why.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tblite.ase import TBLite
from tblite.interface import Calculator
from tblite.library import ffi

MOLECULES = ("H2O", "NH3", "CH3OH", "H2CO", "HCN", "HCOOH", "H3CNH2", "C2H2")
TEMPERATURE = 500  # K
BURN_IN, INTERVAL = 300, 60  # steps of 1 fs
TRAIN, TEST = 24, 8  # samples of each molecule, from two trajectories
FIELD = 1e-3  # atomic units, of the differences

Floats = NDArray[np.float64]


def dipole(atoms: Atoms, field: Floats | None = None) -> Floats:
    """Dipole in e Å, in an electric field in atomic units."""
    xtb = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / units.Bohr)
    xtb.set("verbosity", 0)
    xtb.set("accuracy", 1e-4)
    if field is not None:
        # The binding wants a C array: NumPy arrays are refused by tblite 0.8.
        xtb.add("electric-field", ffi.from_buffer("double[]", field))
    return np.array(xtb.singlepoint().get("dipole")) * units.Bohr


def polarizability(atoms: Atoms) -> Floats:
    """Derivative of the dipole with respect to the field in Å^3, (3, 3), by differences."""
    rows = [
        (dipole(atoms, field) - dipole(atoms, -field)) / (2 * FIELD) for field in FIELD * np.eye(3)
    ]
    alpha = np.array(rows) * units.Bohr**2
    return 0.5 * (alpha + alpha.T)


def labelled(atoms: Atoms, turn: Floats) -> Atoms:
    """A turned, centred copy with its labels, computed there and not turned along."""
    copy = Atoms(atoms.numbers, (atoms.positions - atoms.get_center_of_mass()) @ turn)
    copy.info["name"] = atoms.info["name"]
    copy.info["polarizability"] = polarizability(copy).round(6)
    copy.calc = SinglePointCalculator(copy, dipole=dipole(copy).round(6))
    return copy


def trajectory(name: str, n_samples: int, seed: int) -> list[Atoms]:
    """Structures of a Langevin trajectory, each in a random orientation."""
    rng = np.random.default_rng(seed)
    atoms = molecule(name)
    atoms.info["name"] = name
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=rng)
    dynamics = Langevin(
        atoms,
        timestep=units.fs,
        temperature_K=TEMPERATURE,
        friction=0.02 / units.fs,
        rng=rng,
        fixcm=False,
    )
    dynamics.run(BURN_IN)
    samples = []
    for _ in range(n_samples):
        dynamics.run(INTERVAL)
        turn = Rotation.random(random_state=rng).as_matrix()
        samples.append(labelled(atoms, turn))
    return samples


def main() -> None:
    """Writes train.xyz and test.xyz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    output = parser.parse_args().output
    for part, n_samples, seed in (("train", TRAIN, 100), ("test", TEST, 200)):
        samples = []
        for number, name in enumerate(MOLECULES):
            samples += trajectory(name, n_samples, seed + number)
            print(f"{part}: {name}", flush=True)
        write(output / f"{part}.xyz", samples, format="extxyz")


if __name__ == "__main__":
    main()
