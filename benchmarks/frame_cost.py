"""What the symmetrization costs: time of an energy + forces call against the number of frames.

The same weights are called plainly and with ECSE, in turn, and the ratio of their times is printed
beside the mean number of frames per atom. A potential with n frames per atom that wastes nothing
has a ratio of n.

    python benchmarks/frame_cost.py [--repeats 5] [--big 10000]

``--big N`` instead evaluates N atoms of water once with ECSE in a fresh process and prints the
peak memory.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

from pet_mlip import PETCalculator
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.export import save_model
from pet_mlip.model.hypers import PETHypers
from pet_mlip.model.potential import Potential

HYPERS = PETHypers(d_pet=128, d_node=128, d_head=128, d_feedforward=256, num_heads=8)
ELEMENTS = [1, 6, 8, 14, 29]


def water(n_side: int) -> Atoms:
    """Randomly turned molecules on a cubic lattice of liquid density (3.1 Å)."""
    rng = np.random.default_rng(0)
    box = Atoms(cell=np.eye(3) * 3.1 * n_side, pbc=True)
    for place in np.ndindex(n_side, n_side, n_side):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        one.positions += 3.1 * np.array(place) + 0.1 * rng.normal(size=3)
        box += one
    return box


def structures() -> dict[str, Atoms]:
    """The four environments that the documentation quotes, none of them perfectly symmetric."""
    found = {
        "ethanol, 9 atoms": molecule("CH3CH2OH"),
        "water, 192 atoms": water(4),
        "silicon, 64 atoms": bulk("Si", cubic=True) * (2, 2, 2),
        "copper, 32 atoms": bulk("Cu", cubic=True) * (2, 2, 2),
    }
    for atoms in found.values():
        atoms.rattle(0.05, seed=1)
    return found


def exported(ensemble: str, folder: Path) -> Path:
    """Random weights, the same ones for every ensemble."""
    torch.manual_seed(0)
    symmetrization = SymmetrizationHypers(ensemble=ensemble, train="environment")
    path = folder / f"{ensemble}.pt"
    save_model(path, Potential(ELEMENTS, HYPERS, symmetrization))
    return path


def seconds(calculator: PETCalculator, atoms: Atoms) -> float:
    """CPU seconds of one energy + forces call, neighbour list included."""
    calculator.reset()
    start = time.process_time()
    calculator.calculate(atoms, ["energy", "forces"])
    return time.process_time() - start


def compare(repeats: int, folder: Path) -> None:
    """Print the table of ratios."""
    plain = PETCalculator(exported("none", folder), skin=0)
    symmetric = PETCalculator(exported("axis_plane", folder), skin=0)
    print("| structure | frames per atom | plain, ms | ECSE, ms | ratio | ratio / frames |")
    print("|---|---|---|---|---|---|")
    for name, atoms in structures().items():
        seconds(plain, atoms), seconds(symmetric, atoms)
        pairs = [(seconds(plain, atoms), seconds(symmetric, atoms)) for _ in range(repeats)]
        ratio = statistics.median(b / a for a, b in pairs)
        frames = symmetric.info["mean_frames"]
        a, b = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
        row = f"| {name} | {frames:.1f} | {a:.0f} | {b:.0f} | {ratio:.1f} | {ratio / frames:.2f} |"
        print(row, flush=True)


def big(n_atoms: int, folder: Path) -> None:
    """Print time and peak memory of one call."""
    atoms = water(round((n_atoms / 3) ** (1 / 3)))
    calculator = PETCalculator(exported("axis_plane", folder), skin=0)
    spent = seconds(calculator, atoms)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    frames = calculator.info["mean_frames"]
    print(
        f"{len(atoms)} atoms, {frames:.1f} frames per atom: {spent:.0f} CPU s, peak {peak:.1f} GiB"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--big", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.big:
            big(options.big, Path(folder))
        else:
            compare(options.repeats, Path(folder))


if __name__ == "__main__":
    main()
