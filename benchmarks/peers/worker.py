"""One contestant in a process of its own, so that neither memory nor OpenMP runtimes are shared."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes
from numpy.typing import NDArray

from benchmarks.peers.contestants import CONTESTANTS, REFERENCES
from pet_mlip.errors import UserError

ROOT = Path(__file__).parents[2]
MIB = 2.0**20


class Call(NamedTuple):
    """One evaluation: energy, forces and, in a cell, stress."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all threads."""
    energy: float
    """eV."""
    forces: NDArray[np.float64]
    """(N, 3) in eV/Å."""
    frames: float | None
    """Mean number of frames per atom, where it was asked for and there are frames."""
    memory: float
    """Peak resident memory of the process so far in MiB, imports included."""
    device_memory: float | None
    """Peak memory that torch has reserved on a GPU in MiB."""


class ContestantError(Exception):
    """A contestant cannot do what it should; the text is one sentence without a subject."""


class Worker:
    """A contestant in its process.

    Args:
        name: Key of `CONTESTANTS`, or the name of one of the `REFERENCES`.
        folder: Where the models are; what the process prints goes there too.
        device: cpu or cuda.
        threads: Of the process.
        memory: GiB that it may take; None: no bound.

    Raises:
        ContestantError: It cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        device: str = "cpu",
        threads: int = 1,
        memory: float | None = None,
    ) -> None:
        self.log = folder / f"{name}.log"
        ours, theirs = Pipe()
        # Not run by -m, so that both sides know the classes by the same name.
        command = [sys.executable, "-c", f"import {__name__} as w; w.serve({theirs.fileno()})"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
            )
        theirs.close()
        self.connection = ours
        self.load_time = float(self._ask((name, str(folder), device, memory)))

    def call(self, atoms: Atoms, count_frames: bool = False) -> Call:
        """Evaluate a structure.

        Raises:
            ContestantError: The contestant raised an exception, or its process ended.
        """
        call: Call = self._ask((atoms, count_frames))
        return call

    def _ask(self, question: Any) -> Any:
        try:
            self.connection.send(question)
            answer = self.connection.recv()
        except (EOFError, OSError):
            code = self.process.wait()
            self.close()
            lines = self.log.read_text(errors="replace").strip().splitlines()
            cause = lines[-1] if lines else "it said nothing"
            if code == -signal.SIGKILL:
                cause = "perhaps it took too much memory"
            raise ContestantError(f"its process ended with code {code} ({cause})") from None
        if isinstance(answer, ContestantError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def environment(threads: int) -> dict[str, str]:
    """Of a process with so many threads; their wait policy stays as the caller has it."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


def give_way(memory: float | None) -> None:
    """Let this process fail, and no other one, where the memory does not suffice.

    Args:
        memory: GiB that it may take.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if memory is not None:
        limit = int(memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def peak_memory() -> float:
    """Peak resident memory of this process in MiB."""
    try:
        # Unlike getrusage, this does not begin with the memory of the parent.
        status = Path("/proc/self/status").read_text()
        return float(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def device_memory() -> float | None:
    """Peak memory that torch has reserved on a GPU in MiB."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_reserved()) / MIB


def mean_frames(calculator: Any, atoms: Atoms) -> float | None:
    """Frames per atom, by a calculator that knows them."""
    if hasattr(calculator, "mean_frames"):
        return float(calculator.mean_frames(atoms))
    info = getattr(calculator, "info", None)
    return float(info["mean_frames"]) if isinstance(info, dict) and info else None


def evaluate(calculator: Any, atoms: Atoms, count_frames: bool) -> Call:
    """Time one evaluation."""
    properties = ["energy", "forces"] + (["stress"] if atoms.cell.rank == 3 else [])
    wall, cpu = time.perf_counter(), time.process_time()
    calculator.calculate(atoms, properties, all_changes)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak, on_device = peak_memory(), device_memory()
    return Call(
        wall,
        cpu,
        float(calculator.results["energy"]),
        np.array(calculator.results["forces"], dtype=np.float64),
        mean_frames(calculator, atoms) if count_frames else None,
        peak,
        on_device,
    )


def serve(file_number: int) -> None:
    """Load a contestant, then answer until the other side of the connection hangs up."""
    connection = Connection(file_number)
    name, folder, device, memory = connection.recv()
    give_way(memory)
    known = CONTESTANTS | {reference.name: reference for reference in REFERENCES.values()}
    try:
        start = time.perf_counter()
        calculator = known[name].load(Path(folder), device)
        connection.send(time.perf_counter() - start)
    except Exception as error:  # whatever a peer raises
        connection.send(_failure(error))
        return
    while True:
        try:
            atoms, count_frames = connection.recv()
        except EOFError:
            return
        try:
            connection.send(evaluate(calculator, atoms, count_frames))
        except Exception as error:
            connection.send(_failure(error))


def _failure(error: Exception) -> ContestantError:
    lines = str(error).strip().splitlines()
    if isinstance(error, UserError):
        return ContestantError(lines[0])
    if isinstance(error, MemoryError) or re.search("allocate memory|out of memory", str(error)):
        return ContestantError("it takes more memory than it may (--memory)")
    return ContestantError(f"{type(error).__name__}: {lines[0] if lines else 'no message'}")
