"""The decks in examples/lammps run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from simulation import Lammps

from pet_mlip.config import load_config
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import save_model
from pet_mlip.graph.hypers import PETHypers

EXAMPLES = Path(__file__).parents[2] / "examples" / "lammps"
SHORT = {
    "liquid": {"molecules": 6, "length": 12, "minimize": 3},
    "crystal_npt": {},
    "slab": {},
    "overlay_zbl": {},
    "heat_flux": {"equilibration": 2, "every": 2, "points": 2, "cells": 1},
}


@pytest.fixture
def lmp(plugin, tmp_path):
    """LAMMPS in a folder with a small random model of H, C and O, weak enough to be stable."""
    torch.manual_seed(1)
    hypers = PETHypers(cutoff=3.5, d_pet=8, d_node=8, d_head=8, d_feedforward=8, num_heads=2)
    potential = Potential([1, 6, 8], hypers, SymmetrizationHypers())
    potential.set_baseline({1: -1.0, 6: -6.0, 8: -8.0}, 0.1)
    save_model(tmp_path / "model.pt", potential)
    return Lammps(plugin, tmp_path)


def shortened(name, steps=4):
    """A deck with other values of its variables, which are all there."""
    text = (EXAMPLES / f"{name}.in").read_text("utf-8")
    values = {"steps": steps, "template": EXAMPLES / "ethanol.mol", **SHORT[name]}
    for variable in values:
        assert variable == "template" or f"variable      {variable} index" in text
    # The first definition of an index variable counts, as with -var on the command line.
    given = "".join(f"variable {key} index {value}\n" for key, value in values.items())
    return given + text.replace("thermo        100", "thermo 1")


def assert_finite(thermo):
    assert all(np.isfinite(list(row.values())).all() for row in thermo)


@pytest.mark.parametrize("name", [name for name in SHORT if name != "overlay_zbl"])
def test_deck(lmp, name):
    thermo = lmp(shortened(name)).thermo
    assert thermo[-1]["Step"] == thermo[0]["Step"] + 4 or name == "liquid"
    assert_finite(thermo)


def test_every_deck_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.in")} == set(SHORT)
    assert load_config(EXAMPLES / "diamond.yaml").model.cutoff == 4.0


def test_the_overlay_adds_repulsion(lmp):
    thermo = lmp(shortened("overlay_zbl", 20)).thermo
    assert thermo[-1]["Step"] == thermo[0]["Step"] + 20
    assert_finite(thermo)
    assert np.ptp([row["TotEng"] for row in thermo]) < 1e-2 * 50.0


def test_driver(lmp, plugin):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "driver.py"), "model.pt", "3"],
        cwd=lmp.folder,
        env={**os.environ, "LAMMPS_PLUGIN_PATH": str(plugin), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[-2:]] == ["step 0", "step 3"]
