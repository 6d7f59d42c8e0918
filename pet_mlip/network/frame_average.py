"""The average over frames in the token embedding, with its derivatives.

    h_ij = sum_f w_f silu(p_fj) ,    p_fj = s_ij + (r_ij R_f) C

Only what is summed is kept: the frames are evaluated in tiles that stay in the cache, and once more
for each derivative, so that memory does not grow with their number.
"""

from typing import Any

import torch
from torch import Tensor

from pet_mlip.network.functions import (
    once_differentiable,
    silu,
    silu_and_slope_,
    silu_derivatives,
    silu_vjp,
)
from pet_mlip.network.products import add_product
from pet_mlip.network.tiles import Tile


def average_frames(
    shared: Tensor,
    coordinates: Tensor,
    rotated: Tensor,
    weight: Tensor,
    owner: Tensor,
    tiles: list[Tile],
    rounding: bool,
) -> Tensor:
    """Compute h of n atoms with M neighbours, (n, M, D); once differentiable.

    Args:
        shared: s, (n, M, D).
        coordinates: C, (3, D).
        rotated: r R of each frame and neighbour, (P * M, 3).
        weight: w, (P,).
        owner: Atom of each frame, ascending, (P,) int64.
        tiles: All frames.
        rounding: Whether products round their factors, which coordinates must not be.
    """
    if not torch.jit.is_scripting() and torch.is_grad_enabled():
        found: Tensor = _Average.apply(  # type: ignore[no-untyped-call]
            shared, coordinates, rotated, weight, owner, tiles
        )
        return found
    return _average(shared, coordinates, rotated, weight, owner, tiles, rounding)


def average_frames_vjp(
    grad: Tensor,
    shared: Tensor,
    coordinates: Tensor,
    rotated: Tensor,
    weight: Tensor,
    owner: Tensor,
    tiles: list[Tile],
    rounding: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradient over ``shared``, ``rotated`` and ``weight`` from that over h.

    That over ``rotated`` has its coordinates first, (3, P * M). All are differentiable once, over
    everything but ``rotated`` and ``weight``.
    """
    if not torch.jit.is_scripting() and torch.is_grad_enabled():
        found: tuple[Tensor, Tensor, Tensor] = _AverageVjp.apply(  # type: ignore[no-untyped-call]
            grad, shared, coordinates, rotated, weight, owner, tiles
        )
        return found
    return _average_vjp(grad, shared, coordinates, rotated, weight, owner, tiles, rounding)


def _rows(
    tile: Tile, shared: Tensor, coordinates: Tensor, rotated: Tensor, owner: Tensor, rounding: bool
) -> Tensor:
    """Compute p of a tile, (frames * M, D)."""
    n_places, width = shared.shape[1], shared.shape[2]
    rows = shared.index_select(0, owner[tile.first : tile.last]).view(-1, width)
    of_frames = rotated[tile.first * n_places : tile.last * n_places]
    return add_product(rows, of_frames, coordinates, rounding)


def _add_sums(out: Tensor, values: Tensor, weight: Tensor, owner: Tensor, tile: Tile) -> None:
    """Add the weighted sums over a tile's frames of values (frames, M * D) to out (n, M * D)."""
    own, weights = owner[tile.first : tile.last], weight[tile.first : tile.last]
    n_atoms = tile.last_atom - tile.first_atom
    if n_atoms > 64:
        # Of so many atoms most factors of a matrix product would be zeros.
        out.index_add_(0, own, values * weights.unsqueeze(1))
        return
    spread = torch.zeros(n_atoms, own.shape[0], dtype=weight.dtype, device=weight.device)
    spread.scatter_(0, (own - tile.first_atom).unsqueeze(0), weights.unsqueeze(0))
    out[tile.first_atom : tile.last_atom].addmm_(spread, values)


def _own_products(values: Tensor, of_atoms: Tensor, owner: Tensor, tile: Tile) -> Tensor:
    """Compute the scalar product of each frame's values with those of its atom, (frames,)."""
    own = owner[tile.first : tile.last]
    if tile.last_atom - tile.first_atom > 64:
        return (values * of_atoms.index_select(0, own)).sum(dim=1)
    all_products = values @ of_atoms[tile.first_atom : tile.last_atom].t()
    return all_products.gather(1, (own - tile.first_atom).unsqueeze(1)).squeeze(1)


def _average(
    shared: Tensor,
    coordinates: Tensor,
    rotated: Tensor,
    weight: Tensor,
    owner: Tensor,
    tiles: list[Tile],
    rounding: bool,
) -> Tensor:
    out = torch.zeros_like(shared).flatten(1)
    for tile in tiles:
        rows = silu(_rows(tile, shared, coordinates, rotated, owner, rounding))
        _add_sums(out, rows.view(tile.last - tile.first, out.shape[1]), weight, owner, tile)
    return out.view_as(shared)


def _average_vjp(
    grad: Tensor,
    shared: Tensor,
    coordinates: Tensor,
    rotated: Tensor,
    weight: Tensor,
    owner: Tensor,
    tiles: list[Tile],
    rounding: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    n_places, width = shared.shape[1], shared.shape[2]
    flat = grad.reshape(grad.shape[0], n_places * width)
    grad_shared, grad_weight = torch.zeros_like(flat), torch.empty_like(weight)
    shape = [3, weight.shape[0], n_places]
    grad_rotated = torch.empty(shape, dtype=rotated.dtype, device=rotated.device)
    # A product with three rows takes longer than one with eight.
    of_coordinates = torch.nn.functional.pad(coordinates, [0, 0, 0, 5])
    for tile in tiles:
        rows = _rows(tile, shared, coordinates, rotated, owner, rounding)
        of_frames = flat.index_select(0, owner[tile.first : tile.last])
        value, slope = silu_and_slope_(rows)
        slope = slope.view_as(of_frames).mul_(of_frames)
        _add_sums(grad_shared, slope, weight, owner, tile)
        of_rotated = torch.mm(of_coordinates, slope.view(-1, width).t())[:3]
        torch.mul(
            of_rotated.view(3, tile.last - tile.first, n_places),
            weight[tile.first : tile.last, None],
            out=grad_rotated[:, tile.first : tile.last],
        )
        grad_weight[tile.first : tile.last] = _own_products(
            value.view_as(of_frames), flat, owner, tile
        )
    return grad_shared.view_as(shared), grad_rotated.view(3, rotated.shape[0]), grad_weight


class _Average(torch.autograd.Function):
    """`_average`, whose derivative is `_average_vjp`."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        ctx.save_for_backward(*args[:-1])
        ctx.tiles = args[-1]
        shared, coordinates, rotated, weight, owner, tiles = args
        return _average(shared, coordinates, rotated, weight, owner, tiles, False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        shared, coordinates, rotated, weight, owner = ctx.saved_tensors
        n_places, width = shared.shape[1], shared.shape[2]
        grad = grad.contiguous()
        grad_rotated, grad_weight = None, None
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:  # never in training
            arguments = shared, coordinates, rotated, weight, owner, ctx.tiles
            _, grad_rotated, grad_weight = _average_vjp(grad, *arguments, False)
            grad_rotated = grad_rotated.t()
        flat = grad.reshape(grad.shape[0], n_places * width)
        grad_shared, grad_coordinates = torch.zeros_like(flat), torch.zeros_like(coordinates)
        ones = torch.ones_like(weight)
        for tile in ctx.tiles:
            rows = _rows(tile, shared, coordinates, rotated, owner, False)
            weights = weight[tile.first : tile.last, None]
            of_frames = flat.index_select(0, owner[tile.first : tile.last]).mul_(weights)
            slope = silu_vjp(of_frames.view(-1, width), rows)
            _add_sums(grad_shared, slope.view_as(of_frames), ones, owner, tile)
            own = rotated[tile.first * n_places : tile.last * n_places]
            grad_coordinates.addmm_(own.t(), slope)
        grad_shared = grad_shared.view_as(shared)
        return grad_shared, grad_coordinates, grad_rotated, grad_weight, None, None


class _AverageVjp(torch.autograd.Function):
    """`_average_vjp`, differentiated over what depends on the weights of the network.

    With the gradients S, X, W over its results, and A_f = w_f (S + X_f C), it is that of

        sum_f  A_f G silu'(p_f) + W_f G silu(p_f) .
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(*args[:-1])
        ctx.tiles = args[-1]
        grad, shared, coordinates, rotated, weight, owner, tiles = args
        return _average_vjp(grad, shared, coordinates, rotated, weight, owner, tiles, False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_shared: Tensor, of_rotated: Tensor, of_weight: Tensor) -> Any:
        grad, shared, coordinates, rotated, weight, owner = ctx.saved_tensors
        n_places, width = shared.shape[1], shared.shape[2]
        flat = grad.reshape(grad.shape[0], n_places * width)
        grad_grad, grad_shared = torch.zeros_like(flat), torch.zeros_like(flat)
        grad_coordinates = torch.zeros_like(coordinates)
        ones = torch.ones_like(weight)
        for tile in ctx.tiles:
            frames = slice(tile.first, tile.last)
            places = slice(tile.first * n_places, tile.last * n_places)
            own, weights = owner[frames], weight[frames, None]
            p = _rows(tile, shared, coordinates, rotated, owner, False)
            value, slope, curve = silu_derivatives(p)
            a = (
                of_shared.index_select(0, own)
                .view(-1, width)
                .addmm_(of_rotated[:, places].t(), coordinates)
            )
            a = a.view(own.shape[0], -1).mul_(weights).view(-1, width)
            w = of_weight[frames].repeat_interleave(n_places).unsqueeze(1)
            _add_sums(
                grad_grad, (a * slope).addcmul_(w, value).view(own.shape[0], -1), ones, owner, tile
            )
            given = flat.index_select(0, own).view(-1, width)
            bent = a.mul_(curve).addcmul_(w, slope).mul_(given)
            _add_sums(grad_shared, bent.view(own.shape[0], -1), ones, owner, tile)
            grad_coordinates.addmm_(rotated[places].t(), bent)
            scaled = of_rotated[:, places].view(3, own.shape[0], n_places).mul(weights).flatten(1)
            grad_coordinates.addmm_(scaled, given.mul_(slope))
        return (
            grad_grad.view_as(grad),
            grad_shared.view_as(shared),
            grad_coordinates,
            None,
            None,
            None,
            None,
        )
