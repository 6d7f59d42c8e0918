"""Vectors and rank-2 tensors predicted in frames, in the coordinates of the structure."""

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames
from pet_mlip.graph.environment import Environment

# Sum of an atom's switches below which it counts as partly isolated.
PRESENT = 0.5


def fade_out_axes(frames: Frames, environment: Environment) -> Frames:
    """Frames that give way to the zero matrix of an isolated atom while its last neighbours leave.

    An invariant output does not need this: the neighbours fade from the module's input. A vector
    would keep its length until the last neighbour, and with it its direction, is gone.
    """
    total = environment.switch.sum(dim=1)
    absent = (1.0 - total / PRESENT).clamp(min=0.0) ** 3
    # Linear in the total where that is small: it cancels the normalization of the axes' weights.
    present = total / (total + absent)
    isolated = torch.nonzero((absent.detach() > 0.0) & (total.detach() > 0.0)).squeeze(1)
    # An atom without neighbours has its zero matrix already.
    kept = torch.where(total.detach() > 0.0, present, torch.ones_like(present))
    nothing = torch.zeros(isolated.shape[0], 3, 3, dtype=kept.dtype, device=kept.device)
    atom = torch.cat([frames.atom, isolated])
    order = torch.argsort(atom, stable=True)
    return Frames(
        atom[order],
        torch.cat([frames.matrix, nothing])[order],
        torch.cat([frames.weight * kept[frames.atom], (1.0 - present)[isolated]])[order],
    )


def rotate_back(values: Tensor, matrix: Tensor, rank: int) -> Tensor:
    """What was predicted from ``vectors @ R``, in the coordinates of ``vectors``.

    With the axes as columns of R that is R v for a vector and R T R^T for a tensor. They are polar:
    mirrors need no extra sign. Where R lacks axes (the projector on the axis of a linear
    environment, the zero matrix of an isolated atom) the environment has a symmetry about what R
    does have, and the result is the average over all ways to complete R: nothing perpendicular to
    the axis for a vector, an isotropic part there for a tensor.

    Args:
        values: Predictions, their last ``rank`` dimensions being Cartesian, (P, ..., 3, ...).
        matrix: Frames R, (P, 3, 3), whose columns are orthonormal or zero.
        rank: 0, 1 or 2.

    Returns:
        As ``values``.
    """
    if rank == 0:
        return values
    if rank == 1:
        return torch.einsum("pab,p...b->p...a", matrix, values)
    turned = torch.einsum("pab,p...bc,pdc->p...ad", matrix, values, matrix)
    # What missing axes share is the mean of the tensor's diagonal there.
    missing = 1.0 - matrix.detach().square().sum(dim=1).round()
    missing = missing / missing.sum(dim=1, keepdim=True).clamp(min=1.0)
    isotropic = torch.einsum("pa,p...aa->p...", missing, values)
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    across = eye - matrix @ matrix.transpose(1, 2)
    return turned + torch.einsum("p...,pab->p...ab", isotropic, across)
