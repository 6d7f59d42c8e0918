"""Learning curves from what each package writes, in one form."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Point:
    """A validation."""

    epoch: int
    step: int
    cpu: float
    """Counted seconds of processor time so far."""
    energy: float
    """RMSE in meV/atom."""
    forces: float
    """RMSE in meV/Å."""


def ours(text: str, marks: list[float]) -> list[Point]:
    """Curve from ``metrics.csv``, a row per epoch; validations count.

    Args:
        text: Content of the file.
        marks: Processor time when training starts, and at each row.
    """
    points = []
    for row, mark in zip(csv.DictReader(text.splitlines()), marks[1:], strict=False):
        if row["forces_rmse"]:
            points.append(
                Point(
                    int(row["epoch"]),
                    int(row["step"]),
                    mark - marks[0],
                    float(row["energy_rmse"]),
                    float(row["forces_rmse"]),
                )
            )
    return points


def mace(text: str, marks: list[float]) -> list[Point]:
    """Curve from the results file of MACE; validations do not count.

    Args:
        text: Lines of JSON, of which those with the mode "opt" are steps and those with "eval"
            validations, the first of them before any training.
        marks: Processor time at each validation.
    """
    points: list[Point] = []
    step, counted, seconds = 0, 0.0, 0.0
    epochs = pairwise(marks)
    for line in text.splitlines():
        entry = json.loads(line)
        if entry["mode"] == "opt":
            step += 1
            seconds += entry["time"]
        elif entry["epoch"] is not None:
            before, after = next(epochs, (0.0, 0.0))
            counted += (after - before) * seconds / (seconds + entry["time"])
            seconds = 0.0
            points.append(
                Point(
                    entry["epoch"] + 1,
                    step,
                    counted,
                    1000.0 * entry["rmse_e_per_atom"],
                    1000.0 * entry["rmse_f"],
                )
            )
    return points


def metatrain(
    text: str, marks: list[float], n_train: int, n_validation: int, batch: int
) -> list[Point]:
    """Curve from metatrain's ``train.csv``, a row per epoch; validations do not count.

    They are taken to cost as much per structure as training, which is more than they do.

    Args:
        text: Names, units, which are meV and Å for targets in eV, and rows of numbers.
        marks: Processor time when training starts, and after each epoch.
        n_train: Training structures.
        n_validation: Validation structures.
        batch: Structures in a batch.
    """
    names, _, *rows = csv.reader(text.splitlines())
    columns = [_find(names, quantity) for quantity in ("energy", "forces")]
    part = n_train / (n_train + n_validation)
    points = []
    for row, mark in zip(rows, marks[1:], strict=False):
        energy, forces = (float(row[k]) for k in columns)
        epoch = int(row[0]) + 1
        step = epoch * (n_train // batch)  # an incomplete batch is left out
        points.append(Point(epoch, step, part * (mark - marks[0]), energy, forces))
    return points


def seconds_per_epoch(points: list[Point]) -> float:
    """Counted seconds of an epoch, the first of which does not count, since it warms up."""
    first, last = points[0], points[-1]
    return (last.cpu - first.cpu) / (last.epoch - first.epoch)


def epochs_for(budget: float, per_epoch: float) -> int:
    """Epochs that fill a budget: one that is begun is ended.

    Args:
        budget: Seconds.
        per_epoch: Seconds of one epoch.
    """
    return max(1, math.ceil(budget / max(per_epoch, 1e-6)))


def _find(names: list[str], quantity: str) -> int:
    return next(
        k
        for k, name in enumerate(names)
        if name.startswith("validation") and quantity in name and "RMSE" in name
    )
