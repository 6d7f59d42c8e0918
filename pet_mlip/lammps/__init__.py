"""LAMMPS: building and finding the plugin of `pair_style pet`, and driving LAMMPS from Python.

`lammps` is the class of LAMMPS' own Python module, ready to use; `attach` needs no compiled plugin.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pet_mlip.lammps.external import Attached, attach
    from pet_mlip.lammps.library import lammps

__all__ = ["Attached", "attach", "lammps"]


def __getattr__(name: str) -> Any:
    # LAMMPS itself imports pet_mlip.lammps.entry whenever it starts: torch has to wait.
    if name == "lammps":
        from pet_mlip.lammps.library import lammps

        return lammps
    if name in ("Attached", "attach"):
        from pet_mlip.lammps import external

        return getattr(external, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
