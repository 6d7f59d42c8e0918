"""A short fine-tuning on the shipped ethanol data: training curve, and forces against the labels.

    python examples/gallery/training.py [PICTURE] [MODEL] [--epochs N]

Training starts from the shipped weights, which know organic molecules by GFN2-xTB, though not
ethanol. The test structures come from other trajectories than those of the training.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pet_mlip import PETCalculator
from pet_mlip.config import validate
from pet_mlip.data.reading import read_structures
from pet_mlip.evaluate import evaluate
from pet_mlip.train import run_training

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="training.png")
parser.add_argument("model", nargs="?", default="ethanol.pt", help="where the model goes")
parser.add_argument("--epochs", type=int, default=8)
options = parser.parse_args()

data = Path(__file__).parents[1] / "data" / "ethanol"
config = {
    "data": {"root": str(data), "train": "train.xyz", "validation": "val.xyz"},
    "training": {"init_from": "organic-xtb", "epochs": options.epochs},
}
with tempfile.TemporaryDirectory() as folder:
    run_training(validate(config, "the training"), folder, overwrite=True, quiet=True)
    metrics = np.genfromtxt(Path(folder) / "metrics.csv", delimiter=",", names=True, ndmin=1)
    shutil.copy(Path(folder) / "model.pt", options.model)

found = evaluate(PETCalculator(options.model), read_structures(data / "test.xyz"))
rmse = 1000 * found.errors.all["forces"].rmse
pairs = found.samples["forces"].pairs
print(f"forces of the test set: {rmse:.0f} meV/Å, root mean square")

figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
left.plot(metrics["epoch"], metrics["forces_rmse"], "o-", color="#2a6f97", label="forces, meV/Å")
left.plot(metrics["epoch"], metrics["energy_rmse"], "s-", color="#e07a1f", label="energy, meV/atom")
left.set(xlabel="epoch", ylabel="RMSE of the validation set", yscale="log", title="training")
left.legend(frameon=False)
right.axline((0, 0), slope=1, color="#8a8a8a", linewidth=0.8)
right.scatter(*pairs.T, s=3, alpha=0.3, color="#2a6f97", linewidths=0)
right.set(xlabel="GFN2-xTB / eV/Å", ylabel="model / eV/Å", aspect="equal")
right.set_title(f"forces of the test set, RMSE {rmse:.0f} meV/Å")
figure.savefig(options.picture, dpi=110)
