"""`pet-mlip info`: what a file is shows in its content."""

import gzip
import shutil

import pytest
from model_files import checkpoint, small_potential

from pet_mlip.cli.info import kind_of, orientations

AVERAGE = "average over orientations"


def test_model(run_json):
    found = run_json("info", "model.pt")
    assert found["kind"] == "model"
    assert found["model"]["species"] == "H, C, O, Si, Cu"
    assert found["model"]["cutoff [Å]"] == 4.0
    assert found["model"]["parameters"] > 1000
    assert found["symmetrization"]["ensemble"] == "closest_pairs"
    assert found["hyperparameters"]["d_pet"] == 16


def test_declared_orientations(run_json):
    assert "invariant, closest_pairs" in run_json("info", "model.pt")["model"][AVERAGE]
    assert "depend on the orientation" in run_json("info", "plain.pt")["model"][AVERAGE]
    for name, word in [("structure", "exact"), ("quadrature", "approximate"), ("random", "every")]:
        said = orientations({"inference": "plain", "orientations": name})
        assert said.startswith(name)
        assert word in said


def test_frames_on_a_structure(run_json):
    found = run_json("info", "model.pt", "--structure", "silicon.xyz", "--structure", "data.xyz")
    assert found["frames"]["structures"] == 7
    assert found["frames"]["max frames per atom"] >= found["frames"]["mean frames per atom"] > 1


def test_checkpoint(run_json, tmp_path):
    path = checkpoint(tmp_path / "a.ckpt", small_potential())
    found = run_json("info", path)
    assert found["kind"] == "checkpoint"
    assert found["training"] == {"epoch": 3, "steps": 12}
    assert found["checkpoint"]["precision"] == "float32"
    assert found["configuration"] == {"training": {"epochs": 3}}


def test_data(run_json):
    found = run_json("info", "data.xyz", "--cutoff", 3)
    assert found["kind"] == "data"
    assert found["n_structures"] == 6
    assert found["cutoff"] == 3.0
    assert found["labels"] == {"energy": 6, "forces": 6, "stress": 3}


@pytest.mark.parametrize("file", ["model.pt", "data.xyz"])
def test_tables(run, file):
    code, out, _ = run("info", file)
    assert code == 0
    assert "cutoff" in out
    assert "duplicates: 0" in out or "hyperparameters" in out


def test_content_decides_not_the_name(folder, tmp_path):
    shutil.copy(folder / "model.pt", tmp_path / "model.xyz")
    assert kind_of(str(tmp_path / "model.xyz")) == "model"
    assert kind_of(str(checkpoint(tmp_path / "a.pt", small_potential()))) == "checkpoint"
    with gzip.open(tmp_path / "data.xyz.gz", "wb") as file:
        file.write((folder / "data.xyz").read_bytes())
    assert kind_of(str(tmp_path / "data.xyz.gz")) == "data"
    assert kind_of(f"{folder}/data.xyz@:2") == "data"


def test_a_model_that_was_cut_short(run, folder, tmp_path):
    (tmp_path / "short.pt").write_bytes((folder / "model.pt").read_bytes()[:5000])
    code, _, err = run("info", tmp_path / "short.pt")
    assert code == 1
    assert "cut short" in err


@pytest.mark.parametrize("first", ["data.xyz", "checkpoint"])
def test_structures_go_with_a_model(run, tmp_path, first):
    if first == "checkpoint":
        first = checkpoint(tmp_path / "a.ckpt", small_potential())
    code, _, err = run("info", first, "--structure", "silicon.xyz")
    assert code == 1
    assert "--structure" in err
