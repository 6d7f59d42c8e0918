"""A training is continued on the data it began with, wherever they are, and on no others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from train_tools import tiny_tree

from pet_mlip.config import validate
from pet_mlip.errors import UserError
from pet_mlip.train import run as run_module
from pet_mlip.train import run_training
from pet_mlip.train.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.usefixtures("without_report")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trainings of one epoch, with a validation file and with a random split."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "finish", lambda *_: None)
        for name in ("file", "split"):
            run_training(config_of(data, name, 1), folder / name)
    return {"file": folder / "file", "split": folder / "split"}


def config_of(data: Path, name: str, epochs: int) -> Any:
    tree = tiny_tree(data, epochs=epochs)
    if name == "split":
        tree["data"]["validation"] = 0.2
    return validate(tree, "test")


def resume(trained: dict[str, Path], name: str, data: Path, folder: Path) -> None:
    copy = folder / "run"
    shutil.copytree(trained[name], copy)
    run_training(config_of(data, name, 2), copy, resume=True)


def copy_data(data: Path, folder: Path) -> Path:
    shutil.copytree(data, folder / "elsewhere")
    return folder / "elsewhere"


@pytest.mark.parametrize("name", ["file", "split"])
def test_data_may_move(trained: dict[str, Path], data: Path, tmp_path: Path, name: str) -> None:
    resume(trained, name, copy_data(data, tmp_path), tmp_path)


def test_files_may_have_other_names(trained: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """What was read counts: here one file in two, under absolute paths."""
    train = read(data / "train.xyz", ":")
    write(tmp_path / "a.xyz", train[:7])
    write(tmp_path / "b.extxyz", train[7:])
    shutil.copy(data / "val.xyz", tmp_path / "c.xyz")
    tree = tiny_tree(data, epochs=2)
    tree["data"]["train"] = [str(tmp_path / "a.xyz"), str(tmp_path / "b.extxyz")]
    tree["data"]["validation"] = str(tmp_path / "c.xyz")
    shutil.copytree(trained["file"], tmp_path / "run")
    run_training(validate(tree, "test"), tmp_path / "run", resume=True)
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["progress"]["epoch"] == 2


def test_names_count_where_the_data_cannot_be_compared(
    trained: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained["file"], tmp_path / "run")
    content = read_checkpoint(tmp_path / "run" / "last.ckpt")
    del content["data"]
    write_checkpoint(tmp_path / "run" / "last.ckpt", content)
    tree = tiny_tree(data, epochs=2)
    tree["data"]["validation"] = "molecules.xyz"
    with pytest.raises(UserError, match=r"data\.validation \(was"):
        run_training(validate(tree, "test"), tmp_path / "run", resume=True)


def relabel(structures: list[Any]) -> list[Any]:
    results = structures[7].calc.results
    results["energy"] += 1e-6
    return structures


def move_atoms(structures: list[Any]) -> list[Any]:
    calc = structures[3].calc
    structures[3].positions[0, 0] += 1e-6
    structures[3].calc = SinglePointCalculator(structures[3], **calc.results)
    return structures


CHANGES = {
    "fewer": (lambda s: s[:15], r"the training set has 15 structures and had 20"),
    "more": (lambda s: [*s, s[0]], r"the training set has 21 structures and had 20"),
    "labels": (
        relabel,
        r"labels of 1 of the 20 training .*train.xyz, frame 7",
    ),
    "positions": (move_atoms, r"positions or cells of 1 of the 20 .*\(.*train.xyz, frame 3"),
    "order": (lambda s: s[::-1], "structures of the training set are in another order"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_training_data_are_refused(
    trained: dict[str, Path], data: Path, tmp_path: Path, change: str
) -> None:
    edit, words = CHANGES[change]
    elsewhere = copy_data(data, tmp_path)
    write(elsewhere / "train.xyz", edit(read(elsewhere / "train.xyz", ":")))
    with pytest.raises(UserError, match=words):
        resume(trained, "file", elsewhere, tmp_path)
    before = read_checkpoint(trained["file"] / "last.ckpt")["progress"]["epoch"]
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["progress"]["epoch"] == before


def test_other_validation_data_are_refused(
    trained: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    elsewhere = copy_data(data, tmp_path)
    write(elsewhere / "val.xyz", read(elsewhere / "val.xyz", ":")[:4])
    with pytest.raises(UserError, match="the validation set has 4 structures and had 6"):
        resume(trained, "file", elsewhere, tmp_path)


def test_a_split_of_other_data_is_refused(
    trained: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    """Else structures that were trained on would validate."""
    elsewhere = copy_data(data, tmp_path)
    write(elsewhere / "train.xyz", read(elsewhere / "train.xyz", ":")[::-1])
    with pytest.raises(UserError, match="not those of the training to resume"):
        resume(trained, "split", elsewhere, tmp_path)


def test_checkpoints_without_a_fingerprint(
    trained: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained["file"], tmp_path / "run")
    content = read_checkpoint(tmp_path / "run" / "last.ckpt")
    del content["data"]
    write_checkpoint(tmp_path / "run" / "last.ckpt", content)
    run_training(config_of(data, "file", 2), tmp_path / "run", resume=True)
    assert "does not say what it was trained on" in (tmp_path / "run" / "train.log").read_text()


def test_every_bit_counts() -> None:
    from pet_mlip.train.fingerprint import hash_values

    positions = np.array([[0.1, 0.2, 0.3]])
    other = positions.copy()
    other[0, 0] = np.nextafter(0.1, 1)
    assert hash_values(positions) == hash_values(positions.copy())
    assert len({hash_values(x) for x in (positions, other, positions.T, None, 0.0)}) == 5
    assert hash_values(np.array([0.0])) == hash_values(np.array([-0.0]))
