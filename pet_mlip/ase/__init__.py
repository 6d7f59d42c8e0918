"""The exported model behind ASE: calculator and molecular dynamics."""

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.ase.symmetrize.modes import Symmetrization

__all__ = ["PETCalculator", "Symmetrization"]
