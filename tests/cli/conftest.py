import json

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from model_files import small_potential
from terminal import run_command
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.cli.app import main
from pet_mlip.export import save_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Models, data and structures for the command line."""
    folder = tmp_path_factory.mktemp("cli")
    save_model(folder / "model.pt", small_potential(), dtype="float64")
    save_model(folder / "plain.pt", small_potential("none"), dtype="float64")
    doubting = with_uncertainty(small_potential())
    save_model(folder / "doubting.pt", doubting, dtype="float64")
    calculator = PETCalculator(folder / "model.pt")
    rng = np.random.default_rng(0)
    data = []
    for k in range(6):
        atoms = molecule("CH3OH") if k % 2 else bulk("Si")
        atoms.rattle(0.05, rng=rng)
        found = calculator.compute_batch([atoms], ("energy", "forces", "stress"))[0]
        found.pop("n_frames")
        found["energy"] += 0.01
        atoms.calc = SinglePointCalculator(atoms, **found)
        atoms.info["config_type"] = "molecule" if k % 2 else "crystal"
        data.append(atoms)
    write(folder / "data.xyz", data)
    write(folder / "methanol.xyz", molecule("CH3OH"))
    write(folder / "silicon.xyz", bulk("Si", cubic=True))
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Function that runs a command line in the folder: (exit code, stdout, stderr)."""

    def run(*arguments):
        return run_command(main, ["pet-mlip"], arguments, folder, monkeypatch, capsys)

    return run


@pytest.fixture
def run_json(run):
    """Function that runs a command with --json and returns what it printed."""

    def run_json(*arguments):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run_json
