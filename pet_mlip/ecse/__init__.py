"""Equivariant coordinate system ensembles, for PET and for any other module."""

from pet_mlip.ecse.ensembles import make_ensemble
from pet_mlip.ecse.frames import Frames
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.ecse.symmetrized import Backbone, Symmetrized

__all__ = ["Backbone", "Frames", "SymmetrizationHypers", "Symmetrized", "make_ensemble"]
