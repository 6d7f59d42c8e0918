"""The whole benchmark: files, trainings two at a time, errors; the results are plain JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

from benchmarks.learning import clock
from benchmarks.learning.contestants import Contestant, Ours, Say, Task
from benchmarks.learning.prepare import prepare
from benchmarks.learning.sets import LearningSet
from benchmarks.peers.suite import machine
from pet_mlip.errors import UserError
from pet_mlip.files import write_text

RESULT = "result.json"
"""In the folder of a contestant: a finished run."""

Results = dict[str, Any]
Keep = Callable[[Results], None]


@dataclass(frozen=True)
class Settings:
    """What everyone is given."""

    data: Path
    output: Path
    minutes: float | None = None
    """Instead of the budgets in the table of sets."""
    seed: int = 0
    ours_set: tuple[str, ...] = ()
    """Changes to our default configuration, as KEY=VALUE."""
    structures: int | None = None
    """In the training set, at most."""

    def minutes_of(self, one: LearningSet) -> float:
        """Budget of each training on a set."""
        return one.minutes if self.minutes is None else self.minutes


def conditions(one: LearningSet, contestant: Contestant, settings: Settings) -> dict[str, Any]:
    """What a result must have in common with a run that would repeat it."""
    return {
        "version": contestant.version(),
        "minutes": settings.minutes_of(one),
        "seed": settings.seed,
        "batch": one.batch,
        "structures": settings.structures,
        "set": list(settings.ours_set) if isinstance(contestant, Ours) else [],
    }


def finished(folder: Path, wanted: dict[str, Any]) -> Results | None:
    """The result in the folder of a contestant, if it has one.

    Args:
        folder: Of the contestant, for one set.
        wanted: Its conditions.

    Raises:
        UserError: It is that of another run.
    """
    file = folder / RESULT
    if not file.is_file():
        return None
    result: Results = json.loads(file.read_text(encoding="utf-8"))
    for name, value in wanted.items():
        if result["conditions"].get(name) != value:
            raise UserError(
                f"{folder} holds a result with {name} {result['conditions'].get(name)}, not "
                f"{value}: choose another --output, or delete that folder."
            )
    return result


def run(
    sets: list[LearningSet],
    contestants: list[Contestant],
    settings: Settings,
    say: Say,
    keep: Keep,
) -> Results:
    """Train everyone on everything that is not finished yet.

    Args:
        sets: What is learned.
        contestants: Who learns.
        settings: What everyone is given.
        say: Is told the progress, a sentence each.
        keep: Is given the results so far after each training, so that none are lost.

    Returns:
        Results as plain JSON types; `benchmarks.learning.report` describes them.

    Raises:
        UserError: There are results of other settings, or a file of a set cannot be used.
    """
    clock.check_system()
    results: Results = {
        "seed": settings.seed,
        "set": list(settings.ours_set),
        "structures": settings.structures,
        "machine": machine(),
        "titles": {c.name: c.title for c in contestants},
        "sets": {},
    }
    entries: dict[str, dict[str, Results]] = results["sets"]
    todo: list[tuple[LearningSet, Contestant]] = []
    for one in sets:
        entries[one.name] = {}
        for contestant in contestants:
            folder = settings.output / one.name / contestant.name
            result = finished(folder, conditions(one, contestant, settings))
            if result is None:
                todo.append((one, contestant))
            else:
                entries[one.name][contestant.name] = result
    unfinished = {one.name: one for one, _ in todo}
    tasks = {name: _task(one, settings) for name, one in unfinished.items()}
    free: SimpleQueue[int] = SimpleQueue()
    for core in clock.cores():
        free.put(core)
    stop = Event()
    with ThreadPoolExecutor(len(clock.cores())) as executor:
        futures: dict[Future[Results], tuple[LearningSet, Contestant]] = {}
        try:
            for one, contestant in todo:
                job = Job(tasks[one.name], contestant, settings, say)
                futures[executor.submit(job.run, free, stop)] = (one, contestant)
            for future in as_completed(futures):
                one, contestant = futures[future]
                entries[one.name][contestant.name] = future.result()
                keep(results)
        finally:
            stop.set()
            executor.shutdown(cancel_futures=True)
    keep(results)
    return results


def _task(one: LearningSet, settings: Settings) -> Task:
    folder = settings.output.resolve() / one.name
    return Task(
        one,
        prepare(one, settings.data, folder, settings.seed, settings.structures),
        60.0 * settings.minutes_of(one),
        settings.seed,
        settings.ours_set,
    )


@dataclass(frozen=True)
class Job:
    """One contestant on one set."""

    task: Task
    contestant: Contestant
    settings: Settings
    say: Say

    def run(self, free: SimpleQueue[int], stop: Event) -> Results:
        """Train, find the errors, and write the result.

        Args:
            free: Cores on which nothing runs; one is taken and given back.
            stop: Ends it when it is set.
        """
        one, contestant = self.task.one, self.contestant
        folder = self.task.data.folder / contestant.name
        core = free.get()
        self.say(f"{one.name}, {contestant.title}: begins on core {core}.")
        try:
            if folder.exists():  # an earlier run, which was interrupted
                shutil.rmtree(folder)
            folder.mkdir()
            result = self.measure(folder, core, stop)
        except UserError as failure:
            reason = str(failure).rstrip(".")
            self.say(f"{one.name}, {contestant.title}: left out, {reason}.")
            return {"left_out": reason}
        finally:
            free.put(core)
        write_text(folder / RESULT, json.dumps(result, indent=1))
        self.say(f"{one.name}, {contestant.title}: finished.")
        return result

    def measure(self, folder: Path, core: int, stop: Event) -> Results:
        """Train and find the errors."""
        trained = self.contestant.train(self.task, folder, core, stop, self.say)
        if not trained.points:
            raise UserError("nothing was validated; give more --minutes")
        found = folder / "errors.json"
        tests = [f"{name}={file}" for name, file in self.task.data.tests.items()]
        worker = [sys.executable, "-m", "benchmarks.learning.errors", self.contestant.name]
        errors_folder = folder / "errors"
        errors_folder.mkdir()
        clock.run([*worker, str(trained.model), str(found), *tests], errors_folder, core, stop)
        last = trained.points[-1]
        return {
            "conditions": conditions(self.task.one, self.contestant, self.settings),
            "structures": [self.task.data.n_train, self.task.data.n_validation],
            "epochs": last.epoch,
            "steps": last.step,
            "counted": last.cpu,
            "cpu": trained.cpu,
            "errors": json.loads(found.read_text()),
            "curve": [asdict(point) for point in trained.points],
        }
