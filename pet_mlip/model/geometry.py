"""The geometry of the edges of a chunk."""

from typing import NamedTuple

from torch import Tensor

from pet_mlip.model.chunks import Chunk, slice_edges
from pet_mlip.model.environment import Environment, build_environment
from pet_mlip.model.graph import pad_edges
from pet_mlip.model.inputs import Inputs


class EdgeGeometry(NamedTuple):
    """What the layers read of each edge, or the gradient over it, summed up in place."""

    vectors: Tensor
    """(E, 3)."""
    distance: Tensor
    """(E,)."""
    switch: Tensor
    """(E,)."""


def slice_geometry(inputs: Inputs, chunk: Chunk, differentiate: bool) -> EdgeGeometry:
    """The chunk's part, cut off from what it was made from."""
    return EdgeGeometry(
        slice_edges(inputs.vectors, chunk).detach().requires_grad_(differentiate),
        slice_edges(inputs.distance, chunk).detach().requires_grad_(differentiate),
        slice_edges(inputs.switch, chunk).detach().requires_grad_(differentiate),
    )


def environment_of(geometry: EdgeGeometry, centre: Tensor, n_atoms: int) -> Environment:
    """Padded environments of the atoms of a chunk."""
    padding = pad_edges(centre, n_atoms)
    return build_environment(geometry.vectors, geometry.distance, geometry.switch, padding)
