"""What a newcomer writes is understood, and what happens is told."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from ase.build import molecule
from ase.io import read, write
from train_tools import labelled, tiny_tree

from pet_mlip.config import load_config, validate
from pet_mlip.errors import UserError
from pet_mlip.train import run_training

pytestmark = pytest.mark.usefixtures("without_report")


def tree_of(data: Path, **changes: Any) -> dict[str, Any]:
    tree = tiny_tree(data, epochs=1)
    tree["data"] |= changes
    return tree


@pytest.mark.parametrize("written", ["10%", "10 %", "0.1", 0.1])
def test_validation_in_per_cent(data: Path, written: Any) -> None:
    assert validate(tree_of(data, validation=written), "test").data.validation == 0.1


def test_a_validation_of_ten_is_explained(data: Path) -> None:
    with pytest.raises(UserError, match=r"a tenth is 0.1 or 10%"):
        validate(tree_of(data, validation=10.0), "test")


@pytest.mark.parametrize("keys", [{1: -13.0, "O": -430.0}, {"1": -13.0, "8": -430.0}])
def test_baselines_by_atomic_number(data: Path, keys: dict[Any, float]) -> None:
    config = validate(tree_of(data, baseline=keys), "test")
    assert config.data.baseline == {"H": -13.0, "O": -430.0}


@pytest.mark.parametrize(
    ("keys", "words"), [({1: 0.0, "H": 1.0}, "H has two energies"), ({200: 0.0}, "200 is no atom")]
)
def test_baselines_that_make_no_sense(data: Path, keys: dict[Any, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        validate(tree_of(data, baseline=keys), "test")


def test_data_beside_the_configuration(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found from any working directory; the working directory comes first."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("train.xyz", "val.xyz"):
        write(folder / name, read(data / name, ":"))
    tree = tiny_tree(data, epochs=1)
    del tree["data"]["root"]
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(tmp_path)
    config = load_config("project/run.yaml")
    assert config.data.root == "project"
    run_training(config, tmp_path / "run")
    monkeypatch.chdir(folder)
    assert load_config("run.yaml").data.root == "."


def test_files_that_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = tree_of(tmp_path)
    tree["data"]["root"] = "there"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"There is no file there/train.xyz .*to the folder of the"):
        run_training(load_config("run.yaml"), tmp_path / "run")


def test_a_first_try_that_failed_is_no_obstacle(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run_training(validate(tree_of(data, train="none.xyz"), "test"), tmp_path)
    with pytest.raises(UserError):
        run_training(validate(tree_of(data, baseline="isolated_atoms"), "test"), tmp_path)
    run_training(validate(tree_of(data), "test"), tmp_path)
    with pytest.raises(UserError, match="--overwrite"):
        run_training(validate(tree_of(data), "test"), tmp_path)


def test_a_baseline_that_leaves_much_is_told(data: Path, tmp_path: Path) -> None:
    tree = tree_of(data, baseline={"H": 0.0, "O": 0.0, "Al": 0.0, "Cu": 50.0})
    run_training(validate(tree, "test"), tmp_path)
    log = " ".join((tmp_path / "train.log").read_text().split())
    assert "Warning: the" in log and "eV per atom" in log


def test_rare_elements_are_told(tmp_path: Path) -> None:
    """A seed that would draw the only carbon for validation."""
    waters = []
    for seed in range(9):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        waters.append(labelled(atoms))
    write(tmp_path / "train.xyz", [*waters, labelled(molecule("CO"))])
    told = []
    for seed in range(8):
        tree = tree_of(tmp_path, validation="30%")
        tree["training"]["seed"] = seed
        run_training(validate(tree, "test"), tmp_path / str(seed))
        told.append("Structures with C stay in" in (tmp_path / str(seed) / "train.log").read_text())
    assert any(told) and not all(told)


def test_progress_without_a_terminal(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pet_mlip.pace.SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    run_training(validate(tree_of(data), "test"), tmp_path)
    log = (tmp_path / "train.log").read_text()
    assert "epoch 1, step 1: 25.0 % done, about 0:00:0" in log
    assert "validating: 6 of 6 structures" in log
    assert "Reading structures: 20" in log
