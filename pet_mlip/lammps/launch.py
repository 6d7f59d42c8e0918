"""Starts LAMMPS with the plugin, on one rank or several."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pet_mlip.errors import UserError
from pet_mlip.lammps.cache import Environment, recall
from pet_mlip.lammps.executables import Facts, find_executable, is_wheel, mpi_library_folder
from pet_mlip.lammps.mpi import check_launcher, find_launcher, library_environment


def find_plugin(executable: Path) -> Path:
    """The folder of the plugin that was built for a LAMMPS.

    Raises:
        UserError: There is none that fits.
    """
    folder, problem = recall(Environment.here(executable))
    if folder is None:
        option = "" if is_wheel(executable) else f" --lmp {executable}"
        raise UserError(f"{executable}: {problem}; run `pet-mlip lammps build{option}`.")
    return folder


def environment(executable: Path, plugin: Path) -> dict[str, str]:
    """What LAMMPS finds MPI and the plugin by; one thread unless OMP_NUM_THREADS says otherwise.

    Args:
        executable: LAMMPS' program.
        plugin: Folder of the plugin.
    """
    variables = library_environment(mpi_library_folder(executable))
    variables["LAMMPS_PLUGIN_PATH"] = str(plugin)
    variables.setdefault("OMP_NUM_THREADS", "1")
    return variables


def command_line(
    executable: Path, arguments: Sequence[str], ranks: int = 1, mpiexec: str | None = None
) -> list[str]:
    """The command that starts LAMMPS.

    Args:
        executable: LAMMPS' program.
        arguments: Its arguments.
        ranks: Number of MPI processes.
        mpiexec: Launcher with its options; by default the one that belongs to LAMMPS' MPI, and
            none at all for one rank.

    Raises:
        UserError: No launcher was found, it belongs to another MPI than LAMMPS, or the number of
            ranks is not positive.
    """
    if ranks < 1:
        raise UserError(f"-n {ranks}: the number of ranks must be 1 or more.")
    if ranks == 1 and mpiexec is None:
        return [str(executable), *arguments]
    words = shlex.split(mpiexec or find_launcher(executable, is_wheel(executable)))
    if not words or shutil.which(words[0]) is None:
        raise UserError(f"--mpiexec {mpiexec}: there is no such program.")
    check_launcher(words[0], executable, Facts.of_executable(executable).mpi)
    return [*words, "-n", str(ranks), str(executable), *arguments]


def run_lammps(
    input_file: str | os.PathLike[str],
    ranks: int = 1,
    arguments: Sequence[str] = (),
    *,
    lmp: Path | None = None,
    mpiexec: str | None = None,
) -> int:
    """Run an input file in LAMMPS with the plugin; its output goes where this program's goes.

    Args:
        input_file: The file.
        ranks: Number of MPI processes.
        arguments: Further arguments of LAMMPS.
        lmp: LAMMPS' executable, by default that of this environment.
        mpiexec: Launcher with its options; by default the one that belongs to LAMMPS' MPI.

    Returns:
        LAMMPS' exit code.

    Raises:
        UserError: No LAMMPS, plugin, input file or launcher was found.
    """
    if not Path(input_file).is_file():
        raise UserError(f"{input_file}: there is no such input file.")
    executable = find_executable(lmp)
    variables = environment(executable, find_plugin(executable))
    words = command_line(executable, ["-in", os.fspath(input_file), *arguments], ranks, mpiexec)
    process = subprocess.Popen(words, env=variables)
    with _passing_on(process):
        return process.wait()


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave it to a process what it does when this one is told to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # The terminal sends Ctrl-C to both of them.
    handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: lambda *_: process.terminate()}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_loads(executable: Path, plugin: Path) -> str:
    """Start a LAMMPS with the plugin and nothing else.

    Returns:
        What it says about it, for a report.

    Raises:
        UserError: LAMMPS starts, but does not load the plugin; the message has its words.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "in.list").write_text("plugin list\n")
        command = command_line(executable, ["-in", "in.list", "-log", "none"])
        try:
            done = subprocess.run(
                command,
                env=environment(executable, plugin),
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=300,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"not tried (LAMMPS cannot be started here: {error})"
    output = done.stdout + done.stderr
    if "pair style plugin pet" in output:
        return "loaded by this LAMMPS"
    words = ("error", "failed", "undefined")
    wrong = [line for line in output.splitlines() if any(w in line.lower() for w in words)]
    if "LAMMPS (" not in output:
        return f"not tried (LAMMPS cannot be started here: {' '.join(wrong[:1]) or 'no output'})"
    raise UserError(
        f"{executable} does not load the plugin in {plugin}: "
        f"{' '.join(wrong) or 'it does not say why'}."
    )
