"""Padded atomic environments: what the frames and the transformer read."""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.graph.graph import Padding


class Environment(NamedTuple):
    """The neighbours of N atoms in a padded (N, M) layout, float64.

    Padded places have mask False, switch 0 and a finite vector that nothing reads.
    """

    padding: Padding
    vectors: Tensor
    """r_j - r_i in Å, (N, M, 3)."""
    distance: Tensor
    """|r_j - r_i| in Å, (N, M)."""
    switch: Tensor
    """Cutoff switch f(r), 0 at padded places, (N, M)."""


class EnvironmentGradient(NamedTuple):
    """Gradient over environments; that over padded places means nothing."""

    vectors: Tensor
    """(N, M, 3)."""
    distance: Tensor
    """(N, M)."""
    switch: Tensor
    """(N, M)."""


def build_environment(
    edge_vectors: Tensor, edge_distances: Tensor, edge_switch: Tensor, padding: Padding
) -> Environment:
    """Gather flat edges into padded environments.

    Args:
        edge_vectors: Edges ordered by centre, (E, 3) float64.
        edge_distances: Their lengths, (E,) float64.
        edge_switch: Their cutoff switch, (E,) float64.
        padding: Their padded layout.
    """
    n_atoms, width = padding.mask.shape
    places = padding.edge.reshape(-1)
    vectors = edge_vectors.index_select(0, places).reshape(n_atoms, width, 3)
    switch = edge_switch.index_select(0, places).reshape(n_atoms, width)
    switch = torch.where(padding.mask, switch, torch.zeros_like(switch))
    distance = edge_distances.index_select(0, places).reshape(n_atoms, width)
    return Environment(padding, vectors, distance, switch)


def edges_of_gradient(gradient: EnvironmentGradient, padding: Padding) -> list[Tensor]:
    """Take a gradient over environments to the edges, which `build_environment` gathered.

    Returns:
        Over vectors (E, 3), distances (E,) and switch (E,).
    """
    places = torch.nonzero(padding.mask.flatten()).squeeze(1)
    return [
        gradient.vectors.flatten(0, 1).index_select(0, places),
        gradient.distance.flatten().index_select(0, places),
        gradient.switch.flatten().index_select(0, places),
    ]
