"""The choice of a frame ensemble."""

from torch import nn

from pet_mlip.ecse.axis_plane import AxisPlane, Plain
from pet_mlip.ecse.closest_pairs import ClosestPairs
from pet_mlip.ecse.hypers import SymmetrizationHypers


def make_ensemble(cutoff: float, hypers: SymmetrizationHypers) -> nn.Module:
    """The module that maps environments to frames, as the hyperparameters say."""
    if hypers.ensemble == "axis_plane":
        return AxisPlane(cutoff, hypers.axis_plane)
    if hypers.ensemble == "closest_pairs":
        return ClosestPairs(cutoff, hypers.closest_pairs)
    return Plain()
