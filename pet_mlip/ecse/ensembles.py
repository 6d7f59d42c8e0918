"""The choice of a frame ensemble."""

from torch import nn

from pet_mlip.ecse.axis_plane import AxisPlane, Plain
from pet_mlip.ecse.closest_pairs import ClosestPairs
from pet_mlip.ecse.hypers import SymmetrizationHypers


def make_ensemble(cutoff: float, hypers: SymmetrizationHypers, derivatives: int = 2) -> nn.Module:
    """Make the module that maps environments to frames.

    Args:
        cutoff: Of the environments in Å.
        hypers: Which ensemble, and its constants.
        derivatives: How many derivatives of frames and weights over positions are exact, 1 or 2; 1
            takes less time.
    """
    if hypers.ensemble == "axis_plane":
        return AxisPlane(cutoff, hypers.axis_plane, derivatives)
    if hypers.ensemble == "closest_pairs":
        return ClosestPairs(cutoff, hypers.closest_pairs, derivatives)
    return Plain()
