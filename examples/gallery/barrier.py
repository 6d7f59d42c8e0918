"""The barrier of ethanol's hydroxyl group between trans and gauche, by a nudged elastic band.

    python examples/gallery/barrier.py [PICTURE] [MODEL]

GFN2-xTB, which the model was trained on, is evaluated at the images of the band. Errors of similar
structures are alike, so the uncertainty is that of the difference from trans: the length of the
difference of two sums of features. Needs tblite.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from tblite.ase import TBLite

from pet_mlip import PETCalculator

picture = sys.argv[1] if len(sys.argv) > 1 else "barrier.png"
model = sys.argv[2] if len(sys.argv) > 2 else "organic-xtb"
C1, C2, OXYGEN, HYDROGEN = 0, 1, 2, 3
"""C-C-O-H, in the order of ase.build.molecule."""

calculator = PETCalculator(model, dtype="float64")
trans = molecule("CH3CH2OH")
gauche = trans.copy()
gauche.set_dihedral(C1, C2, OXYGEN, HYDROGEN, 60, indices=[HYDROGEN])
for end in (trans, gauche):
    end.calc = calculator
    BFGS(end, logfile=None).run(fmax=0.005, steps=300)

band = [trans.copy() for _ in range(8)] + [gauche]
for image in band[:-1]:
    image.calc = calculator
neb = NEB(band, climb=True, allow_shared_calculator=True, method="improvedtangent")
neb.interpolate("idpp")
FIRE(neb, logfile=None).run(fmax=0.03, steps=100)

angles = np.array([image.get_dihedral(C1, C2, OXYGEN, HYDROGEN) for image in band])
energies = [found["energy"] for found in calculator.compute_batch(band, ["energy"])]
features = [vectors.sum(axis=0) for vectors in calculator.compute_features(band)]
reference = []
for image in band:
    image.calc = TBLite(method="GFN2-xTB", verbosity=0)
    reference.append(image.get_potential_energy())
energies, reference = (1000 * (np.array(e) - e[0]) for e in (energies, reference))
sigma = 1000 * np.linalg.norm(np.array(features) - features[0], axis=1)
top = int(energies.argmax())
print(
    f"barrier from trans: {energies[top]:.0f} ± {sigma[top]:.0f} meV, GFN2-xTB {reference[top]:.0f}"
)

figure, axes = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
axes.fill_between(angles, energies - sigma, energies + sigma, color="#2a6f97", alpha=0.2, lw=0)
axes.plot(angles, energies, "o-", color="#2a6f97", label="the model, ± its uncertainty")
axes.plot(angles, reference, "s", color="#e07a1f", label="GFN2-xTB at the images")
axes.set(xlabel="dihedral angle C-C-O-H / degrees", ylabel="energy - trans / meV")
axes.legend(frameon=False)
figure.savefig(picture, dpi=110)
