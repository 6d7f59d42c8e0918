"""The nearest neighbours as axes: what takes over where no pair makes a plane."""

import torch
from torch import Tensor

from pet_mlip.ecse.switches import quintic
from pet_mlip.graph.environment import Environment


def nearest_axes(
    radius: Tensor, width: float, unit: Tensor, share: Tensor, environment: Environment
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The neighbours within a radius as axes, where the atoms' share is not zero.

    Args:
        radius: Where each atom's switch ends, in Å, (N,).
        width: Width of that switch in Å.
        unit: Unit vectors to the neighbours, (N, M, 3).
        share: Weight that the axes of each atom add up to, (N,).
        environment: The neighbours.

    Returns:
        Atom (A,), unit vector (A, 3) and weight (A,) of each axis; atoms without neighbours.
    """
    score = quintic((radius[:, None] - environment.distance) / width) * environment.switch
    total = score.sum(dim=1)
    used = (score.detach() > 0.0) & (share.detach() > 0.0).unsqueeze(1)
    atom, slot = torch.nonzero(used).unbind(1)
    place = atom * score.shape[1] + slot
    weight = score.flatten().index_select(0, place) / total.index_select(0, atom)
    weight = weight * share.index_select(0, atom)
    isolated = torch.nonzero(total.detach() == 0.0).squeeze(1)
    return atom, unit.flatten(0, 1).index_select(0, place), weight, isolated
