"""Phonons of diamond along lines through the Brillouin zone, beside those of the reference.

    python examples/gallery/phonons.py [PICTURE] [MODEL] [--epochs N]

MODEL is trained on the shipped diamond data (GFN1-xTB) if there is no such file. The reference is
GFN1-xTB in the same 64 atoms, as it labelled the data. Needs phonopy and tblite.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk
from phonopy import Phonopy
from phonopy.phonon.band_structure import get_band_qpoints
from phonopy.structure.atoms import PhonopyAtoms
from tblite.ase import TBLite

from pet_mlip import PETCalculator
from pet_mlip.config import load_config
from pet_mlip.train import run_training

EXAMPLES = Path(__file__).parents[1]
EDGE = 3.5485
"""Å, of GFN1-xTB in 64 atoms (examples/data/README.md)."""
POINTS = {"Γ": [0, 0, 0], "X": [0.5, 0, 0.5], "K": [3 / 8, 3 / 8, 3 / 4], "L": [0.5, 0.5, 0.5]}
LINES = [("Γ", "X"), ("K", "Γ"), ("Γ", "L")]
TO_CUBIC = [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="phonons.png")
parser.add_argument("model", nargs="?", default="diamond.pt")
parser.add_argument("--epochs", type=int, default=5)
options = parser.parse_args()

if not Path(options.model).exists():
    overrides = [
        f"data.root={EXAMPLES / 'data' / 'diamond'}",
        "training.max_time=null",
        "training.batch_size=1",
        f"training.epochs={options.epochs}",
    ]
    config = load_config(EXAMPLES / "lammps" / "diamond.yaml", overrides)
    with tempfile.TemporaryDirectory() as folder:
        run_training(config, folder, overwrite=True, quiet=True)
        shutil.copy(Path(folder) / "model.pt", options.model)

primitive = bulk("C", "diamond", a=EDGE)


def bands(calculator: object) -> Phonopy:
    """Frequencies along the lines from the forces of displaced atoms in 2 x 2 x 2 cubic cells."""
    cell = PhonopyAtoms(
        symbols=primitive.get_chemical_symbols(),
        cell=primitive.cell.array,
        scaled_positions=primitive.get_scaled_positions(),
    )
    phonon = Phonopy(cell, 2 * np.array(TO_CUBIC), primitive_matrix="P")
    phonon.generate_displacements(distance=0.01)
    forces = []
    for displaced in phonon.supercells_with_displacements:
        atoms = Atoms(displaced.symbols, displaced.positions, cell=displaced.cell, pbc=True)
        atoms.calc = calculator
        forces.append(atoms.get_forces())
    phonon.forces = forces
    phonon.produce_force_constants()
    paths = [[POINTS[start], POINTS[end]] for start, end in LINES]
    phonon.run_band_structure(get_band_qpoints(paths, npoints=51))
    return phonon


figure, axes = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
for label, calculator, style in (
    ("GFN1-xTB", TBLite(method="GFN1-xTB", verbosity=0), {"color": "#e07a1f", "linestyle": "--"}),
    ("the model", PETCalculator(options.model, dtype="float64"), {"color": "#2a6f97"}),
):
    found = bands(calculator).band_structure
    for distances, frequencies in zip(found.distances, found.frequencies, strict=True):
        lines = axes.plot(distances, frequencies, linewidth=1, **style)
    lines[0].set_label(label)
    print(f"{label}: {found.frequencies[0][0].max():.1f} THz at Γ")
ends = [found.distances[0][0], *(distances[-1] for distances in found.distances)]
axes.set_xticks(ends, ["Γ", "X|K", "Γ", "L"])
axes.set(ylabel="frequency / THz", xlim=(ends[0], ends[-1]))
axes.grid(axis="x")
axes.legend(frameon=False, loc="lower right")
figure.savefig(options.picture, dpi=90)
