"""Where built plugins are kept, and which of them belongs to which LAMMPS and torch.

LAMMPS imports this (through `pet_mlip.lammps.entry`) when it starts: nothing slow may be imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pet_mlip.errors import UserError
from pet_mlip.lammps.executables import libraries_of

PLUGIN = "petplugin.so"
DESCRIPTION = "petplugin.json"
INDEX = "index.json"
SOURCES = Path(__file__).parent / "plugin"


def cache_folder() -> Path:
    """Folder of all builds: $PET_MLIP_CACHE, $XDG_CACHE_HOME/pet-mlip or ~/.cache/pet-mlip."""
    own = os.environ.get("PET_MLIP_CACHE")
    if own:
        return Path(own).expanduser().absolute() / "lammps"
    general = os.environ.get("XDG_CACHE_HOME")
    base = Path(general).expanduser().absolute() if general else Path.home() / ".cache"
    return base / "pet-mlip" / "lammps"


def source_files() -> list[Path]:
    """The plugin's C++ sources and headers.

    Raises:
        UserError: The package was installed without them.
    """
    files = sorted(p for p in SOURCES.glob("*") if p.suffix in (".cpp", ".h"))
    if not any(p.suffix == ".cpp" for p in files):
        raise UserError(
            f"The C++ sources of the plugin are missing in {SOURCES}; install pet-mlip again."
        )
    return files


def source_hash() -> str:
    """Hash of names and contents of the sources.

    Raises:
        UserError: The package was installed without them.
    """
    digest = hashlib.sha256()
    for path in source_files():
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def key_of(facts: dict[str, Any]) -> str:
    """Name of the build that everything in `facts` (plain JSON types) decides about."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Environment:
    """What a built plugin has to fit, as far as it can be told quickly."""

    executable: str
    """LAMMPS' program."""
    size: int
    """Bytes of that program and of its libraries, which tell when another was installed there."""
    torch: str
    """Folder of torch."""
    torch_version: str
    sources: str
    """`source_hash` of this package."""

    @classmethod
    def here(cls, executable: Path) -> Environment:
        """The environment of an executable and of this Python."""
        torch, version = installed_torch()
        # The wheel's program is the same for all updates of a release: its library differs.
        size = sum(path.stat().st_size for path in (executable, *libraries_of(executable)))
        return cls(str(executable), size, str(torch), version, source_hash())

    @property
    def name(self) -> str:
        """What stays the same when LAMMPS, torch or this package are updated."""
        return "|".join((self.executable, self.torch, str(SOURCES.resolve())))

    def difference(self, built: dict[str, Any]) -> str:
        """What a plugin was built for, where that is not what is here; empty if it fits."""
        if built.get("size") != self.size:
            return "another LAMMPS"
        if built.get("torch_version") != self.torch_version:
            return f"torch {built.get('torch_version')}"
        return "another version of pet_mlip" if built.get("sources") != self.sources else ""


def installed_torch() -> tuple[Path, str]:
    """Folder and version of torch, without importing it.

    Raises:
        UserError: There is no torch.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise UserError("torch is not installed in this environment; install it.")
    folder = Path(spec.origin).parent
    said = re.search(r"^__version__ = '([^']*)'", (folder / "version.py").read_text(), re.MULTILINE)
    return folder, said[1] if said is not None else "unknown"


def remember(environment: Environment, folder: Path) -> None:
    """Note that the plugin in `folder` is the one for an environment."""
    root = cache_folder()
    with locked(root / f"{INDEX}.lock"):
        index = _read_index()
        index[environment.name] = {**asdict(environment), "folder": str(folder)}
        write_atomically(root / INDEX, json.dumps(index, indent=1))


def recall(environment: Environment) -> tuple[Path | None, str]:
    """The folder of the plugin for an environment, and if there is none, why not."""
    built = _read_index().get(environment.name)
    if not isinstance(built, dict):
        return None, "pair_style pet has not been built for this LAMMPS"
    different = environment.difference(built)
    if different:
        return None, f"pair_style pet was built for {different}"
    folder = Path(str(built.get("folder")))
    if not (folder / PLUGIN).is_file():
        return None, f"the plugin in {folder} was deleted"
    return folder, ""


def _read_index() -> dict[str, Any]:
    try:
        content = json.loads((cache_folder() / INDEX).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, so that no reader sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(temporary, path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out for a while.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115
    except OSError as error:
        raise UserError(
            f"{path.parent} cannot be written ({error.strerror}); set PET_MLIP_CACHE to a folder "
            "that can."
        ) from error
    with file:
        # A network file system may have no locks: the work may then be done twice.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
