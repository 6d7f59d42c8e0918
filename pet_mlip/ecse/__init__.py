"""Equivariant coordinate system ensembles, for PET and for any other module."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pet_mlip.ecse.ensembles import make_ensemble
    from pet_mlip.ecse.frames import Frames
    from pet_mlip.ecse.hypers import SymmetrizationHypers
    from pet_mlip.ecse.symmetrized import Backbone, Symmetrized

__all__ = ["Backbone", "Frames", "SymmetrizationHypers", "Symmetrized", "make_ensemble"]

_MODULES = {
    "Backbone": "symmetrized",
    "Frames": "frames",
    "SymmetrizationHypers": "hypers",
    "Symmetrized": "symmetrized",
    "make_ensemble": "ensembles",
}


def __getattr__(name: str) -> Any:
    # The model imports parts of this package: loading all of it here would be a cycle.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
