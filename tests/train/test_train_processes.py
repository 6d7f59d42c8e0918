"""How many processes train, and who started them: left-over variables do not tell."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_train_resume import start
from train_tools import tiny_config, tiny_tree

from pet_mlip.errors import UserError
from pet_mlip.train import run_training
from pet_mlip.train.launch import cluster
from pet_mlip.train.processes import LEFT_OVER, MARK, Processes, find_processes

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}
ALONE = Processes("none", 1, True)
OWN = Processes("own", 2, True)

CASES = [
    ({}, (1, 1), ALONE),
    ({}, (2, 1), OWN),
    # A batch script without srun; a shell in which torchrun or a test has run.
    ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}, (1, 1), ALONE),
    ({"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}, (2, 1), OWN),
    ({"RANK": "1"}, (1, 1), ALONE),
    ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "h"}, (1, 1), ALONE),
    ({"LOCAL_RANK": "1"}, (2, 1), OWN),
    ({"NODE_RANK": "3", "GROUP_RANK": "3"}, (1, 1), ALONE),
    ({**TORCHRUN, "RANK": "0"}, (2, 1), Processes("torchrun", 2, True)),
    ({**TORCHRUN, "RANK": "1"}, (2, 1), Processes("torchrun", 2, False)),
    ({**SRUN, "SLURM_PROCID": "3"}, (2, 2), Processes("srun", 4, False)),
    ({**SRUN, "SLURM_PROCID": "0"}, (4, 1), Processes("srun", 4, True)),
    # One task that starts the others itself.
    ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, (2, 1), OWN),
    ({MARK: "1", "LOCAL_RANK": "1"}, (2, 1), Processes("own", 2, False)),
    ({"MASTER_ADDR": "h", "NODE_RANK": "1"}, (1, 2), Processes("manual", 2, False)),
    ({"MASTER_ADDR": "h", "LOCAL_RANK": "1", "RANK": "3"}, (1, 2), Processes("manual", 2, True)),
    ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1"}, (1, 1), Processes("torchrun", 1, True)),
]


@pytest.mark.parametrize(("environment", "shape", "expected"), CASES)
def test_processes(
    environment: dict[str, str], shape: tuple[int, int], expected: Processes
) -> None:
    environment = dict(environment)
    assert find_processes(*shape, environment) == expected
    if expected.launcher == "none":
        assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"} & set(environment)


@pytest.mark.parametrize("node", [0, 1])
def test_children_of_a_node_know_that_they_are_not_first(
    monkeypatch: pytest.MonkeyPatch, node: int
) -> None:
    """The user starts one process on each node; it starts the others, as Lightning does."""
    for name in (*LEFT_OVER, MARK):
        monkeypatch.setenv(name, "9")  # remember all that the launcher changes
        monkeypatch.delenv(name)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("NODE_RANK", str(node))
    monkeypatch.setenv("LOCAL_RANK", "2")  # left over
    parent = find_processes(2, 2)
    assert (parent.launcher, parent.first) == ("manual", node == 0)
    assert not cluster(parent).creates_processes_externally
    child = {**os.environ, "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
    assert find_processes(2, 2, child) == Processes("own", 4, False)
    assert child["LOCAL_RANK"] == "1"


@pytest.mark.slow
def test_two_nodes_on_one_machine(data: Path, tmp_path: Path) -> None:
    """Each with two processes, of which only one writes."""
    tree = tiny_tree(data, epochs=1, batch_size=8, devices=2, num_nodes=2)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = []
    for node in "01":
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": node}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            running.append(start(tmp_path / "run.yaml", tmp_path / "out"))
    said = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert (tmp_path / "out" / "best.ckpt").exists()
    log = (tmp_path / "out" / "train.log").read_text()
    assert log.count("epoch 1, step") == 1
    assert "Ignoring" not in log


def test_torchrun_with_one_process(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_tree(data, epochs=1)))
    driver = Path(__file__).with_name("train_driver.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    done = subprocess.run(
        [*command, str(driver), str(tmp_path / "run.yaml"), "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "best.ckpt").exists()
    assert "no launcher has set" not in done.stderr


REFUSED = [
    ({**TORCHRUN, "RANK": "0"}, (1, 1), "torchrun has started 2 processes, .* is 1: make them eq"),
    ({**SRUN, "SLURM_PROCID": "1"}, (1, 1), "srun has started 4 processes"),
    ({**TORCHRUN, "RANK": "2"}, (2, 1), "RANK=2 is not below WORLD_SIZE=2"),
    ({**TORCHRUN, "RANK": "one"}, (2, 1), "RANK is 'one', which is no whole number"),
    ({}, (2, 2), "start the training with torchrun or srun, or on each node with MASTER_ADDR"),
    ({"MASTER_ADDR": "h", "NODE_RANK": "2"}, (1, 2), "NODE_RANK .0 to 1."),
]


@pytest.mark.parametrize(("environment", "shape", "message"), REFUSED)
def test_refused(environment: dict[str, str], shape: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_processes(*shape, environment)


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize(
    "environment",
    [{"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}, {"RANK": "1"}, {"LOCAL_RANK": "x", "RANK": "2"}],
)
def test_a_training_with_left_over_variables(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run_training(tiny_config(data, epochs=1), tmp_path)
    assert (tmp_path / "best.ckpt").exists()
