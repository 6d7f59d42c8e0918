"""Whole trainings, small enough for a test."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ase.io import read, write
from train_tools import structures, tiny_config, tiny_tree

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.config import Config, load_config, validate
from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.engine.derivatives import predict
from pet_mlip.errors import UserError
from pet_mlip.export import read_metadata
from pet_mlip.train import load_checkpoint, run_training
from pet_mlip.train.checkpoint import read_checkpoint
from pet_mlip.train.output import MetricsTable


def change(config: Config, section: str, **values: Any) -> Config:
    tree = {}
    for name in Config.model_fields:
        value = getattr(config, name)
        tree[name] = value if isinstance(value, str) else value.model_dump(exclude_unset=True)
    tree[section] |= values
    return validate(tree, "test")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training in double precision, with a test set."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    config = tiny_config(data, precision="float64")
    run_training(change(config, "data", test={"held-out": "molecules.xyz"}), folder)
    return folder


def test_everything_is_written(data: Path, finished: Path) -> None:
    folder = finished
    names = {path.name for path in folder.iterdir()}
    expected = ["config.yaml", "metrics.csv", "train.log", "last.ckpt", "best.ckpt", "model.pt"]
    assert names == {*expected, "report"}

    rows = MetricsTable(folder / "metrics.csv").rows()
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 4), (2, 8)]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    config = tiny_config(data, precision="float64")
    config = change(config, "data", test={"held-out": "molecules.xyz"})
    config = change(config, "training", learning_rate=4e-3)  # what auto was
    written, expected_config = load_config(folder / "config.yaml").to_dict(), config.to_dict()
    assert expected_config["training"]["loss"].pop("energy") == "auto"
    assert 0.1 <= written["training"]["loss"].pop("energy") <= 10.0
    assert written == expected_config
    log = (folder / "train.log").read_text()
    assert "Composition baseline" in log and "epoch 2" in log

    summary = json.loads((folder / "report" / "errors.json").read_text())
    assert set(summary) == {"validation", "held-out"}
    assert summary["validation"]["structures"] == 6
    assert summary["validation"]["rotational_error"] is not None
    best = min(rows, key=lambda row: row["val_loss"])
    rmse = summary["validation"]["errors"]["all"]["forces"]["rmse"]
    assert rmse == pytest.approx(best["forces_rmse"], rel=1e-3)
    assert "| held-out |" in (folder / "report" / "errors.md").read_text()
    for name in ("learning_curve.png", "validation/parity_forces.png", "held-out/errors.md"):
        assert (folder / "report" / name).is_file()


def test_the_exported_model_is_the_best_average(data: Path, finished: Path) -> None:
    potential, config, summary = load_checkpoint(finished / "best.ckpt")
    assert config["training"]["precision"] == "float64"
    atoms = read(data / "val.xyz", 1)
    batch = batch_from_atoms([atoms], potential.cutoff)
    expected = predict(potential, batch.graph, batch.structure, 1)
    atoms.calc = PETCalculator(finished / "model.pt")
    assert atoms.get_potential_energy() == pytest.approx(expected.energy.item(), abs=1e-9)
    metadata = read_metadata(finished / "model.pt")
    assert metadata.dtype == "float64"
    assert metadata.training["epoch"] == summary["epoch"]


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize(
    ("ensemble", "train", "optimizer"),
    [
        ("closest_pairs", "full", "adamw"),
        ("closest_pairs", "full", "muon"),
        ("none", "structure", "adamw"),
    ],
)
def test_training_lowers_the_error(
    data: Path, tmp_path: Path, ensemble: str, train: str, optimizer: str
) -> None:
    config = tiny_config(data, epochs=8, learning_rate=1e-2, validate_every=8, optimizer=optimizer)
    run_training(change(config, "symmetrization", ensemble=ensemble, train=train), tmp_path)
    rows = MetricsTable(tmp_path / "metrics.csv").rows()
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]


@pytest.mark.usefixtures("without_report")
def test_equal_seeds_give_equal_weights(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(name))
        run_training(tiny_config(data, seed=seed), tmp_path / name)
    a, b, c = (read_checkpoint(tmp_path / name / "last.ckpt")["weights"] for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_global_state_is_left_alone(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = (torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state())
    precision = torch.get_float32_matmul_precision()
    run_training(tiny_config(data, precision="tf32"), tmp_path)
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before[:2]
    assert torch.get_float32_matmul_precision() == precision
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.usefixtures("without_report")
def test_energies_alone_suffice(data: Path, tmp_path: Path) -> None:
    atoms = structures(16, 3)
    for each in atoms:
        each.calc.results = {"energy": each.calc.results["energy"]}
    write(tmp_path / "energies.xyz", atoms)
    tree = tiny_tree(tmp_path, loss={"forces": 0})
    tree["data"] |= {"train": "energies.xyz", "validation": 0.2}
    run_training(validate(tree, "test"), tmp_path / "run")
    (row, _) = MetricsTable(tmp_path / "run" / "metrics.csv").rows()
    assert math.isfinite(row["energy_rmse"]) and math.isnan(row["forces_rmse"])


@pytest.mark.usefixtures("without_report")
def test_molecules_need_no_weight_for_the_stress(data: Path, tmp_path: Path) -> None:
    tree = tiny_tree(data)
    tree["data"] |= {"train": "molecules.xyz", "validation": 0.2}
    run_training(validate(tree, "test"), tmp_path / "run")
    resolved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert resolved["training"]["loss"]["stress"] == 0
    tree["training"]["loss"] = {"stress": 1.0}
    with pytest.raises(UserError, match="stress"):
        run_training(validate(tree, "test"), tmp_path / "other")


@pytest.mark.usefixtures("without_report")
def test_labels_that_are_nowhere(data: Path, tmp_path: Path) -> None:
    tree = tiny_tree(data)
    tree["data"]["keys"] = {"forces": "dft_forces"}
    with pytest.raises(UserError, match="forces"):
        run_training(validate(tree, "test"), tmp_path / "run")


@pytest.mark.usefixtures("without_report")
def test_elements_that_training_lacks(data: Path, tmp_path: Path) -> None:
    tree = tiny_tree(data)
    tree["data"] |= {"train": "molecules.xyz", "validation": "val.xyz"}
    with pytest.raises(UserError, match=r"val.xyz, frame 1.*(Al|Cu)"):
        run_training(validate(tree, "test"), tmp_path / "run")


@pytest.mark.usefixtures("without_report")
def test_baselines(data: Path, tmp_path: Path) -> None:
    tree = tiny_tree(data)
    tree["data"]["baseline"] = {"H": -1.0, "O": -2.0, "Al": -3.0, "Cu": -4.0}
    run_training(validate(tree, "test"), tmp_path / "given")
    potential, _, _ = load_checkpoint(tmp_path / "given" / "best.ckpt")
    assert potential.composition.tolist() == [-1, -2, -3, -4]
    tree["data"]["baseline"] = "isolated_atoms"
    with pytest.raises(UserError, match="no isolated H, O, Al, Cu atom"):
        run_training(validate(tree, "test"), tmp_path / "isolated")


@pytest.mark.usefixtures("without_report")
def test_time_limit(data: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    run_training(tiny_config(data, epochs=None, max_time=2, validate_every=50), tmp_path)
    assert time.monotonic() - start < 30
    rows = MetricsTable(tmp_path / "metrics.csv").rows()
    assert 1 <= rows[-1]["elapsed"] <= 2.2
    assert math.isfinite(rows[-1]["val_loss"]), "the last epoch is always validated"
    assert rows[-1]["lr"] < 1e-4


@pytest.mark.usefixtures("without_report")
def test_early_stopping(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, epochs=50, learning_rate=1e-12, early_stopping=2)
    run_training(config, tmp_path)
    rows = MetricsTable(tmp_path / "metrics.csv").rows()
    losses = [row["val_loss"] for row in rows]
    assert len(rows) < 50
    assert min(losses[:-2]) <= min(losses[-2:])
    assert read_checkpoint(tmp_path / "last.ckpt")["progress"]["stopped"]


@pytest.mark.usefixtures("without_report")
def test_a_gradient_that_is_not_finite_names_the_structures(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite in step \d+;.*train.xyz, frame \d+"):
        run_training(tiny_config(data, learning_rate=1e30, gradient_clip=None, epochs=5), tmp_path)
    assert (tmp_path / "last.ckpt").exists()
