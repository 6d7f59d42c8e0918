"""The exported model behind ASE: calculator and molecular dynamics."""

from pet_mlip.ase.calculator import PETCalculator

__all__ = ["PETCalculator"]
