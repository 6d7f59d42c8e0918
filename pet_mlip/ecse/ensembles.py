"""The choice of a frame ensemble."""

from torch import nn

from pet_mlip.ecse.closest_pairs import ClosestPairs
from pet_mlip.ecse.frames import Frames, identity_frames
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.graph.environment import Environment


class Plain(nn.Module):
    """The ensemble of the unsymmetrized model: the identity, for every atom."""

    def forward(self, environment: Environment) -> Frames:
        """One identity matrix of weight one per atom."""
        return identity_frames(environment.distance.shape[0], environment.distance.device)


def make_ensemble(cutoff: float, hypers: SymmetrizationHypers) -> nn.Module:
    """Make the module that maps environments to frames.

    Args:
        cutoff: Of the environments in Å.
        hypers: Which ensemble, and its constants.
    """
    if hypers.ensemble == "closest_pairs":
        return ClosestPairs(cutoff, hypers.closest_pairs)
    return Plain()
