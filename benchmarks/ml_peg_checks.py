"""ml-peg's checks of physical sense, with this package's calculator.

    pip install --no-deps ml-peg && pip install rdkit pandas tqdm
    python -m benchmarks.ml_peg_checks [--model organic-xtb] [--only rotational_symmetry,...]

Runs the calculations of ml-peg's category "physicality" that need no data from elsewhere, as they
are, and prints its metrics, computed as its analysis does. Extensivity (slabs of Al and Ni) and
locality (acetone among atoms of Ne) ask for elements that few models know; for these a model with
random weights is made, since what they ask for must hold whatever the weights are.

Without its dependencies (`--no-deps`: pip does not come to an end with them) ml-peg's own command
does not start; its functions for single models do.
"""

from __future__ import annotations

import csv
import importlib
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import ase.io
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from scipy.signal import find_peaks
from scipy.stats import spearmanr

from benchmarks.command import make_app, run_app
from pet_mlip import PETCalculator
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.export import save_model
from pet_mlip.graph.hypers import PETHypers

NAME = "pet"
ELEMENTS_OF_WEIGHTS = ("H", "C", "N", "O", "F", "S", "Cl")
RANDOM = [1, 6, 8, 10, 13, 28]
"""Elements of extensivity and locality."""
Numbers = dict[str, float]
Floats = NDArray[np.float64]
app = make_app()


class Provider:
    """What ml-peg calls a model."""

    def __init__(self, path: str):
        self.path = path

    def get_calculator(self, precision: str) -> PETCalculator:
        """Return the calculator in double or single precision."""
        return PETCalculator(self.path, dtype={"high": "float64", "low": "float32"}[precision])


def load(name: str, provider: Provider, output: Path) -> ModuleType:
    """Import one of ml-peg's calculations, for one model and with another folder for its files."""
    try:
        models: Any = importlib.import_module("ml_peg.models.get_models")
    except ImportError:
        raise UserError("ml-peg is missing: see the first lines of this file.") from None
    models.load_models = lambda names: {NAME: provider}
    calculation: Any = importlib.import_module(f"ml_peg.calcs.physicality.{name}.calc_{name}")
    calculation.MODELS = {NAME: provider}
    calculation.OUT_PATH = output / name
    return calculation


def largest(energies: list[float], forces: list[float]) -> Numbers:
    """Name the largest changes of energies per atom and of forces, in eV and eV/Å."""
    return {
        "largest ΔE, meV/atom": 1e3 * max(energies),
        "largest ΔF, meV/Å": 1e3 * max(forces),
    }


def rotational_symmetry(provider: Provider, output: Path) -> Numbers:
    """Turn ten structures along a walk of 114 orientations."""
    calculation = load("rotational_symmetry", provider, output)
    calculation.test_rotational_symmetry((NAME, provider))
    energies, forces = [], []
    for path in sorted((output / "rotational_symmetry" / NAME).glob("*.xyz")):
        frames = ase.io.read(path, ":")
        for before, after in pairwise(frames):
            change = after.get_potential_energy() - before.get_potential_energy()
            energies.append(abs(change) / len(after))
            turned = after.arrays["forces_original_frame"] - before.arrays["forces_original_frame"]
            forces.append(np.abs(turned).mean())
    return largest(energies, forces)


def translational_symmetry(provider: Provider, output: Path) -> Numbers:
    """Move ten structures by up to 1000 Å."""
    calculation = load("translational_symmetry", provider, output)
    calculation.test_translational_symmetry((NAME, provider))
    energies, forces = [], []
    for path in sorted((output / "translational_symmetry" / NAME).glob("*.xyz")):
        first, *others = ase.io.read(path, ":")
        for one in others:
            change = one.get_potential_energy() - first.get_potential_energy()
            energies.append(abs(change) / len(one))
            forces.append(np.abs(one.get_forces() - first.get_forces()).max())
    return largest(energies, forces)


def jacobian_symmetry(provider: Provider, output: Path) -> Numbers:
    """Ask how far the forces are from those of an energy."""
    calculation = load("jacobian_symmetry", provider, output)
    calculation.test_jacobian_symmetry((NAME, provider))
    shares = []
    for path in sorted((output / "jacobian_symmetry" / NAME).glob("*.xyz")):
        frames = ase.io.read(path, ":")
        forces = np.array([frame.get_forces().ravel() for frame in frames])
        jacobian = (forces[0::2] - forces[1::2]) / (2 * calculation.EPS)
        shares.append(np.linalg.norm(jacobian - jacobian.T) / 2 / np.linalg.norm(jacobian))
    return {"largest antisymmetric share of the Jacobian": max(shares)}


def extensivity(provider: Provider, output: Path) -> Numbers:
    """Compare two slabs far apart with each of them."""
    calculation = load("extensivity", provider, output)
    calculation.test_extensivity((NAME, provider))
    slabs = ase.io.read(output / "extensivity" / NAME / "slabs.xyz", ":")
    first, second, both = (slab.info.get("energy", slab.get_potential_energy()) for slab in slabs)
    return {"ΔE, meV": 1e3 * abs(both - first - second)}


def locality(provider: Provider, output: Path) -> Numbers:
    """Add atoms far away from a molecule."""
    calculation = load("locality", provider, output)
    solute = calculation.smiles_to_ase("CC(=O)C")
    solute.set_cell([60.0, 60.0, 60.0])
    solute.center()
    solute.pbc = True
    solute.calc = provider.get_calculator("high")
    solute.get_forces()
    calculation.test_ghost_atoms({NAME: solute}, NAME)
    calculation.test_rand_h({NAME: solute}, NAME)
    folder = output / "locality" / NAME
    alone, ghosts = ase.io.read(folder / "system_ghost.xyz", ":")
    difference = np.linalg.norm(alone.get_forces() - ghosts.get_forces()[: len(alone)], axis=1)
    first, *others = ase.io.read(folder / "system_random_H.xyz", ":")
    changes = [
        np.linalg.norm(first.get_forces() - one.get_forces()[: len(first)], axis=1).mean()
        for one in others
    ]
    return {
        "ghost atoms, largest ΔF, meV/Å": 1e3 * difference.max(),
        "random hydrogen, mean ΔF, meV/Å": 1e3 * float(np.mean(changes)),
    }


def diatomics(provider: Provider, output: Path) -> Numbers:
    """Scan all pairs of the elements that the weights know, from 0.18 to 6 Å."""
    calculation = load("diatomics", provider, output)
    calculation.ELEMENTS = list(ELEMENTS_OF_WEIGHTS)
    calculation.run_diatomics(NAME, provider)
    with open(output / "diatomics" / NAME / "diatomics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for name in {row["pair"] for row in rows}:
        columns = ("distance", "energy", "force_parallel")
        pair = [[float(row[key]) for key in columns] for row in rows if row["pair"] == name]
        distance, energy, force = np.array(sorted(pair, reverse=True)).T
        lowest = int(energy.argmin())
        near, far = slice(lowest, None), slice(None, lowest)
        curvature = np.gradient(np.gradient(energy, distance), distance)
        found.append(
            {
                "force flips": sign_changes(force, 1e-2),
                "energy minima": len(find_peaks(-energy, prominence=0.1, width=1)[0]),
                "energy inflections": sign_changes(curvature, 0.5),
                "ρ(E, repulsion)": rank_correlation(distance[near], energy[near]),
                "ρ(E, attraction)": rank_correlation(distance[far], energy[far]),
            }
        )
    return {key: float(np.nanmean([one[key] for one in found])) for key in found[0]}


def sign_changes(values: Floats, least: float) -> int:
    """Count changes of the sign among values of at least some size."""
    signs = np.sign(values[np.abs(values) > least])
    return int((signs[:-1] != signs[1:]).sum())


def rank_correlation(first: Floats, second: Floats) -> float:
    """Return Spearman's rank correlation, NaN of less than two values."""
    return float(spearmanr(first, second).statistic) if len(first) > 1 else float("nan")


OF_WEIGHTS: tuple[Callable[[Provider, Path], Numbers], ...] = (
    rotational_symmetry,
    translational_symmetry,
    jacobian_symmetry,
    diatomics,
)
OF_ANY_WEIGHTS: tuple[Callable[[Provider, Path], Numbers], ...] = (extensivity, locality)


def random_model(path: Path) -> None:
    """Write the default network with random weights."""
    torch.manual_seed(0)
    potential = Potential(RANDOM, PETHypers(), SymmetrizationHypers())
    save_model(path, potential.eval())


@app.command()
def main(
    model: Annotated[str, typer.Option(help="File, or name of weights.")] = "organic-xtb",
    only: Annotated[str | None, typer.Option(help="Names of checks, with commas.")] = None,
) -> None:
    """Run the checks, and print a table."""
    torch.set_num_threads(1)
    names = [check.__name__ for check in (*OF_WEIGHTS, *OF_ANY_WEIGHTS)]
    chosen = only.split(",") if only else names
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        raise UserError(f"--only: {unknown[0]!r} is none of {', '.join(names)}.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pt"
        random_model(path)
        for checks, weights in ((OF_WEIGHTS, model), (OF_ANY_WEIGHTS, str(path))):
            for check in checks:
                if check.__name__ not in chosen:
                    continue
                found = check(Provider(weights), Path(folder))
                title = model if weights == model else "random weights"
                for name, value in found.items():
                    print(f"| {check.__name__} | {title} | {name} | {value:.2g} |", flush=True)


if __name__ == "__main__":
    run_app(app)
