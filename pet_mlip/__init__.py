"""PET with an exactly equivariant coordinate system ensemble (ECSE), for training and for MD."""

from typing import TYPE_CHECKING, Any

from pet_mlip.version import __version__

if TYPE_CHECKING:
    from pet_mlip.ase.calculator import PETCalculator

__all__ = ["PETCalculator", "__version__"]


def __getattr__(name: str) -> Any:
    # Torch and ASE take seconds to import; `pet-mlip --help` should not.
    if name == "PETCalculator":
        from pet_mlip.ase.calculator import PETCalculator

        return PETCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "PETCalculator"])
