"""A tiny data set with energies, forces and (half of it) stresses, and a tiny configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from model_tools import TINY

from pet_mlip.config import Config, validate


def labelled(atoms: Atoms) -> Atoms:
    """The atoms with energy, forces and, if periodic, stress of the EMT potential."""
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    if atoms.pbc.all():
        results["stress"] = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def structures(n: int, seed: int) -> list[Atoms]:
    """Water molecules and distorted cells of aluminium or copper oxide in turn."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(n):
        if index % 2:
            atoms = bulk("AlO" if index % 4 == 1 else "CuO", "zincblende", a=4.2)
            atoms.set_cell(atoms.cell @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), True)
        else:
            atoms = molecule("H2O")
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        found.append(labelled(atoms))
    return found


def tiny_tree(data: Path, **training: Any) -> dict[str, Any]:
    """A configuration as nested dictionaries."""
    return {
        "data": {"root": str(data), "train": "train.xyz", "validation": "val.xyz"},
        "model": dict(TINY),
        "training": {"epochs": 2, "batch_size": 5, "accelerator": "cpu", **training},
        "logging": {"progress": False},
    }


def tiny_config(data: Path, **training: Any) -> Config:
    """A configuration that trains for a second."""
    return validate(tiny_tree(data, **training), "test")
