"""`pet-mlip export`."""

import pytest
from ase.build import molecule
from model_files import checkpoint, small_potential

from pet_mlip import PETCalculator
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import read_metadata


def trained(ensemble, train):
    """A small potential that was trained in some mode."""
    base = small_potential("none")
    hypers = SymmetrizationHypers(ensemble=ensemble, train=train)
    potential = Potential(base.species, base.pet_hypers, hypers)
    potential.load_state_dict(base.state_dict())
    return potential


def energy(path):
    return PETCalculator(path, dtype="float64").compute_batch([molecule("H2O")])[0]["energy"]


def test_averaged_weights_are_exported(run, folder, tmp_path):
    checkpoint(tmp_path / "best.ckpt", small_potential())
    code, out, _ = run("export", tmp_path / "best.ckpt", "--dtype", "float64")
    assert code == 0
    assert "best.pt" in out
    assert energy(tmp_path / "best.pt") == energy(folder / "model.pt")
    metadata = read_metadata(tmp_path / "best.pt")
    assert metadata.training == {"epoch": 3, "steps": 12}
    assert metadata.dtype == "float64"


def test_output(run, tmp_path):
    checkpoint(tmp_path / "last.ckpt", small_potential())
    path = tmp_path / "new" / "some.pt"
    assert run("export", tmp_path / "last.ckpt", "-o", path)[0] == 0
    assert read_metadata(path).dtype == "float32"


@pytest.mark.parametrize(
    ("ensemble", "train", "asked"),
    [
        ("none", "structure", "none"),
        ("closest_pairs", "full", "closest_pairs"),
    ],
)
def test_what_a_training_prepared_for(run, tmp_path, ensemble, train, asked):
    path = checkpoint(tmp_path / "a.ckpt", trained(ensemble, train))
    code, _, err = run("export", path, "--symmetrization", asked)
    assert code == 0, err
    found = read_metadata(tmp_path / "a.pt").symmetrization
    assert (found["ensemble"], found["train"]) == (asked, train)
    assert found["inference"] == ("plain" if asked == "none" else "environment")


@pytest.mark.parametrize(
    ("ensemble", "train", "asked", "reason"),
    [
        ("none", "structure", "closest_pairs", "symmetrization.train: structure"),
        ("none", "structure", "closest_pairs", "averages over closest_pairs frames"),
        ("closest_pairs", "full", "none", "in frames of the closest_pairs ensemble"),
    ],
)
def test_what_it_did_not_prepare_for_takes_force(run, tmp_path, ensemble, train, asked, reason):
    path = checkpoint(tmp_path / "a.ckpt", trained(ensemble, train))
    code, _, err = run("export", path, "--symmetrization", asked)
    assert code == 1
    assert reason in " ".join(err.split())
    assert "--force" in err
    assert not (tmp_path / "a.pt").exists()
    assert run("export", path, "--symmetrization", asked, "--force")[0] == 0
    found = read_metadata(tmp_path / "a.pt").symmetrization
    assert (found["ensemble"], found["train"]) == (asked, train)


def test_unknown_ensemble(run, tmp_path):
    path = checkpoint(tmp_path / "a.ckpt", small_potential())
    code, _, err = run("export", path, "--symmetrization", "grid")
    assert code == 1
    assert "closest_pairs" in err


def test_a_damaged_checkpoint(run, tmp_path):
    path = checkpoint(tmp_path / "a.ckpt", small_potential())
    path.write_bytes(path.read_bytes()[:1000])
    assert run("export", path)[0] == 1
    assert not (tmp_path / "a.pt").exists()


def test_metatomic_has_files_of_its_own(run, tmp_path):
    metatomic = pytest.importorskip("metatomic.torch")
    checkpoint(tmp_path / "best.ckpt", small_potential())
    (tmp_path / "best.pt").write_text("precious")
    code, out, err = run("export", tmp_path / "best.ckpt", "--format", "metatomic")
    assert code == 0, err
    assert "best.metatomic.pt" in "".join(out.split())
    assert (tmp_path / "best.pt").read_text() == "precious"
    model = metatomic.load_atomistic_model(tmp_path / "best.metatomic.pt")
    assert "energy" in model.capabilities().outputs


def test_an_unknown_format(run, tmp_path):
    path = checkpoint(tmp_path / "a.ckpt", small_potential())
    code, _, err = run("export", path, "--format", "onnx")
    assert code == 1
    assert "torchscript or metatomic" in " ".join(err.split())


def test_metatomic_takes_no_average_over_orientations(run, tmp_path):
    pytest.importorskip("metatomic.torch")
    path = checkpoint(tmp_path / "a.ckpt", trained("none", "structure"))
    arguments = ["--format", "metatomic", "--symmetrization", "structure"]
    code, _, err = run("export", path, *arguments)
    assert code == 1
    assert "other programs do not" in " ".join(err.split())
    assert not (tmp_path / "a.metatomic.pt").exists()
