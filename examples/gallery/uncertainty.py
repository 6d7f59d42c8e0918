"""A bond of ethanol is stretched: what the model is wrong by, and what it says it is wrong by.

    python examples/gallery/uncertainty.py [PICTURE]

The shipped weights have seen bonds stretched a little, in other molecules, and none that is broken.
GFN2-xTB, which they were trained on, is the reference. Needs tblite.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from tblite.ase import TBLite

from pet_mlip import PETCalculator

picture = sys.argv[1] if len(sys.argv) > 1 else "uncertainty.png"
METHYL = [0, 6, 7, 8]
"""The carbon atom and the hydrogen atoms that are pulled away."""

ethanol = molecule("CH3CH2OH")
bond = ethanol.positions[0] - ethanol.positions[1]
factors = np.linspace(0.85, 3.0, 44)
structures = []
for factor in factors:
    stretched = ethanol.copy()
    stretched.positions[METHYL] += (factor - 1) * bond
    structures.append(stretched)

names = ["energy", "forces", "energy_uncertainty", "forces_uncertainty"]
found = PETCalculator("organic-xtb").compute_batch(structures, names)
errors, of_forces = [], []
for structure, each in zip(structures, found, strict=True):
    structure.calc = TBLite(method="GFN2-xTB", verbosity=0)
    errors.append(abs(each["energy"] - structure.get_potential_energy()))
    difference = each["forces"] - structure.get_forces()
    of_forces.append(np.sqrt((difference**2).mean()))

figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
lengths = factors * np.linalg.norm(bond)
rows = [
    ("energy", "eV", errors, [each["energy_uncertainty"] for each in found]),
    (
        "forces, root mean square",
        "eV/Å",
        of_forces,
        [np.sqrt((each["forces_uncertainty"] ** 2).mean()) for each in found],
    ),
]
for axes, (title, unit, error, sigma) in zip(panels, rows, strict=True):
    axes.semilogy(lengths, error, "o", markersize=3, color="#e07a1f", label="error")
    axes.semilogy(lengths, sigma, color="#2a6f97", label="uncertainty")
    axes.axvline(np.linalg.norm(bond), color="#8a8a8a", linewidth=0.8)
    axes.set(xlabel="C-C distance / Å", ylabel=f"{title} / {unit}", title=title)
    axes.legend(frameon=False)
figure.savefig(picture, dpi=110)
