"""Calls of one structure: first ones, interleaved rounds, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from benchmarks.peers.worker import Call, ContestantError, Worker

MOVE = 0.02
"""Standard deviation in Å of the moves between calls; kept neighbour lists stay valid."""

Floats = NDArray[np.float64]


def moved(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """A copy with every atom somewhere near its place."""
    copy = atoms.copy()
    copy.positions += rng.normal(scale=MOVE, size=(len(atoms), 3))
    return copy


def first_calls(worker: Worker, atoms: Atoms, rng: np.random.Generator) -> list[Call]:
    """The first call of a process, then two with one atom less.

    The second one must not be slow for the new number of atoms; the third tells what it takes.
    """
    fewer = atoms[:-1]
    return [
        worker.call(atoms, count_frames=True),
        worker.call(moved(fewer, rng)),
        worker.call(moved(fewer, rng)),
    ]


def interleave(
    workers: Mapping[str, Worker], atoms: Atoms, rounds: int, rng: np.random.Generator
) -> tuple[dict[str, list[Call]], dict[str, str]]:
    """Rounds in which everyone is called once, in random order, with the same positions.

    Where there are several, a round that does not count goes before: the first calls with this
    number of atoms may compile.

    Returns:
        The calls of each worker, and why some stopped working, who have none.
    """
    calls: dict[str, list[Call]] = {name: [] for name in workers}
    failed: dict[str, str] = {}
    for number in range(0 if rounds > 1 else 1, rounds + 1):
        positions = moved(atoms, rng)
        for name in rng.permutation(list(workers)).tolist():
            if name in failed:
                continue
            try:
                call = workers[name].call(positions)
            except ContestantError as failure:
                failed[name] = str(failure)
                calls[name] = []
                continue
            if number > 0:
                calls[name].append(call)
    return calls, failed


def n_rounds(seconds_of_one: float, budget: float, repeats: int) -> int:
    """Rounds that fit into the time, at least one."""
    return max(1, min(repeats, int(budget / max(seconds_of_one, 1e-9))))


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(value) for value in np.percentile(values, [25, 50, 75])]


def summarize(
    calls: Mapping[str, Sequence[Call]], timed_by: str, base: str
) -> dict[str, dict[str, Any]]:
    """Seconds, and ratios to the base of the same round, with their quartiles."""
    times = {name: [float(getattr(c, timed_by)) for c in made] for name, made in calls.items()}
    summary: dict[str, dict[str, Any]] = {}
    for name, seconds in times.items():
        if not seconds:
            continue
        summary[name] = {"seconds": seconds, "time": quartiles(seconds)}
        if times.get(base):
            ratios = [a / b for a, b in zip(seconds, times[base], strict=True)]
            summary[name]["ratio"] = quartiles(ratios)
    return summary


def errors(call: Call, reference: Call) -> dict[str, float]:
    """Differences of the energy per atom in eV and of the force components in eV/Å."""
    return {
        "energy_per_atom": abs(call.energy - reference.energy) / len(call.forces),
        "forces": float(np.abs(call.forces - reference.forces).max()),
    }
