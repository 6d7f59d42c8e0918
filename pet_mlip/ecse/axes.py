"""The nearest neighbours as axes: what takes over where no pair makes a plane."""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.ecse.level import Level, find_level, level_vjp, select_rows
from pet_mlip.graph.environment import Environment


class Axes(NamedTuple):
    """Neighbours of atoms, of about the nearest one's distance, K of them."""

    atom: Tensor
    """(K,) int64."""
    place: Tensor
    """Place of each among the N x M of the environments, (K,) int64."""
    share: Tensor
    """Parts of one that an atom's axes have, (K,) float64."""
    total: Tensor
    """What the shares were divided by, of each atom, (N,) float64."""
    level: Level
    """Distance below which they are."""
    isolated: Tensor
    """Atoms without neighbours, int64."""


def nearest_axes(environment: Environment, wanted: Tensor, width: float, largest: float) -> Axes:
    """Find the axes of some atoms.

    Args:
        environment: Neighbours of N atoms.
        wanted: Whether an atom needs any, (N,) bool.
        width: Range in Å over which an axis fades out.
        largest: Upper bound of the distance in Å.
    """
    n_atoms, n_places = environment.distance.shape
    switch = environment.switch.detach()
    place = torch.nonzero(((switch > 0.0) & wanted.unsqueeze(1)).flatten()).squeeze(1)
    atom = torch.div(place, max(n_places, 1), rounding_mode="floor")
    distance = environment.distance.flatten().index_select(0, place)
    count = environment.switch.flatten().index_select(0, place)
    level = find_level(distance, count, atom, n_atoms, width, largest)
    score = count * level.held
    total = torch.zeros_like(level.value).index_add(0, atom, score)
    isolated = torch.nonzero(wanted & (total.detach() == 0.0)).squeeze(1)
    used = torch.nonzero(score.detach() > 0.0).squeeze(1)
    atom, place = atom.index_select(0, used), place.index_select(0, used)
    share = score.index_select(0, used) / total.index_select(0, atom)
    return Axes(atom, place, share, total, select_rows(level, used), isolated)


def nearest_axes_vjp(grad_share: Tensor, axes: Axes) -> tuple[Tensor, Tensor]:
    """Take a gradient over the shares (K,) back to distance and switch of the axes, both (K,)."""
    of_atom = torch.zeros_like(axes.total).index_add(0, axes.atom, grad_share * axes.share)
    grad_score = grad_share - of_atom.index_select(0, axes.atom)
    grad_score = grad_score / axes.total.index_select(0, axes.atom)
    return level_vjp(grad_score, axes.level, axes.atom)
