"""Radial distribution functions of liquid water at 350 K, by weights that know molecules only.

    python examples/gallery/rdf.py [PICTURE] [--steps N] [--equilibrate N]

27 molecules of heavy water at 1 g/cm³ of ordinary water; heavy, so that 1 fs is a good time step.
The simulation goes on from water.xyz beside this file, which `--equilibrate 3000` makes again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from ase.optimize import FIRE

from pet_mlip import PETCalculator
from pet_mlip.ase.md import MDSettings, Simulation

START = Path(__file__).with_name("water.xyz")
EDGE = 9.3128
"""Å, of the cubic cell."""
DEUTERIUM = 2.014
EVERY = 5
"""Steps between two looks at the distances."""

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="rdf.png")
parser.add_argument("--steps", type=int, default=600)
parser.add_argument("--equilibrate", type=int, default=0, help="steps from a lattice of molecules")
options = parser.parse_args()

calculator = PETCalculator("organic-xtb")
settings = MDSettings("nvt", temperature=350.0, timestep=1.0, damping=50.0, seed=1)


def lattice() -> Atoms:
    """Randomly turned molecules on a simple cubic lattice, pushed apart a little."""
    rng = np.random.default_rng(0)
    atoms = Atoms(cell=[EDGE] * 3, pbc=True)
    for place in np.ndindex(3, 3, 3):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.positions += (np.array(place) + 0.5) * EDGE / 3 - water.get_center_of_mass()
        atoms += water
    atoms.calc = calculator
    FIRE(atoms, logfile=None).run(fmax=0.5, steps=100)
    return atoms


atoms = lattice() if options.equilibrate else read(START)
atoms.set_masses(np.where(atoms.numbers == 1, DEUTERIUM, atoms.get_masses()))
atoms.calc = calculator
simulation = Simulation(atoms, settings)
if options.equilibrate:
    simulation.advance(options.equilibrate)
    write(START, atoms, columns=["symbols", "positions", "momenta"], write_results=False)

oxygen, hydrogen = np.flatnonzero(atoms.numbers == 8), np.flatnonzero(atoms.numbers == 1)
distances: dict[str, list[float]] = {"O-O": [], "O-H": []}
temperatures, n_looks = [], options.steps // EVERY
for _ in range(n_looks):
    simulation.advance(EVERY)
    all_distances = atoms.get_all_distances(mic=True)
    distances["O-O"] += list(all_distances[np.ix_(oxygen, oxygen)][np.triu_indices(27, 1)])
    distances["O-H"] += list(all_distances[np.ix_(oxygen, hydrogen)].ravel())
    temperatures.append(atoms.get_temperature())
uncertainty = calculator.get_property("forces_uncertainty", atoms)
print(f"{np.mean(temperatures):.0f} K; forces uncertain by {1000 * uncertainty.mean():.0f} meV/Å")

figure, axes = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
edges = np.arange(1.3, EDGE / 2, 0.08)
shells = 4 / 3 * np.pi * np.diff(edges**3)
for (name, found), color in zip(distances.items(), ("#2a6f97", "#e07a1f"), strict=True):
    pairs = 27 * 26 / 2 if name == "O-O" else 27 * 54
    expected = n_looks * pairs * shells / atoms.get_volume()
    counts = np.histogram(found, edges)[0]
    axes.plot((edges[1:] + edges[:-1]) / 2, counts / expected, color=color, label=name)
axes.axhline(1, color="#8a8a8a", linewidth=0.8)
axes.set(xlabel="distance / Å", ylabel="g(r)", xlim=(1.3, EDGE / 2))
axes.legend(frameon=False)
figure.savefig(options.picture, dpi=110)
