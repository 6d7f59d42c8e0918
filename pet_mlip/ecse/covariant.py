"""Outputs of a module in a frame, as scalars, vectors or rank-2 tensors of the outside world."""

import torch
from torch import Tensor


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
