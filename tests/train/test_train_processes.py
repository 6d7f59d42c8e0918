"""How many processes train, and who started them: left-over variables do not tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from train_tools import tiny_config

from pet_mlip.errors import UserError
from pet_mlip.train import run_training
from pet_mlip.train.processes import MARK, Processes, find_processes

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
]


@pytest.mark.parametrize(("environment", "shape", "expected"), CASES)
def test_processes(
    environment: dict[str, str], shape: tuple[int, int], expected: Processes
) -> None:
    environment = dict(environment)
    assert find_processes(*shape, environment) == expected
    if expected.launcher == "none":
        assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"} & set(environment)


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
