"""PET with exact rotational symmetry (ECSE): machine-learned interatomic potentials for MD."""

from typing import Any

from pet_mlip.version import __version__

__all__ = ["PETCalculator", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import pet_mlip` alone stays quick.
    if name == "PETCalculator":
        from pet_mlip.ase import PETCalculator

        return PETCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
