"""Which processes train together, and who started them.

Variables such as RANK or SLURM_NTASKS say what some launcher has done or would do. They stay behind
in shells and batch scripts, so that they count only with a sign that the launcher runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Literal

from pet_mlip.errors import UserError
from pet_mlip.train.output import LOG

Launcher = Literal["none", "own", "torchrun", "srun", "manual"]
MARK = "PET_MLIP_LAUNCHED"
"""Set by the process that starts others, for these to know."""
LEFT_OVER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_RANK", "NODE_RANK")


@dataclass(frozen=True)
class Processes:
    """The processes of a training."""

    launcher: Launcher
    """Who starts them: nobody (there is one), this program, what the name says, or the user.

    The user ("manual") starts this program once on each node, which starts the others there.
    """
    count: int
    first: bool
    """Whether this is the process that writes."""


def find_processes(
    devices: int, num_nodes: int, environment: MutableMapping[str, str] = os.environ
) -> Processes:
    """The processes of a training, from its devices and what the environment says.

    Variables that a launcher has left behind are removed from the environment, and named in the
    log: Lightning would believe them.

    Args:
        devices: Processes per node.
        num_nodes: Nodes.
        environment: Of this process.

    Raises:
        UserError: Another number of processes was started, or a variable makes no sense.
    """
    count = devices * num_nodes
    if "TORCHELASTIC_RUN_ID" in environment:
        started = _number(environment, "WORLD_SIZE", 1)
        rank = _number(environment, "RANK", 0)
        if rank >= started:
            raise UserError(f"RANK={rank} is not below WORLD_SIZE={started}: start torchrun anew.")
        _check_count("torchrun", started, count)
        return Processes("torchrun", count, rank == 0)
    if _number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_STEP_ID" in environment:
        started = _number(environment, "SLURM_STEP_NUM_TASKS", 1)
        _check_count("srun", started, count)
        return Processes("srun", count, _number(environment, "SLURM_PROCID", 0) == 0)
    if MARK in environment and "LOCAL_RANK" in environment:
        first = _number(environment, "LOCAL_RANK", 0) == _number(environment, "NODE_RANK", 0) == 0
        return Processes("own", count, first)
    if num_nodes > 1:
        node = _number(environment, "NODE_RANK", 0)
        if "MASTER_ADDR" not in environment or node >= num_nodes:
            raise UserError(
                f"training.num_nodes is {num_nodes}: start the training with torchrun or srun, or "
                f"on each node with MASTER_ADDR, MASTER_PORT and NODE_RANK (0 to {num_nodes - 1})."
            )
        _remove([name for name in LEFT_OVER if name != "NODE_RANK"], environment)
        return Processes("manual", count, node == 0)
    _remove(LEFT_OVER, environment)
    return Processes("own" if count > 1 else "none", count, True)


def _remove(names: Iterable[str], environment: MutableMapping[str, str]) -> None:
    left_over = [name for name in names if environment.pop(name, None) is not None]
    if left_over:
        LOG.info("Ignoring %s, which no launcher has set.", ", ".join(left_over))


def _check_count(launcher: str, started: int, count: int) -> None:
    if started != count:
        raise UserError(
            f"{launcher} has started {started} processes, but training.devices times "
            f"training.num_nodes is {count}: make them equal (--set training.devices={started} on "
            "one node), or start one process."
        )


def _number(environment: MutableMapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isdigit():
        raise UserError(f"The environment variable {name} is {text!r}, which is no whole number.")
    return int(text)
