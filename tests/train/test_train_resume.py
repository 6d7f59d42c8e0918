"""An interrupted and resumed training ends like one that was never interrupted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from train_tools import tiny_tree

from pet_mlip.config import load_config
from pet_mlip.errors import UserError
from pet_mlip.train import run_training
from pet_mlip.train.checkpoint import read_checkpoint
from pet_mlip.train.output import MetricsTable
from pet_mlip.train.schedule import Progress

EPOCHS = 16
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Random orientations, so that the random numbers matter, and checkpoints within epochs.
    tree = tiny_tree(data, epochs=EPOCHS, checkpoint_minutes=2e-3, validate_every=2)
    tree["symmetrization"] = {"ensemble": "none", "train": "structure"}
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def uninterrupted(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pet_mlip.train.run.finish", lambda *_: None)
        run_training(load_config(config), folder)
    return folder


def start(config: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    driver = Path(__file__).with_name("train_driver.py")
    command = [sys.executable, str(driver), str(config), *options]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*command, "--output", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(process: subprocess.Popen[str], folder: Path, number: int, after: int) -> str:
    """Send a signal some time after an epoch is complete; what the process said."""
    table = MetricsTable(folder / "metrics.csv")
    deadline = time.monotonic() + 120
    while len(table.rows()) < after and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.005)
    time.sleep(random.random() * 0.3)
    process.send_signal(number)
    return process.communicate(timeout=120)[1]


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, path=f"{path}.{index}")
    else:
        assert one == other, path


def assert_same_training(folder: Path, other: Path) -> None:
    a, b = (read_checkpoint(each / "last.ckpt") for each in (folder, other))
    for key in ("weights", "average", "average_updates", "optimizer", "potential"):
        assert_equal(a[key], b[key], key)
    assert (a["progress"]["epoch"], a["progress"]["batch"]) == (EPOCHS, 0)
    assert a["progress"]["best_score"] == b["progress"]["best_score"]
    tables = [MetricsTable(each / "metrics.csv").rows() for each in (folder, other)]
    assert [row["epoch"] for row in tables[0]] == list(range(1, EPOCHS + 1))
    for rows in zip(*tables, strict=True):
        assert all(
            x == pytest.approx(rows[1][name], nan_ok=True)
            for name, x in rows[0].items()
            if name != "elapsed"
        )
    best = [read_checkpoint(each / "best.ckpt")["average"] for each in (folder, other)]
    assert_equal(*best)


@pytest.mark.usefixtures("only_exported")
def test_sigint(config: Path, uninterrupted: Path, tmp_path: Path) -> None:
    process = start(config, tmp_path)
    said = interrupt(process, tmp_path, signal.SIGINT, after=random.randint(1, EPOCHS // 4))
    assert process.returncode == 130, said
    assert f"--output {tmp_path} --resume" in said.replace("\n", "")
    assert read_checkpoint(tmp_path / "last.ckpt")["progress"]["epoch"] < EPOCHS
    assert not (tmp_path / "model.pt").exists()
    run_training(load_config(config), tmp_path, resume=True)
    assert_same_training(tmp_path, uninterrupted)
    assert (tmp_path / "model.pt").exists()


@pytest.mark.usefixtures("without_report")
@pytest.mark.slow
def test_sigkill_twice(config: Path, uninterrupted: Path, tmp_path: Path) -> None:
    process = start(config, tmp_path)
    interrupt(process, tmp_path, signal.SIGKILL, after=random.randint(1, EPOCHS // 4))
    assert process.returncode == -signal.SIGKILL
    done = len(MetricsTable(tmp_path / "metrics.csv").rows())
    process = start(config, tmp_path, "--resume")
    interrupt(process, tmp_path, signal.SIGKILL, after=min(done + 3, EPOCHS - 1))
    run_training(load_config(config), tmp_path, resume=True)
    assert_same_training(tmp_path, uninterrupted)


@pytest.mark.usefixtures("without_report")
def test_a_finished_training_has_nothing_to_resume(config: Path, uninterrupted: Path) -> None:
    before = read_checkpoint(uninterrupted / "last.ckpt")
    run_training(load_config(config), uninterrupted, resume=True)
    assert_equal(read_checkpoint(uninterrupted / "last.ckpt"), before)
    assert "Nothing is left to train" in (uninterrupted / "train.log").read_text()


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_optimizer_continues_where_it_was(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    overrides = ["training.epochs=4", f"training.optimizer={optimizer}"]
    run_training(load_config(config, overrides), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "finished", lambda progress, _: progress.epoch >= 2)
        run_training(load_config(config, overrides), tmp_path / "parts")
    run_training(load_config(config, overrides), tmp_path / "parts", resume=True)
    a, b = (read_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    for key in ("weights", "average", "optimizer"):
        assert_equal(a[key], b[key], key)


@pytest.mark.usefixtures("without_report")
def test_training_on_for_more_epochs(config: Path, tmp_path: Path) -> None:
    run_training(load_config(config, ["training.epochs=2"]), tmp_path)
    run_training(load_config(config, ["training.epochs=4"]), tmp_path, resume=True)
    rows = MetricsTable(tmp_path / "metrics.csv").rows()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert "training.epochs was 2 and is 4 now" in (tmp_path / "train.log").read_text()


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("change", ["model.d_pet=16", "training.batch_size=3", "training.seed=9"])
def test_another_training_cannot_be_resumed(config: Path, tmp_path: Path, change: str) -> None:
    run_training(load_config(config, ["training.epochs=1"]), tmp_path)
    key = change.partition("=")[0]
    with pytest.raises(UserError, match=f"not the one of the training to resume: {key} "):
        run_training(load_config(config, [change]), tmp_path, resume=True)
