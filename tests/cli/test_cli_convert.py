"""`pet-mlip convert`."""

import gzip
import json

import pytest
import torch
from ase.build import molecule
from ase.io import write
from metatrain_files import checkpoint, dataset, random_potential, save, target

from pet_mlip import PETCalculator
from pet_mlip.export import read_metadata, save_model
from pet_mlip.train.checkpoint import load_checkpoint


@pytest.fixture
def source(tmp_path):
    """A checkpoint of metatrain, in float32, that predicts something else too."""
    content = checkpoint(random_potential())
    targets = {"energy": target(), "non_conservative_forces": target("force", shape=(0, 3, 1))}
    content["model_data"]["dataset_info"] = dataset(targets, length_unit="")
    return save(content, tmp_path / "metatrain.ckpt")


def results(path):
    calculator = PETCalculator(path, dtype="float64")
    return calculator.compute_batch([molecule("CH3OH")], ("energy", "forces"))[0]


def test_a_model_to_run(run, source, tmp_path):
    path = tmp_path / "new" / "model.pt"
    code, out, err = run("convert", source, "-o", path, "--dtype", "float64")
    assert code == 0, err
    assert "float64" in out
    assert "Left out, for not being energy: non_conservative_forces." in err
    assert "Å is assumed" in err
    save_model(tmp_path / "expected.pt", random_potential(), dtype="float64")
    assert results(path)["energy"] == results(tmp_path / "expected.pt")["energy"]
    metadata = read_metadata(path)
    assert metadata.symmetrization["inference"] == "plain"
    came_from = metadata.training["converted_from"]
    assert came_from["file"] == "metatrain.ckpt"
    assert came_from["checkpoint_version"] == 16
    assert came_from["left_out"] == ["non_conservative_forces"]


def test_a_checkpoint_to_train_on(run, run_json, source, folder, tmp_path):
    path = tmp_path / "converted.ckpt"
    assert run("convert", source, "-o", path)[0] == 0
    potential, config, summary = load_checkpoint(path)
    assert next(potential.pet.parameters()).dtype == torch.float32
    assert config["model"]["num_radial"] == 0
    assert summary["converted_from"]["head"] == "energy"
    assert run_json("info", path)["training"] == summary
    assert run("export", path, "--dtype", "float64")[0] == 0
    assert run("convert", source, "-o", tmp_path / "direct.pt", "--dtype", "float64")[0] == 0
    found, expected = results(tmp_path / "converted.pt"), results(tmp_path / "direct.pt")
    assert found["energy"] == expected["energy"]


def test_training_goes_on_from_it(run, source, tmp_path):
    path = tmp_path / "converted.ckpt"
    assert run("convert", source, "-o", path)[0] == 0
    structures = []
    for k in range(4):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=k)
        atoms.calc = PETCalculator(save_once(tmp_path))
        atoms.get_forces()
        structures.append(atoms)
    write(tmp_path / "data.xyz", structures)
    config = {
        "data": {"root": str(tmp_path), "train": "data.xyz", "validation": 0.25},
        "training": {"epochs": 1, "init_from": str(path), "accelerator": "cpu"},
        "logging": {"progress": False},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    code, _, err = run("train", tmp_path / "config.yaml", "--output", tmp_path / "run")
    assert code == 0, err
    assert read_metadata(tmp_path / "run" / "model.pt").hypers["num_radial"] == 0


def save_once(folder):
    """Another model, whose energies are to be learned."""
    path = folder / "other.pt"
    if not path.exists():
        save_model(path, random_potential(5))
    return path


def test_nothing_is_overwritten_unasked(run, source, tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("precious")
    code, _, err = run("convert", source, "-o", path)
    assert code == 1
    assert "--overwrite" in err
    assert path.read_text() == "precious"
    assert run("convert", source, "-o", path, "--overwrite")[0] == 0
    assert read_metadata(path).dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.onnx"], "give a name with .pt"),
        (["-o", "new.pt", "--dtype", "float16"], "--dtype float16 is not known"),
        (["-o", "new.pt", "--head", "gap"], "--head gap is not predicted by it"),
    ],
)
def test_mistakes(run, source, folder, arguments, message):
    code, _, err = run("convert", source, *arguments)
    assert code == 1
    assert message in err
    assert not (folder / "new.pt").exists()


@pytest.mark.parametrize("command", ["info", "export"])
def test_other_commands_tell_what_to_do_with_it(run, source, command):
    code, _, err = run(command, source)
    assert code == 1
    assert "is a checkpoint of metatrain: `pet-mlip convert" in err


def test_info_of_a_compressed_checkpoint(run, source, tmp_path):
    path = tmp_path / "metatrain.ckpt.gz"
    path.write_bytes(gzip.compress(source.read_bytes()))
    assert "is a checkpoint of metatrain: `pet-mlip convert" in run("info", path)[2]
