"""Which LAMMPS there is, and what a plugin for it has to be compiled with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pet_mlip.errors import UserError
from pet_mlip.lammps.executables import (
    MONTHS,
    SIZES,
    Facts,
    cxx11_abi,
    find_executable,
    readable_version,
    version_number,
)
from pet_mlip.lammps.mpi import MPIHeader, find_header

# The oldest and the newest release that it was built and run with (docs/lammps.md, Versions).
OLDEST, NEWEST_TRIED = 20240829, 20260704
HEADERS = ("atom.h", "comm.h", "library.h", "lmptype.h", "neighbor.h", "pair.h")


@dataclass(frozen=True)
class LammpsInstallation:
    """A LAMMPS that a plugin can be built for."""

    version: int
    """As LAMMPS counts, e.g. 20250722."""
    version_text: str
    """As LAMMPS says it, e.g. "22 Jul 2025 - Update 4"."""
    define: str
    """LAMMPS_SMALLBIG, LAMMPS_BIGBIG or LAMMPS_SMALLSMALL: its sizes of integers."""
    include: Path
    """Folder of its headers."""
    executable: Path | None
    """The program itself, not a script that starts it; None if only headers were given."""
    mpi: MPIHeader
    cxx11_abi: bool | None
    """Whether its C++ library has the ABI of 2011; None if that could not be told."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of tagint, bigint and imageint."""
        return SIZES[self.define]


def detect(
    lmp: Path | None = None,
    include: Path | None = None,
    define: str | None = None,
    mpi_include: Path | None = None,
) -> LammpsInstallation:
    """Look at the LAMMPS of this environment, or at another one.

    Args:
        lmp: An executable; by default that of the importable `lammps` module, or in PATH.
        include: Folder of LAMMPS' headers, installed ones or its src; by default beside `lmp`.
        define: LAMMPS_SMALLBIG, LAMMPS_BIGBIG or LAMMPS_SMALLSMALL; LAMMPS_SMALLBIG by
            default; of use only for a source tree without an executable.
        mpi_include: Folder of mpi.h, by default searched for.

    Raises:
        UserError: There is no LAMMPS, it has no PLUGIN package, it is too old, its headers or
            mpi.h are missing, or what was given contradicts what it says about itself.
    """
    define = _checked_define(define)
    if lmp is None and include is not None and _version_of_source(include) is not None:
        return _of_source(include, define, mpi_include)
    executable = find_executable(lmp)
    facts = Facts.of_executable(executable)
    headers = _find_headers(executable, include)
    _check_version(facts.version, headers)
    if define not in (None, facts.define):
        raise UserError(
            f"--define {define}: {executable} was built with {facts.define}; leave the option out."
        )
    return LammpsInstallation(
        version=facts.version,
        version_text=facts.version_text,
        define=facts.define,
        include=headers,
        executable=executable,
        mpi=find_header(facts.mpi, executable, headers, mpi_include),
        cxx11_abi=cxx11_abi(executable),
    )


def _of_source(include: Path, define: str | None, mpi_include: Path | None) -> LammpsInstallation:
    headers = _find_headers(None, include)
    version = _version_of_source(headers)
    assert version is not None
    _check_version(version, headers)
    return LammpsInstallation(
        version=version,
        version_text=readable_version(version) + _update_of_source(headers),
        define=define or "LAMMPS_SMALLBIG",
        include=headers,
        executable=None,
        mpi=find_header("", None, headers, mpi_include),
        cxx11_abi=None,
    )


def _checked_define(define: str | None) -> str | None:
    if define is None:
        return None
    name = define.removeprefix("-D")
    name = name if name.startswith("LAMMPS_") else f"LAMMPS_{name}"
    if name not in SIZES:
        raise UserError(f"--define {define} is not known; give one of {', '.join(SIZES)}.")
    return name


def _find_headers(executable: Path | None, asked: Path | None) -> Path:
    if asked is not None:
        for folder in (asked, asked / "lammps", asked / "include" / "lammps", asked / "src"):
            if _has_headers(folder):
                return folder.resolve()
        raise UserError(
            f"--lammps-include {asked}: LAMMPS' headers ({', '.join(HEADERS)}) are not there; give "
            "PREFIX/include/lammps or the folder src of LAMMPS' source."
        )
    assert executable is not None
    here = executable.parent
    for folder in (
        here / "include" / "lammps",
        here.parent / "include" / "lammps",
        here,
        here.parent / "src",
    ):
        if _has_headers(folder):
            return folder.resolve()
    raise UserError(
        f"The headers of {executable} were found neither in {here.parent}/include/lammps nor "
        "around it; give their folder, or the folder src of its source, with --lammps-include."
    )


def _has_headers(folder: Path) -> bool:
    return all((folder / name).is_file() for name in HEADERS)


def _version_of_source(include: Path) -> int | None:
    """Version of a source tree; installed headers do not say theirs."""
    for header in (include / "version.h", include / "src" / "version.h"):
        if header.is_file():
            said = re.search(r'LAMMPS_VERSION "(\d+) (\w{3})\w* (\d{4})"', header.read_text())
            if said is not None and said[2] in MONTHS:
                return version_number(said[1], said[2], said[3])
    return None


def _update_of_source(include: Path) -> str:
    """What LAMMPS adds to the date when it says its version: " - Update 4", or nothing."""
    said = re.search(r'define LAMMPS_UPDATE "([^"]*)"', (include / "version.h").read_text())
    return f" - {said[1]}" if said is not None else ""


def _check_version(version: int, include: Path) -> None:
    in_source = _version_of_source(include)
    if in_source not in (None, version):
        assert in_source is not None
        raise UserError(
            f"{include} belongs to LAMMPS {readable_version(in_source)}, but the executable is "
            f"{readable_version(version)}; give headers of the same version with --lammps-include."
        )
    if version < OLDEST:
        raise UserError(
            f"LAMMPS {readable_version(version)} is too old for pair_style pet; use "
            f"{readable_version(OLDEST)} or newer."
        )
