"""Processes that compute labels and simulations, and that do not outlive the program."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from pebble import ProcessPool

from pet_mlip.errors import UserError
from pet_mlip.learn.config import DaskConfig
from pet_mlip.learn.importing import import_object
from pet_mlip.missing import missing

PATIENCE = 30.0
"""Seconds that a new start waits for what a killed one left running."""
LOOK = 0.5
"""Seconds between two looks whether the program that a process works for is still there."""


class Workers(Protocol):
    """What takes functions and gives futures."""

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        """Call a function of a module with picklable arguments somewhere else."""


class LocalWorkers:
    """Processes on this machine; one that dies fails its own task only.

    Args:
        pool: Of the processes.
        timeout: Seconds after which a task is ended, or None.
    """

    def __init__(self, pool: ProcessPool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        """Call a function in one of them."""
        return self._pool.schedule(function, args=arguments, timeout=self._timeout)


class DaskWorkers:
    """Jobs of a cluster."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        """Call a function in one of them."""
        return self._executor.submit(function, *arguments)


def count_cores(wanted: int | Literal["auto"]) -> int:
    """A number of processes: as many as were asked for, or one for each core we may use."""
    if wanted != "auto":
        return wanted
    may_use = getattr(os, "sched_getaffinity", None)  # Linux knows it
    return len(may_use(0)) if may_use is not None else os.cpu_count() or 1


@contextmanager
def local_workers(
    processes: int, folder: Path, timeout: float | None = None
) -> Iterator[LocalWorkers]:
    """Start processes of one thread each, and stop them in the end whatever they do.

    Args:
        processes: Their number.
        folder: Of the whole learning, where `hold` finds out that they still run.
        timeout: As for `LocalWorkers`.
    """
    context = multiprocessing.get_context("spawn")
    with _one_thread():
        pool = ProcessPool(
            processes,
            initializer=_stay_with,
            initargs=[os.getpid(), str(folder / RUNNING)],
            context=context,
        )
        try:
            yield LocalWorkers(pool, timeout)
            pool.close()  # which lets processes that have only begun to start do so in peace
        except BaseException:
            pool.stop()
            raise
        finally:
            pool.join()


@contextmanager
def dask_workers(config: DaskConfig) -> Iterator[DaskWorkers]:
    """Connect to a cluster, or start one and stop it in the end.

    Raises:
        UserError: dask is not installed, or the cluster cannot be reached or started.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise missing("cluster", error) from error
    cluster = None
    try:
        if config.cluster is not None:
            cluster = import_object(config.cluster, "reference.dask.cluster")(**config.arguments)
            cluster.scale(config.jobs)
        client = Client(cluster if cluster is not None else config.address)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if cluster is not None:
            cluster.close()
        raise UserError(f"reference.dask: the cluster cannot be reached ({error}).") from error
    try:
        # What one worker did is not asked of another: a killed label is a failed label.
        yield DaskWorkers(client.get_executor(pure=False, retries=0))
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


HELD, RUNNING = ".lock", ".running"
"""Files whose locks the program and its processes hold."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep a folder for this program alone.

    Raises:
        UserError: Another program works in it, or processes of one that was killed do not end.
    """
    with open(folder / HELD, "w") as held, open(folder / RUNNING, "w") as running:
        if not _lock(held, 0.0):
            raise UserError(f"Another `pet-mlip learn` works in {folder}; wait until it ends.")
        if not _lock(running, PATIENCE):
            raise UserError(
                f"Processes of a killed `pet-mlip learn` still work in {folder}; end them first."
            )
        fcntl.flock(running, fcntl.LOCK_UN)
        yield


def _lock(file: IO[str], seconds: float) -> bool:
    """Take a lock, waiting for it at most so long; whether that worked."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that are started have one thread each: there is one for each core."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


_children: set[int] = set()
"""Process groups that this process has started."""


def run_program(command: str | list[str], timeout: float | None = None, **options: Any) -> int:
    """Run a program that ends with this process, and all that it has started when it ends.

    Args:
        command: Words, or a line for the shell.
        timeout: Seconds, or None.
        options: Of `subprocess.Popen`.

    Returns:
        Its exit code.

    Raises:
        subprocess.TimeoutExpired: It took longer, and was ended.
    """
    shell = isinstance(command, str)
    process = subprocess.Popen(command, shell=shell, start_new_session=True, **options)
    _children.add(process.pid)
    try:
        return process.wait(timeout)
    finally:
        _end_group(process.pid)
        _children.discard(process.pid)


def _end_group(pid: int) -> None:
    """Kill a process group, if it is still there."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _stay_with(parent: int, running: str) -> None:
    """Begin a process that ends when its parent does, even if that is killed."""
    # The terminal sends Ctrl-C to all: it is the parent that ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _end())
    # Open, and locked, as long as the process lives.
    file = open(running, "w")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_SH)

    def watch() -> None:
        while os.getppid() == parent and not file.closed:
            time.sleep(LOOK)
        _end()

    threading.Thread(target=watch, daemon=True).start()


def _end() -> None:
    for pid in tuple(_children):
        _end_group(pid)
    sys.stderr.flush()
    os._exit(1)
