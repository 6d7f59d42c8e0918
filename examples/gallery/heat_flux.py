"""The heat flux of a molecule in LAMMPS is the rate at which its energy moves, if divided rightly.

    python examples/gallery/heat_flux.py [PICTURE] [--steps N]

An ethanol molecule vibrates in vacuum. Its heat flux from centroid virials is compared with the
change of sum_i r_i e_i in time, by differences of two steps, which it is by definition; that from
the symmetric virials of `compute stress/atom` is another quantity. The energy e_i of each atom is
counted from its mean: the large constants would hide everything else. Needs LAMMPS with the plugin
(`pet-mlip lammps build`). A conductivity takes a crystal and a long run: examples/lammps.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from ase.io import write

from pet_mlip.lammps import lammps
from pet_mlip.weights import find_weights

TIME_STEP = 0.0002
"""ps."""
DECK = """
units         metal
atom_style    atomic
boundary      f f f
read_data     {folder}/ethanol.data
mass          1 12.011
mass          2 1.008
mass          3 15.999
pair_style    pet dtype float64
pair_coeff    * * {model} C H O
velocity      all create 600 7 mom yes rot yes
timestep      {time_step}
fix           1 all nve
compute       ke all ke/atom
compute       pe all pe/atom
compute       centroid all centroid/stress/atom NULL virial
compute       symmetric all stress/atom NULL virial
compute       right all heat/flux ke pe centroid
compute       wrong all heat/flux ke pe symmetric
fix           flux all ave/time 1 1 1 c_right[*] c_wrong[*] file {folder}/flux.txt format " %.10g"
dump          atoms all custom 1 {folder}/atoms.txt id x y z vx vy vz c_ke c_pe
dump_modify   atoms sort id format float %.12g
thermo        100
run           {steps}
"""

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="heat_flux.png")
parser.add_argument("--steps", type=int, default=300)
options = parser.parse_args()

ethanol = molecule("CH3CH2OH")
ethanol.center(vacuum=10.0)
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    order = {"specorder": ["C", "H", "O"], "masses": False}
    write(folder / "ethanol.data", ethanol, format="lammps-data", **order)
    model = find_weights("organic-xtb", ".pt")
    deck = DECK.format(folder=folder, model=model, time_step=TIME_STEP, steps=options.steps)
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_string(deck)
    lmp.close()
    flux = np.loadtxt(folder / "flux.txt")
    lines = (folder / "atoms.txt").read_text().splitlines()

rows = [line.split() for line in lines if not line.startswith("ITEM")]
atoms = np.array([row[1:] for row in rows if len(row) == 9], dtype=float)  # without the id
atoms = atoms.reshape(-1, len(ethanol), 8)
positions, velocities = atoms[:, :, :3] - ethanol.positions.mean(axis=0), atoms[:, :, 3:6]
energies = atoms[:, :, 6:].sum(axis=2, keepdims=True)
mean = energies.mean(axis=0)
moved = (positions * (energies - mean)).sum(axis=1)
rate = (moved[2:] - moved[:-2]) / (2 * TIME_STEP)
of_constants = (velocities * mean).sum(axis=1)
right, wrong = flux[:, 1:4] - of_constants, flux[:, 7:10] - of_constants
scale = np.sqrt((rate**2).mean())
for label, found in (("centroid", right), ("symmetric", wrong)):
    error = np.sqrt(((found[1:-1] - rate) ** 2).mean()) / scale
    print(f"flux from {label} virials: {100 * error:.2g} % from the change of sum r e")

figure, axes = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
time = 1000 * TIME_STEP * flux[:, 0]
axes.plot(time, wrong[:, 0], color="#8a8a8a", linewidth=1, label="symmetric virials")
axes.plot(time, right[:, 0], color="#2a6f97", label="centroid virials")
few = slice(None, None, 5)
axes.plot(time[1:-1][few], rate[few, 0], "o", markersize=3, color="#e07a1f", label="d/dt Σ r e")
axes.set(xlabel="time / fs", ylabel="heat flux along x / eV Å/ps")
axes.legend(frameon=False, loc="upper right", ncols=3)
axes.margins(y=0.2)
figure.savefig(options.picture, dpi=110)
