"""Vectors and rank-2 tensors predicted in frames, in the coordinates of the structure."""

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames
from pet_mlip.model.environment import Environment

# Sum of an atom's switches below which it counts as partly isolated.
PRESENT = 0.5


def fade_out_axes(frames: Frames, environment: Environment) -> Frames:
    """Frames that give way to the zero matrix of an isolated atom while its last neighbours leave.

    An invariant output does not need this: the neighbours fade from the module's input. A vector
    would keep its length until the last neighbour, and with it its direction, is gone.
    """
    total = environment.switch.sum(dim=1)
    # Linear in the total where that is small: it cancels the normalization of the axes' weights.
    absent = (1.0 - total / PRESENT).clamp(min=0.0) ** 3
    share = 1.0 / (total + absent)
    isolated = torch.nonzero((absent.detach() > 0.0) & (total.detach() > 0.0)).squeeze(1)
    weight = torch.where(total.detach() > 0.0, total * share, torch.ones_like(total))
    nothing = torch.zeros(isolated.shape[0], 3, 3, dtype=weight.dtype, device=weight.device)
    atom = torch.cat([frames.atom, isolated])
    order = torch.argsort(atom, stable=True)
    return Frames(
        atom[order],
        torch.cat([frames.matrix, nothing])[order],
        torch.cat([frames.weight * weight[frames.atom], (absent * share)[isolated]])[order],
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
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    present = matrix.detach().square().sum(dim=1).round()
    missing = 1.0 - present
    unknown = torch.einsum("pa,p...aa->p...", missing, values)
    unknown = unknown / _trailing(missing.sum(dim=1).clamp(min=1.0), unknown.dim())
    completion = _trailing(eye - matrix @ matrix.transpose(1, 2), turned.dim(), keep=2)
    return turned + unknown[..., None, None] * completion


def _trailing(values: Tensor, dim: int, keep: int = 0) -> Tensor:
    """Singleton dimensions after the first one, up to ``dim``; the last ``keep`` stay last."""
    shape = values.shape
    middle = [1] * (dim - len(shape))
    return values.reshape([shape[0], *middle, *shape[len(shape) - keep :]])
