"""A whole learning: what it leaves, and that it ends the same whenever it is killed."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from ase.io import read
from learn_tools import copper_tree, methanol_tree

from pet_mlip import PETCalculator
from pet_mlip.config.load import validate_as
from pet_mlip.errors import UserError
from pet_mlip.learn.config import LearnConfig
from pet_mlip.learn.loop import correction_by, learn
from pet_mlip.learn.training import split
from pet_mlip.learn.workers import hold

COMMAND = [sys.executable, "-m", "pet_mlip.cli.app", "learn"]


def configuration(tree):
    return validate_as(LearnConfig, tree, "test")


def content(folder):
    """All numbers that a learning ends with."""
    found = {}
    for path in sorted(folder.glob("*/round.json")):
        facts = json.loads(path.read_text())
        found[str(path.relative_to(folder))] = {k: v for k, v in facts.items() if k != "seconds"}
    for name in ("train.xyz", "validation.xyz", "round_01/chosen.xyz"):
        found[name] = (folder / name).read_text()
    calculator = PETCalculator(folder / "model.pt")
    structures = read(folder / "train.xyz", ":")
    found["model"] = [r["forces"].tolist() for r in calculator.compute_batch(structures)]
    return found


@pytest.fixture(scope="module")
def methanol(tmp_path_factory):
    """A complete learning, and the folder of its configuration; made once for all processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "methanol"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "out").exists():
            (folder / "learn.yaml").write_text(yaml.safe_dump(methanol_tree(folder)))
            learn(configuration(methanol_tree(folder)), folder / "out")
    return folder


def test_all_labels_models_and_pictures_are_there(methanol):
    out = methanol / "out"
    labelled = [*read(out / "train.xyz", ":"), *read(out / "validation.xyz", ":")]
    facts = [json.loads((out / f"round_0{k}" / "round.json").read_text()) for k in (0, 1)]
    assert len(labelled) == 6 + sum(
        len(list((out / f"round_0{k}/labels").iterdir())) for k in (0, 1)
    )
    assert all(np.isfinite(atoms.get_forces()).all() for atoms in labelled)
    assert all(f["correction"] >= 1.0 for f in facts)
    report = (out / "report.md").read_text()
    assert f"{len(labelled)} reference calculations were made in all" in report
    for name in ("learning.png", "uncertainty.png"):
        assert (out / name).stat().st_size > 10_000
    # What a round's simulations found is what its model was asked about.
    chosen = read(out / "round_01" / "chosen.xyz", ":")
    model = PETCalculator(out / "round_01" / "run" / "model.pt")
    names = ("forces", "forces_uncertainty")
    for atoms, found in zip(chosen, model.compute_batch(chosen, names), strict=True):
        np.testing.assert_allclose(atoms.arrays["predicted_forces"], found["forces"], atol=2e-5)
        sigma = atoms.arrays["forces_uncertainty"]
        np.testing.assert_allclose(sigma, found["forces_uncertainty"], rtol=2e-3, atol=1e-6)


def test_rounds_learn_from_all_labels_before(methanol):
    out = methanol / "out"
    config = yaml.safe_load((out / "round_01" / "run" / "config.yaml").read_text())
    assert [path.split("/")[-2] for path in config["data"]["train"]] == ["first", "round_00"]
    assert config["training"]["init_from"].endswith("round_00/run/best.ckpt")


def test_a_finished_learning_is_neither_repeated_nor_overwritten(methanol, tmp_path):
    out, tree = methanol / "out", methanol_tree(methanol)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*")}
    learn(configuration(tree), out, resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/*/*")}
    with pytest.raises(UserError, match="holds a learning"):
        learn(configuration(tree), out)
    with pytest.raises(UserError, match=r"simulation.steps \(was 12, is 8\)"):
        tree["simulation"]["steps"] = 8
        learn(configuration(tree), out, resume=True)
    other = tmp_path / "other"
    other.mkdir()
    elsewhere = methanol_tree(other)  # the same structure in another place
    learn(configuration(elsewhere), out, resume=True)
    moved = read(other / "start.xyz")
    moved.rattle(0.1)
    moved.write(other / "start.xyz")
    with pytest.raises(UserError, match="are not those that the learning"):
        learn(configuration(elsewhere), out, resume=True)
    with hold(out), pytest.raises(UserError, match="Another `pet-mlip learn` works"):
        learn(configuration(methanol_tree(methanol)), out, resume=True)


def n_files(folder):
    """Count the files of a learning that is running: folders may vanish meanwhile."""
    return sum(len(files) for *_, files in os.walk(folder))


def killed_and_resumed(folder, out, n_kills, seed):
    """Run a learning that is killed so often, and resume it.

    Each kill comes a moment after a random number of the finished learning's files are there: by
    progress, not by time, so that a slow machine tests the same.
    """
    rng = random.Random(seed)
    words = [*COMMAND, str(folder / "learn.yaml"), "-o", str(out)]
    said = out.with_name("said.txt")
    for moment in sorted(rng.sample(range(2, n_files(folder / "out")), n_kills)):
        resume = ["--resume"] if (out / "config.yaml").exists() else []
        before, deadline = n_files(out), time.monotonic() + 300
        with open(said, "w") as file, subprocess.Popen([*words, *resume], stderr=file) as process:
            try:
                while process.poll() is None and n_files(out) < max(moment, before + 1):
                    assert time.monotonic() < deadline, said.read_text()
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, 0.3))
            finally:
                process.kill()
        # 2: it was faster, at the end.
        assert process.returncode in (-signal.SIGKILL, 2), said.read_text()
    assert (out / "config.yaml").exists()
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr  # random networks do not pass


def test_a_learning_that_is_killed_ends_the_same(methanol, tmp_path):
    killed_and_resumed(methanol, tmp_path / "out", 1, seed=1)
    assert content(tmp_path / "out") == content(methanol / "out")


@pytest.mark.slow
def test_a_learning_that_is_killed_ten_times_ends_the_same(methanol, tmp_path):
    killed_and_resumed(methanol, tmp_path / "out", 10, seed=2)
    assert content(tmp_path / "out") == content(methanol / "out")


def test_a_crystal_at_constant_pressure_learns_stresses(tmp_path):
    tree = copper_tree(tmp_path, rounds=1)
    learn(configuration(tree), tmp_path / "out")
    labelled = read(tmp_path / "out" / "train.xyz", ":")
    assert all("stress" in atoms.calc.results for atoms in labelled)
    chosen = read(tmp_path / "out" / "round_00" / "chosen.xyz", ":")
    volumes = {round(atoms.get_volume(), 6) for atoms in chosen}
    assert len(volumes) == len(chosen)


def test_a_reference_that_always_fails_is_told_with_its_reason(tmp_path):
    tree = methanol_tree(tmp_path)
    tree["reference"] = {"command": "echo out of memory >&2; exit 7", "processes": 2}
    with pytest.raises(UserError, match=r"only 0 could be labelled.*code 7: out of memory"):
        learn(configuration(tree), tmp_path / "out")


@pytest.mark.parametrize(("n", "first", "expected"), [(20, 1, 3), (2, 0, 1), (1, 0, 0), (3, 1, 1)])
def test_validation_gets_its_part_and_never_all(n, first, expected):
    items = list(range(n))
    training, validation = split(items, 0.15, first)
    assert len(validation) == expected
    assert training[:first] == items[:first]
    assert sorted([*training, *validation]) == items


def test_errors_beyond_uncertainties_correct_them(methanol):
    atoms = read(methanol / "out" / "train.xyz", -1)
    error = atoms.get_forces() - atoms.arrays["predicted_forces"]
    atoms.arrays["forces_uncertainty"] = np.full(len(atoms), np.sqrt(np.mean(error**2)) / 3)
    assert correction_by([atoms]) == pytest.approx(3.0)
    atoms.arrays["forces_uncertainty"] *= 100
    assert correction_by([atoms]) == 1.0
