"""The gradient over what the network reads."""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames
from pet_mlip.graph.inputs import Inputs
from pet_mlip.network.blocks import Block


class NetworkGradient(NamedTuple):
    """Sums of contributions, in the network's dtype but for the switch."""

    radial: Tensor
    """Over distance and radial functions of each edge, (E, 1 + size)."""
    log_switch: Tensor
    """Over the log of the cutoff function of each edge, through attention, (E,)."""
    switch: Tensor
    """Over the cutoff function itself, through the readout, (E,) float64."""
    rotated: list[Tensor]
    """Of each block, over the coordinates in its frames, (P * M, 3)."""
    weight: list[Tensor]
    """Of each block, over the weights of its frames, (P,)."""


class GeometryGradient(NamedTuple):
    """Gradient over the geometry of E edges and of their P frames, float64 but for the first."""

    radial: Tensor
    """Over distance and radial functions, (E, 1 + size), in the network's dtype."""
    vectors: Tensor
    """(E, 3)."""
    switch: Tensor
    """(E,)."""
    matrix: Tensor
    """(P, 3, 3)."""
    weight: Tensor
    """(P,)."""


def zero_gradient(inputs: Inputs, radial: Tensor, blocks: list[Block]) -> NetworkGradient:
    """Start with zeros everywhere."""
    rotated: list[Tensor] = []
    weight: list[Tensor] = []
    for block in blocks:
        rotated.append(torch.zeros_like(block.rotated))
        weight.append(torch.zeros_like(block.weight))
    return NetworkGradient(
        torch.zeros_like(radial),
        torch.zeros_like(radial[:, 0]),
        torch.zeros_like(inputs.switch),
        rotated,
        weight,
    )


def to_geometry(
    gradient: NetworkGradient, inputs: Inputs, frames: Frames, blocks: list[Block]
) -> GeometryGradient:
    """Go back through the rotation into the frames, r R, and through the log of the switch."""
    grad_vectors = torch.zeros_like(inputs.vectors)
    grad_matrix = torch.zeros_like(frames.matrix)
    grad_weight = torch.zeros_like(frames.weight)
    for k, block in enumerate(blocks):
        n_atoms, width = block.vectors.shape[0], block.vectors.shape[1]
        n_rows = block.matrix.shape[0] if block.matrix.shape[0] > 0 else n_atoms
        grad_rotated = gradient.rotated[k].to(torch.float64).view(n_rows, width, 3)
        grad_places = grad_rotated
        if block.matrix.shape[0] > 0:
            of_frames = torch.bmm(grad_rotated, block.matrix.transpose(1, 2))
            grad_places = torch.zeros_like(block.vectors).index_add_(0, block.owner, of_frames)
            vectors = block.vectors.index_select(0, block.owner)
            of_matrix = torch.bmm(vectors.transpose(1, 2), grad_rotated)
            grad_matrix.index_copy_(0, block.frames, of_matrix)
            if block.weight.shape[0] > 0:
                grad_weight.index_copy_(0, block.frames, gradient.weight[k].to(torch.float64))
        grad_places = grad_places.reshape(n_atoms * width, 3).index_select(0, block.places)
        grad_vectors.index_add_(0, block.edges, grad_places)
    safe = torch.where(inputs.switch > 0.0, inputs.switch, torch.ones_like(inputs.switch))
    grad_switch = gradient.switch + gradient.log_switch.to(torch.float64) / safe
    return GeometryGradient(gradient.radial, grad_vectors, grad_switch, grad_matrix, grad_weight)
