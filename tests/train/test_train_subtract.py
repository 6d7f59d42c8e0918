"""What is subtracted from the labels is added by whoever evaluates the model, or it is refused."""

from __future__ import annotations

import json
import shutil

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase.build import bulk, molecule
from ase.calculators.mixing import SumCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from model_tools import make_potential
from train_tools import tiny_tree
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.cli.app import app
from pet_mlip.config import validate
from pet_mlip.data.dispersion import D3, canonical_name, subtract
from pet_mlip.data.labels import structure_from_atoms
from pet_mlip.errors import UserError
from pet_mlip.evaluate import evaluate
from pet_mlip.export import read_metadata, save_model
from pet_mlip.export.metadata import refuse_subtracted
from pet_mlip.learn import training as learn_training
from pet_mlip.learn.config import LearnConfig
from pet_mlip.train import run_training
from pet_mlip.train.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint
from pet_mlip.train.initial import inherit_model

dftd3 = pytest.importorskip("dftd3.ase")
NAME = "d3(PBE, d3bj)"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same model without D3 and with what learned labels without it."""
    folder = tmp_path_factory.mktemp("models")
    potential = with_uncertainty(make_potential())
    save_model(folder / "plain.pt", potential, dtype="float64")
    potential.subtracted = NAME
    save_model(folder / "rest.pt", potential, dtype="float64")
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
    assert metadata.subtracted == NAME
    with pytest.raises(UserError, match=r"without d3\(PBE, d3bj\)"):
        refuse_subtracted(metadata, tmp_path / "other.pt")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Folder of a training on labels without D3."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    tree = tiny_tree(data, epochs=1, uncertainty_members=0)
    tree["data"] |= {"subtract": "D3(PBE)", "test": {"test": "val.xyz"}}
    run_training(validate(tree, "test"), folder)
    return folder


def test_training_learns_the_rest(trained, data):
    report = json.loads((trained / "report" / "errors.json").read_text())
    calculator = PETCalculator(trained / "model.pt")
    assert calculator.metadata.subtracted == NAME
    structures = ase.io.read(data / "val.xyz", ":")
    found = calculator.compute_batch(structures, ["forces"])
    errors = [f["forces"] - a.get_forces() for f, a in zip(found, structures, strict=True)]
    rmse = 1000 * np.sqrt(np.mean(np.concatenate(errors) ** 2))
    for name in ("validation", "test"):
        assert report[name]["errors"]["all"]["forces"]["rmse"] == pytest.approx(rmse, rel=1e-5)
    # Forces of the untouched labels differ by more than that from those of the bare network.
    bare = PETCalculator(trained / "model.pt", d3=False)
    other = bare.compute_batch(structures, ["forces"])
    pairs = zip(found, other, strict=True)
    assert max(np.abs(a["forces"] - b["forces"]).max() for a, b in pairs) > 1e-4


def test_every_export_says_so(trained, tmp_path, capsys):
    path = tmp_path / "none.pt"
    options = ["--symmetrization", "none", "--force", "--output", str(path)]
    app(["export", str(trained / "best.ckpt"), *options], standalone_mode=False)
    assert read_metadata(path).subtracted == NAME
    capsys.readouterr()
    for file in (trained / "best.ckpt", path):
        app(["info", str(file)], standalone_mode=False)
        assert f"subtracted from the labels │ {NAME}" in " ".join(capsys.readouterr().out.split())


def test_fine_tuning_goes_on_with_it(trained, data, tmp_path):
    tree = tiny_tree(data, epochs=1, uncertainty_members=0, init_from=str(trained / "best.ckpt"))
    del tree["model"]
    tree["training"]["learning_rate"] = 1e-9
    for name in ("inherited", "changed"):
        run_training(validate(tree, "test"), tmp_path / name)
        tree["data"] |= {"subtract": None}
    inherited, changed = (tmp_path / name for name in ("inherited", "changed"))
    assert read_metadata(inherited / "model.pt").subtracted == NAME
    assert read_metadata(changed / "model.pt").subtracted is None
    said = "data.subtract is null, but it was d3(PBE, d3bj) for the checkpoint"
    assert said in " ".join((changed / "train.log").read_text().split())
    assert "for the checkpoint" not in (inherited / "train.log").read_text()
    start = read_checkpoint(inherited / "best.ckpt")["summary"]["validation"]
    before = read_checkpoint(trained / "best.ckpt")["summary"]["validation"]
    assert start["forces_rmse"] == pytest.approx(before["forces_rmse"], rel=1e-6)


def test_labels_that_lack_it_already(files):
    atoms = rattled("CH3CH2OH")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    atoms.info["subtracted"] = "D3 PBE d3bj"
    structure = structure_from_atoms(atoms)
    assert structure_from_atoms(structure.to_atoms()).subtracted == "D3 PBE d3bj"
    with pytest.raises(UserError, match=r"once more: set data\.subtract to null"):
        subtract(D3("PBE"), [structure])
    assert structure.energy == -1.0
    with pytest.raises(UserError, match=r"but the model adds d3\(PBE, d3bj\)"):
        evaluate(PETCalculator(files / "rest.pt"), [structure])
    assert evaluate(PETCalculator(files / "plain.pt"), [structure]).n_structures == 1


def test_checkpoints_of_format_6_had_it_in_the_summary(trained, tmp_path):
    content = read_checkpoint(trained / "best.ckpt")
    del content["potential"]["subtracted"]
    content["summary"]["subtracted"] = NAME
    write_checkpoint(tmp_path / "old.ckpt", {**content, "format_version": 6})
    assert load_checkpoint(tmp_path / "old.ckpt")[0].subtracted == NAME


def test_one_spelling():
    assert canonical_name("d3( pbe )") == canonical_name("D3(PBE, D3BJ)") == NAME
    assert D3("pbe").name == NAME


def test_learning_goes_on_with_it(trained):
    def config(**more):
        tree = {"start": ["a.xyz"], "reference": {"calculator": "ase.calculators.emt.EMT"}, **more}
        made = learn_training._configuration(
            LearnConfig.model_validate(tree), ["a.xyz"], ["a.xyz"], {"epochs": 1}
        )
        return inherit_model(made, None).data.subtract

    assert config() is None
    assert config(subtract="d3(PBE)") == NAME
    start = {"init_from": str(trained / "best.ckpt")}
    assert config(training=start) == NAME
    assert config(training=start, subtract=None) is None


def test_uncertainties_are_found_with_it(trained, data, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    members = "training.uncertainty_members=3"
    written = tmp_path / "other.yaml"
    written.write_text(yaml.dump(tiny_tree(data)))
    found = []
    for arguments in (["--set", members], ["--config", str(written), "--set", members]):
        app(["uncertainty", str(folder), *arguments], standalone_mode=False)
        found.append(read_checkpoint(folder / "best.ckpt")["uncertainty"]["whitening"])
        assert read_metadata(folder / "model.pt").subtracted == NAME
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)
    with pytest.raises(UserError, match=r"data.subtract is null, but was d3\(PBE, d3bj\) when"):
        app(
            ["uncertainty", str(folder), "--set", members, "--set", "data.subtract=null"],
            standalone_mode=False,
        )
