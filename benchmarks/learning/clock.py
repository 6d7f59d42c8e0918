"""Processor time of a training at its marks: the lines that it writes after validations."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from pet_mlip.errors import UserError

POLL = 0.1
"""Seconds between two looks at a file."""
LAST_LINES = 3
"""Of a failed process, for the message."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": str(Path(__file__).parents[2]),
}


@dataclass(frozen=True)
class Marks:
    """Where a training writes, and which lines count: the first one says that it starts."""

    pattern: str
    """Of the file, in the folder of the training."""
    is_mark: Callable[[str], bool]


class Tail:
    """Counts the marks in a file that grows.

    Args:
        folder: Of the training.
        marks: What to look for.
    """

    def __init__(self, folder: Path, marks: Marks) -> None:
        self.folder = folder
        self.marks = marks
        self.path: Path | None = None
        self.offset = 0

    def new(self) -> int:
        """How many complete lines that are marks have come."""
        if self.path is None:
            self.path = next(iter(sorted(self.folder.glob(self.marks.pattern))), None)
        if self.path is None or self.path.stat().st_size == self.offset:
            return 0
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            complete = file.read().rpartition(b"\n")
        self.offset += len(complete[0]) + len(complete[1])
        lines = complete[0].decode(errors="replace").splitlines()
        return sum(map(self.marks.is_mark, lines))


def check_system() -> None:
    """Refuse systems on which processor times of other processes are not found.

    Raises:
        UserError: This is not Linux.
    """
    if not Path("/proc/self/stat").is_file():
        raise UserError("Processor times are read from /proc, so that this needs Linux.")


def cores() -> list[int]:
    """The one or two cores on which trainings run."""
    return sorted(os.sched_getaffinity(0))[:2]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, all its threads, and its children that have ended."""
    # The name of the program, which stands in brackets, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def run(
    command: list[str], folder: Path, core: int, stop: Event, marks: Marks | None = None
) -> list[float]:
    """Run a command on one core with one thread.

    Args:
        command: Program and arguments.
        folder: To run in; the output goes to ``output.txt`` there.
        core: Number of the core, where there is ``taskset``.
        stop: Ends the process when it is set.
        marks: What to look for.

    Returns:
        Processor time at each mark.

    Raises:
        UserError: It failed.
    """
    taskset = shutil.which("taskset")
    pinned = [taskset, "-c", str(core), *command] if taskset else command
    log = folder / "output.txt"
    tail = None if marks is None else Tail(folder, marks)
    found: list[float] = []
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            pinned,
            cwd=folder,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            used = 0.0
            # Its entry in /proc stays until poll() has taken note of its end.
            while not stop.is_set():
                used = cpu_seconds(process.pid)
                ended = process.poll() is not None
                found += [used] * (0 if tail is None else tail.new())
                if ended:
                    break
                time.sleep(POLL)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if stop.is_set():
        raise UserError("it was stopped")
    if process.returncode != 0:
        raise UserError(f"{Path(command[0]).name} failed ({log}): {_last_lines(log)}")
    return found


def _last_lines(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return " ".join([line for line in lines if line][-LAST_LINES:])
