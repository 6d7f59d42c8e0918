"""The whole benchmark: models, processes, rounds; the result is plain JSON."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from benchmarks.peers import contestants, structures
from benchmarks.peers.contestants import BASE, CONTESTANTS, REFERENCES, Contestant
from benchmarks.peers.settings import SHAPES, Settings
from benchmarks.peers.structures import BenchStructure
from benchmarks.peers.timing import errors, first_calls, interleave, n_rounds, summarize
from benchmarks.peers.weights import write_models
from benchmarks.peers.worker import Call, ContestantError, Worker

PACKAGES = ("torch", "numpy", "ase", "metatrain", "metatomic-ase", "pet-kokkos", "mace-torch")
PARITY = {"energy_per_atom": 5e-6, "forces": 1e-4}
"""Differences from which on a contestant does not evaluate the same function: it is not timed."""
Say = Callable[[str], None]
Keep = Callable[[dict[str, Any]], None]


def run(settings: Settings, say: Say, keep: Keep) -> dict[str, Any]:
    """Measure.

    Args:
        settings: What and how.
        say: Is told the progress, and who is left out and why, a sentence each.
        keep: Is given the results so far after each structure, so that none are lost.

    Returns:
        Results as plain JSON types; `benchmarks.peers.report` describes them.

    Raises:
        UserError: There is no such structure or contestant.
    """
    chosen = structures.choose(settings.structures)
    taking_part = contestants.choose(settings.contestants, settings.device, say)
    with tempfile.TemporaryDirectory(prefix="pet-mlip-bench-") as name:
        folder = Path(name)
        made_by = write_models(
            folder,
            SHAPES[settings.shape],
            settings.seed,
            {c.ensemble for c in taking_part},
            {c.name for c in taking_part},
        )
        results: dict[str, Any] = {
            "settings": {**asdict(settings), "timed_by": settings.timed_by},
            "weights": made_by,
            "machine": machine(),
            "titles": {c.name: c.title for c in taking_part},
            "structures": [],
        }
        for structure in chosen:
            found = Measurement(structure, taking_part, settings, folder, say).run()
            results["structures"].append(found)
            keep(results)
    return results


def machine() -> dict[str, Any]:
    """Processor, packages and how busy it all was."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": versions,
    }


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Measurement:
    """All contestants on one structure.

    Args:
        structure: The structure.
        taking_part: The contestants.
        settings: Of the benchmark.
        folder: Where the models are.
        say: Is told the progress.
    """

    def __init__(
        self,
        structure: BenchStructure,
        taking_part: list[Contestant],
        settings: Settings,
        folder: Path,
        say: Say,
    ) -> None:
        self.structure = structure
        self.atoms: Atoms = structure.build()
        self.settings = settings
        self.folder = folder
        self.say = say
        self.memory = settings.allowed_memory
        self.rng = np.random.default_rng(settings.seed)
        is_large = len(self.atoms) > settings.peer_atoms
        self.taking_part = [c for c in taking_part if c.large or not is_large]

    def run(self) -> dict[str, Any]:
        """Everything about this structure as plain JSON types."""
        names = ", ".join(c.name for c in self.taking_part)
        self.say(f"{self.structure.name}, {len(self.atoms)} atoms: {names}")
        entries: dict[str, dict[str, Any]] = {}
        references = self.references()
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            one_round = 0.0
            for contestant in self.taking_part:
                try:
                    worker = self.start(contestant)
                    stack.callback(worker.close)
                    calls = first_calls(worker, self.atoms, self.rng)
                    entry = self.describe(contestant, worker, calls)
                    check(entry, contestant, calls[0], references)
                except ContestantError as failure:
                    self.leave_out(contestant.name, str(failure), entries)
                    continue
                entries[contestant.name] = entry
                workers[contestant.name] = worker
                one_round += calls[2].wall
            rounds = n_rounds(one_round, self.settings.seconds, self.settings.repeats)
            calls_of, failed = interleave(workers, self.atoms, rounds, self.rng)
        for name, reason in failed.items():
            self.leave_out(name, reason, entries)
        for name, summary in summarize(calls_of, self.settings.timed_by, BASE).items():
            last = calls_of[name][-1]
            entries[name] |= summary
            entries[name] |= {"memory": last.memory, "device_memory": last.device_memory}
        add_frame_costs(entries)
        return {
            "name": self.structure.name,
            "title": self.structure.title,
            "groups": list(self.structure.groups),
            "n_atoms": len(self.atoms),
            "contestants": entries,
        }

    def start(self, contestant: Contestant) -> Worker:
        """Its process."""
        return Worker(
            contestant.name,
            self.folder,
            self.settings.device,
            self.settings.threads,
            self.memory,
        )

    def references(self) -> dict[str, Call]:
        """The structure as it is, in float64, by ensemble; nothing where that takes too long."""
        found = {}
        for ensemble, reference in REFERENCES.items():
            if not any(c.ensemble == ensemble and c.same_weights for c in self.taking_part):
                continue
            try:
                with self.start(reference) as worker:
                    found[ensemble] = worker.call(self.atoms)
            except ContestantError as failure:
                self.say(f"No accuracy of {self.structure.name}: {failure}.")
        return found

    def describe(self, contestant: Contestant, worker: Worker, calls: list[Call]) -> dict[str, Any]:
        """What its first calls tell."""
        first, second, third = calls
        timed_by = self.settings.timed_by
        entry: dict[str, Any] = {
            "load": worker.load_time,
            "first": float(getattr(first, timed_by)),
            "second_to_third": getattr(second, timed_by) / getattr(third, timed_by),
        }
        if contestant.ensemble != contestants.PLAIN:
            entry["frames"] = first.frames
        return entry

    def leave_out(self, name: str, reason: str, entries: dict[str, dict[str, Any]]) -> None:
        """Say so, and keep the reason in its place."""
        reason = reason.rstrip(".")
        self.say(f"{CONTESTANTS[name].title} is left out of {self.structure.name}: {reason}.")
        entries[name] = {"left_out": reason}


def check(
    entry: dict[str, Any], contestant: Contestant, call: Call, references: dict[str, Call]
) -> None:
    """Add the errors to an entry, if there is a reference.

    Raises:
        ContestantError: The contestant does not evaluate the same function.
    """
    if not contestant.same_weights or contestant.ensemble not in references:
        return
    entry["errors"] = errors(call, references[contestant.ensemble])
    for quantity, error in entry["errors"].items():
        if not contestant.coarse and not error <= PARITY[quantity]:
            raise ContestantError(
                f"it is not the same model, {quantity} (eV, Å) differ by {error:.1e} where "
                f"{PARITY[quantity]:.0e} is allowed"
            )


def add_frame_costs(entries: dict[str, dict[str, Any]]) -> None:
    """What a frame costs: by how much the time exceeds the plain model's, over the mean number."""
    for entry in entries.values():
        if entry.get("frames") and "ratio" in entry:
            entry["per_frame"] = [(ratio - 1.0) / entry["frames"] for ratio in entry["ratio"]]
