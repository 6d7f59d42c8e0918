"""The gradient over what the network reads."""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames
from pet_mlip.graph.inputs import Inputs
from pet_mlip.network.blocks import Block
from pet_mlip.network.rotation import rotate_places_vjp


class NetworkGradient(NamedTuple):
    """Sums of contributions over E edges and P frames, float64 but for the first three."""

    radial: Tensor
    """Over distance and radial functions of each edge, (E, 1 + size), in the network's dtype."""
    harmonics: Tensor
    """Over the spherical harmonics of each edge's direction, (E, size), so too."""
    log_switch: Tensor
    """Over the log of the cutoff function of each edge, through attention, (E,), so too."""
    switch: Tensor
    """Over the cutoff function itself, through the readout, (E,)."""
    vectors: Tensor
    """Over the edge vectors, through the coordinates in the frames, (E, 3)."""
    matrix: Tensor
    """Over the frames, (P, 3, 3)."""
    weight: Tensor
    """Over their weights, (P,)."""


class GeometryGradient(NamedTuple):
    """Gradient over the geometry of E edges and of their P frames, float64 but the first two."""

    radial: Tensor
    """Over distance and radial functions, (E, 1 + size), in the network's dtype."""
    harmonics: Tensor
    """(E, size), so too."""
    vectors: Tensor
    """(E, 3)."""
    switch: Tensor
    """(E,)."""
    matrix: Tensor
    """(P, 3, 3)."""
    weight: Tensor
    """(P,)."""


def zero_gradient(
    inputs: Inputs, radial: Tensor, harmonics: Tensor, frames: Frames
) -> NetworkGradient:
    """Start with zeros everywhere."""
    return NetworkGradient(
        torch.zeros_like(radial),
        torch.zeros_like(harmonics),
        torch.zeros_like(radial[:, 0]),
        torch.zeros_like(inputs.switch),
        torch.zeros_like(inputs.vectors),
        torch.zeros_like(frames.matrix),
        torch.zeros_like(frames.weight),
    )


def add_rotated(
    gradient: NetworkGradient, block: Block, grad_rotated: Tensor, grad_weight: Tensor
) -> None:
    """Add what a layer's gradient over the coordinates r R of a block, and its weights, gives.

    Args:
        gradient: Added to.
        block: The block.
        grad_rotated: (3, P * M) of its P frames; if plain, (3, n * M).
        grad_weight: (P,); nothing if each atom has one frame.
    """
    if block.matrix.shape[0] == 0:
        grad_places = grad_rotated.t().to(torch.float64)
    else:
        of_vectors, of_matrix = rotate_places_vjp(
            grad_rotated, block.vectors, block.owner, block.matrix
        )
        grad_places = of_vectors.reshape(-1, 3)
        gradient.matrix.index_add_(0, block.frames, of_matrix)
        if block.weight.shape[0] > 0:
            gradient.weight.index_add_(0, block.frames, grad_weight.to(torch.float64))
    if block.empty.shape[0] > 0:
        grad_places = grad_places.index_select(0, block.places)
    gradient.vectors.index_add_(0, block.edges, grad_places)


def to_geometry(gradient: NetworkGradient, inputs: Inputs) -> GeometryGradient:
    """Go back through the log of the switch."""
    safe = torch.where(inputs.switch > 0.0, inputs.switch, torch.ones_like(inputs.switch))
    grad_switch = gradient.switch + gradient.log_switch.to(torch.float64) / safe
    return GeometryGradient(
        gradient.radial,
        gradient.harmonics,
        gradient.vectors,
        grad_switch,
        gradient.matrix,
        gradient.weight,
    )
