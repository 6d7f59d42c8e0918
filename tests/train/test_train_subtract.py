"""What is subtracted from the labels is added by whoever evaluates the model, or it is refused."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.mixing import SumCalculator
from model_tools import make_potential
from train_tools import tiny_tree
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.config import validate
from pet_mlip.errors import UserError
from pet_mlip.export import read_metadata, save_model
from pet_mlip.export.metadata import refuse_subtracted
from pet_mlip.train import run_training

dftd3 = pytest.importorskip("dftd3.ase")
SUMMARY = {"subtracted": "d3(PBE, d3bj)"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same model without D3 and with what learned labels without it."""
    folder = tmp_path_factory.mktemp("models")
    potential = with_uncertainty(make_potential())
    save_model(folder / "plain.pt", potential, dtype="float64")
    save_model(folder / "rest.pt", potential, dtype="float64", training_summary=SUMMARY)
    return folder


def rattled(name):
    atoms = bulk("SiO", "zincblende", a=4.4) if name == "crystal" else molecule(name)
    atoms.rattle(0.05, seed=0)
    return atoms


@pytest.mark.parametrize("name", ["CH3CH2OH", "crystal"])
def test_the_calculator_adds_it(files, name):
    atoms = rattled(name)
    whole = SumCalculator(
        [PETCalculator(files / "plain.pt"), dftd3.DFTD3(method="PBE", damping="d3bj")]
    )
    calculator = PETCalculator(files / "rest.pt")
    names = ["energy", "forces"] + ["stress"] * bool(atoms.pbc.all())
    (batch,) = calculator.compute_batch([atoms], names)
    for quantity in names:
        expected = whole.get_property(quantity, atoms)
        np.testing.assert_allclose(calculator.get_property(quantity, atoms), expected, atol=1e-12)
        np.testing.assert_allclose(batch[quantity], expected, atol=1e-12)
    assert not {"energies", "stresses"} & set(calculator.results)
    assert calculator.get_property("energy_uncertainty", atoms) > 0
    without = PETCalculator(files / "rest.pt", d3=False)
    expected = PETCalculator(files / "plain.pt").get_property("energies", atoms)
    np.testing.assert_array_equal(without.get_property("energies", atoms), expected)


def test_second_derivatives_have_it(files):
    atoms = rattled("CH3CH2OH")
    calculator = PETCalculator(files / "rest.pt")
    row = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[4, 1] += sign * 1e-4
        row.append(-calculator.get_property("forces", moved)[[4, 0]].ravel() / (2 * 1e-4))
    found = calculator.get_hessian(atoms, indices=[4, 0])
    np.testing.assert_allclose(found[1], row[0] - row[1], atol=1e-5)


def test_committees_and_other_programs(files, tmp_path):
    with pytest.raises(UserError, match="Model 1 of the committee learned labels without d3"):
        PETCalculator([files / "plain.pt", files / "rest.pt"])
    metadata = read_metadata(files / "rest.pt")
    assert metadata.subtracted == "d3(PBE, d3bj)"
    with pytest.raises(UserError, match=r"without d3\(PBE, d3bj\)"):
        refuse_subtracted(metadata, tmp_path / "other.pt")


def test_training_learns_the_rest(data, tmp_path):
    tree = tiny_tree(data, epochs=1, uncertainty_members=0)
    tree["data"] |= {"subtract": "D3(PBE)", "test": {"test": "val.xyz"}}
    run_training(validate(tree, "test"), tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report" / "errors.json").read_text())
    calculator = PETCalculator(tmp_path / "run" / "model.pt")
    assert calculator.metadata.subtracted == "d3(PBE, d3bj)"
    structures = ase.io.read(data / "val.xyz", ":")
    found = calculator.compute_batch(structures, ["forces"])
    errors = [f["forces"] - a.get_forces() for f, a in zip(found, structures, strict=True)]
    rmse = 1000 * np.sqrt(np.mean(np.concatenate(errors) ** 2))
    for name in ("validation", "test"):
        assert report[name]["errors"]["all"]["forces"]["rmse"] == pytest.approx(rmse, rel=1e-5)
    # Forces of the untouched labels differ by more than that from those of the bare network.
    bare = PETCalculator(tmp_path / "run" / "model.pt", d3=False)
    other = bare.compute_batch(structures, ["forces"])
    pairs = zip(found, other, strict=True)
    assert max(np.abs(a["forces"] - b["forces"]).max() for a, b in pairs) > 1e-4
