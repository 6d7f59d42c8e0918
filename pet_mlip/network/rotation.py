"""The neighbours of atoms in the coordinates of their frames, with the derivative.

    x_fj = r_ij R_f

Coordinates are rotated in float64: invariant before rounding, whatever the network's dtype is. Of
many frames they are sums of products of whole arrays, since so many products of matrices with three
columns take several times as long.
"""

from typing import Any

import torch
from torch import Tensor

from pet_mlip.network.functions import once_differentiable


def rotate_places(vectors: Tensor, owner: Tensor, matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute the coordinates of the neighbours in each frame, (P * M, 3); differentiable.

    Args:
        vectors: Neighbours of n atoms, (n, M, 3) float64.
        owner: Atom of each frame, (P,) int64.
        matrix: R of each frame, (P, 3, 3) float64.
        dtype: Of the result.
    """
    if are_few(owner, vectors):
        return torch.bmm(vectors.index_select(0, owner), matrix).view(-1, 3).to(dtype)
    of_frames = vectors.permute(2, 0, 1).contiguous().index_select(1, owner)
    rows = matrix.permute(1, 2, 0).contiguous().unsqueeze(3)
    rotated = of_frames[0] * rows[0]
    rotated.addcmul_(of_frames[1], rows[1]).addcmul_(of_frames[2], rows[2])
    return rotated.to(dtype).permute(1, 2, 0).reshape(owner.shape[0] * vectors.shape[1], 3)


def rotate_places_vjp(
    grad: Tensor, vectors: Tensor, owner: Tensor, matrix: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the gradients over ``vectors`` and ``matrix``, float64, from that over the result.

    They are differentiable once, over ``grad``, which has its coordinates first: (3, P * M).
    """
    if not torch.jit.is_scripting() and torch.is_grad_enabled():
        found: tuple[Tensor, Tensor] = _RotateVjp.apply(  # type: ignore[no-untyped-call]
            grad, vectors, owner, matrix
        )
        return found
    return _rotate_places_vjp(grad, vectors, owner, matrix)


def are_few(owner: Tensor, vectors: Tensor) -> bool:
    """Tell whether the number of operations matters more than what each of them takes."""
    return owner.shape[0] * vectors.shape[1] < 2048


def _rotate_places_vjp(
    grad: Tensor, vectors: Tensor, owner: Tensor, matrix: Tensor
) -> tuple[Tensor, Tensor]:
    n_atoms, n_places = vectors.shape[0], vectors.shape[1]
    given = grad.reshape(3, owner.shape[0], n_places).to(vectors.dtype)
    of_frames = vectors.transpose(1, 2).contiguous().index_select(0, owner)
    grad_matrix = torch.bmm(of_frames, given.permute(1, 2, 0))
    if are_few(owner, vectors):
        turned = torch.bmm(given.permute(1, 2, 0), matrix.transpose(1, 2))
        return torch.zeros_like(vectors).index_add_(0, owner, turned), grad_matrix
    columns = matrix.permute(2, 1, 0).contiguous().unsqueeze(3)
    turned = given[0] * columns[0]
    turned.addcmul_(given[1], columns[1]).addcmul_(given[2], columns[2])
    zeros = torch.zeros(3, n_atoms, n_places, dtype=vectors.dtype, device=vectors.device)
    grad_vectors = zeros.index_add_(1, owner, turned).permute(1, 2, 0)
    return grad_vectors, grad_matrix


class _RotateVjp(torch.autograd.Function):
    """`_rotate_places_vjp`, which is linear in the gradient."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, vectors: Tensor, owner: Tensor, matrix: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(vectors, owner, matrix)
        ctx.dtype = grad.dtype
        return _rotate_places_vjp(grad, vectors, owner, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_vectors: Tensor, of_matrix: Tensor) -> tuple[Any, ...]:
        vectors, owner, matrix = ctx.saved_tensors
        grad = rotate_places(of_vectors, owner, matrix, ctx.dtype)
        grad = grad + rotate_places(vectors, owner, of_matrix, ctx.dtype)
        return grad.t(), None, None, None
