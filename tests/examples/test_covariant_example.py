"""The example of dipoles and polarizabilities: its data, and shortened runs of PET and PointNet."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

FOLDER = Path(__file__).parents[2] / "examples" / "covariant"
SIZES = {"train": 192, "test": 64}


def load(name):
    """A script of the example as a module."""
    spec = importlib.util.spec_from_file_location(f"covariant_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return load("pointnet")


def test_the_data_is_complete_and_small():
    dipoles = []
    for part, size in SIZES.items():
        structures = read(FOLDER / f"{part}.xyz", ":")
        assert len(structures) == size
        assert len({atoms.info["name"] for atoms in structures}) == 8
        for atoms in structures:
            alpha = atoms.info["polarizability"]
            assert np.linalg.eigvalsh(alpha).min() > -1e-3
            np.testing.assert_array_equal(alpha, alpha.T)
            dipoles.append(tuple(atoms.get_dipole_moment()))
    assert len(set(dipoles)) == sum(SIZES.values())
    assert sum(file.stat().st_size for file in FOLDER.glob("*")) < 300_000


@pytest.mark.parametrize(("part", "index"), [("train", 7), ("test", -20)])
def test_labels_are_those_of_the_method(part, index):
    make_data = load("make_data")
    atoms = read(FOLDER / f"{part}.xyz", index)
    np.testing.assert_allclose(make_data.dipole(atoms), atoms.get_dipole_moment(), atol=1e-5)
    alpha = make_data.polarizability(atoms)
    np.testing.assert_allclose(alpha, atoms.info["polarizability"], atol=1e-4)


def test_the_polarizability_is_the_curvature_of_the_energy_in_a_field():
    """An independent definition, which knows the units: dipoles in e Å, volumes in Å^3."""
    from ase.units import Bohr
    from tblite.interface import Calculator
    from tblite.library import ffi

    atoms = read(FOLDER / "test.xyz", 3)

    def energy(field):
        xtb = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / Bohr)
        xtb.set("verbosity", 0)
        xtb.set("accuracy", 1e-5)
        xtb.add("electric-field", ffi.from_buffer("double[]", np.array([field, 0.0, 0.0])))
        return float(xtb.singlepoint().get("energy"))

    step = 5e-3
    below, at, above = energy(-step), energy(0.0), energy(step)
    curvature = -(above + below - 2 * at) / step**2 * Bohr**3
    assert curvature == pytest.approx(atoms.info["polarizability"][0, 0], rel=1e-2)
    slope = -(above - below) / (2 * step) * Bohr
    assert slope == pytest.approx(atoms.get_dipole_moment()[0], rel=1e-2)


def test_a_short_training_learns_and_only_the_ensemble_is_covariant(example):
    batches = [example.Molecules.load(FOLDER / "train.xyz", slice(k, None, 16)) for k in range(8)]
    test = example.Molecules.load(FOLDER / "test.xyz", slice(None, None, 2))
    hypers = example.SymmetrizationHypers
    plain = example.train(hypers(ensemble="none", train="structure"), batches, steps=20)
    assert plain.train_mode == "structure"
    plain = example.evaluate(plain, test, n_rotations=2)
    exact = example.evaluate(example.train(hypers(), batches, steps=80), test, n_rotations=2)
    for name, label in test.labels.items():
        assert exact[f"{name} error"] < 0.6 * example.deviation(label)
        assert exact[f"{name} rotational error"] < 1e-13
        assert plain[f"{name} rotational error"] > 1e-3


def test_the_predicted_dipole_does_not_depend_on_the_origin_or_the_batch(example):
    structures = read(FOLDER / "test.xyz", ":3")
    torch.manual_seed(0)
    model = example.Symmetrized(example.PointNet(), example.CUTOFF, example.RANKS).eval().double()
    moved = [atoms.copy() for atoms in structures]
    for atoms in moved:
        atoms.translate([3.0, -2.0, 11.0])
    values = [
        model(example.batch_from_atoms(each, example.CUTOFF).graph)["dipole"]
        for each in (structures, moved, structures[:1])
    ]
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(values[2], values[0][: len(structures[0])], rtol=0, atol=1e-12)


def test_pet_learns_dipoles_and_polarizabilities(tmp_path, capsys, monkeypatch):
    """The README's commands, with fewer epochs."""
    from pet_mlip.config import load_config
    from pet_mlip.train import run_training

    quick = ["training.epochs=12", "training.validate_every=12", "logging.progress=false"]
    run_training(load_config(FOLDER / "pet.yaml", quick), tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict.py", str(tmp_path / "model.pt")])
    load("predict").main()
    lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, ("dipole", "polarizability"), strict=True):
        words = line.split()
        assert words[0] == f"{name}:"
        assert float(words[words.index("%") - 1].lstrip("(")) < 40.0
        assert float(words[words.index("rotational") + 2]) < 1e-12
