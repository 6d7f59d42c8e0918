"""Environments, a random function of them, and its ensemble average."""

import torch
from torch import Tensor

from pet_mlip.ecse.closest_pairs import ClosestPairs
from pet_mlip.ecse.frames import Frames
from pet_mlip.ecse.hypers import ClosestPairsHypers
from pet_mlip.graph.cutoff import cutoff_switch
from pet_mlip.graph.environment import Environment, build_environment
from pet_mlip.graph.graph import pad_edges

CUTOFF = 4.5
WIDTH = 0.5
KINDS = ["random", "planar", "linear", "nearly linear", "equal distances", "near the cutoff"]
ENSEMBLE = ClosestPairs(CUTOFF, ClosestPairsHypers())


def environment(vectors: list[Tensor]) -> Environment:
    """Environments of atoms with neighbours at ``vectors`` (m, 3), m may differ."""
    count = torch.tensor([len(v) for v in vectors])
    centre = torch.repeat_interleave(torch.arange(len(vectors)), count)
    flat = torch.cat(vectors)
    distance = torch.linalg.vector_norm(flat, dim=-1)
    switch = cutoff_switch(distance, CUTOFF, WIDTH, "Bump")
    return build_environment(flat, distance, switch, pad_edges(centre, len(vectors)))


def random_function(vectors: Tensor, switch: Tensor, n_outputs: int = 4) -> Tensor:
    """Smooth, permutation invariant, far from rotation invariant: (P, M, 3) -> (P, n_outputs).

    A neighbour leaves no trace when its switch is zero.
    """
    draw = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    features = torch.tanh(0.5 * vectors @ normal(3, 12) + normal(12))
    pooled = (switch.unsqueeze(2) * features).sum(dim=1)
    return torch.tanh(0.4 * pooled @ normal(12, 10) + normal(10)) @ normal(10, n_outputs)


def average(frames: Frames, env: Environment) -> Tensor:
    """Ensemble average of the random function, (N, n_outputs)."""
    rotated = env.vectors[frames.atom] @ frames.matrix
    values = random_function(rotated, env.switch[frames.atom])
    total = torch.zeros(env.distance.shape[0], values.shape[1], dtype=torch.float64)
    return total.index_add(0, frames.atom, values * frames.weight[:, None])


def symmetrized(vectors: list[Tensor]) -> Tensor:
    """The averaged random function of environments, (N, n_outputs)."""
    env = environment(vectors)
    return average(ENSEMBLE(env), env)


def unit_vectors(n: int, draw: torch.Generator) -> Tensor:
    """Uniformly random directions, (n, 3)."""
    vectors = torch.randn(n, 3, generator=draw, dtype=torch.float64)
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def random_vectors(kind: str, n: int, seed: int) -> Tensor:
    """Neighbours (n, 3) of an environment of the given kind, one of `KINDS`."""
    draw = torch.Generator().manual_seed(seed)
    unit = unit_vectors(n, draw)
    distance = 0.8 + 3.9 * torch.rand(n, 1, generator=draw, dtype=torch.float64)
    if kind == "planar":
        return distance * unit * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    if kind == "linear":
        return distance * torch.sign(unit[:, :1]) * unit_vectors(1, draw)
    if kind == "nearly linear":
        axis = torch.sign(unit[:, :1]) * unit_vectors(1, draw)
        return distance * (axis + 0.2 * unit)
    if kind == "equal distances":
        return 2.0 * unit
    if kind == "near the cutoff":
        return (3.9 + 0.6 * torch.rand(n, 1, generator=draw, dtype=torch.float64)) * unit
    return distance * unit


def gradient(vectors: Tensor) -> Tensor:
    """Gradient of the first output over one environment's neighbours, (n, 3), differentiable."""
    if not vectors.requires_grad:
        vectors = vectors.detach().requires_grad_(True)
    value = symmetrized([vectors])[0, 0]
    (found,) = torch.autograd.grad(value, vectors, create_graph=True)
    return found
