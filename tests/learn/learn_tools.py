"""References that fail in many ways, and a configuration that learns in seconds."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write
from model_tools import TINY


class Moody(EMT):
    """EMT that fails in the way that is asked for where the first atom is at x < 0."""

    def __init__(self, mood: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mood = mood

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        if atoms.positions[0, 0] >= 0:
            return
        if self.mood == "raises":
            raise ValueError("no convergence\nafter 100 cycles")
        if self.mood == "dies":
            os._exit(3)
        if self.mood == "sleeps":
            time.sleep(60)
        if self.mood == "nan":
            self.results["forces"] = self.results["forces"] * np.nan
        if self.mood == "large":
            self.results["forces"] = self.results["forces"] + 1e3
        if self.mood == "far":
            self.results["energy"] += 1e3


def methanol_tree(folder: Path, **changes: Any) -> dict[str, Any]:
    """The configuration of a learning of methanol with EMT as the reference."""
    write(folder / "start.xyz", molecule("CH3OH"))
    return {
        "start": str(folder / "start.xyz"),
        "rounds": 2,
        "reference": {"calculator": "ase.calculators.emt.EMT", "processes": 2},
        "first": {"structures": 6},
        "model": dict(TINY),
        "training": {"steps": 20, "accelerator": "cpu"},
        "simulation": {"temperatures": [100, 200], "steps": 12, "interval": 4, "processes": 2},
        "selection": {"structures": 3, "checks": 2},
        **changes,
    }


def copper_tree(folder: Path, **changes: Any) -> dict[str, Any]:
    """The same of a crystal at constant pressure."""
    tree = methanol_tree(folder)
    write(folder / "start.xyz", bulk("Cu", cubic=True))
    simulation = {**tree["simulation"], "ensemble": "npt", "pressures": [0, 1000]}
    return {**tree, "simulation": {**simulation, "temperatures": 100}, **changes}
