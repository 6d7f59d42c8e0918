"""The written derivative of the ensemble against autograd."""

import pytest
import torch
from ecse_tools import CUTOFF, ENSEMBLE, KINDS, WIDTH, random_vectors
from torch import Tensor, nn

from pet_mlip.ecse.closest_pairs import ClosestPairs, Saved
from pet_mlip.ecse.frames import Frames
from pet_mlip.graph.cutoff import cutoff_switch
from pet_mlip.graph.environment import (
    Environment,
    EnvironmentGradient,
    build_environment,
    edges_of_gradient,
)
from pet_mlip.graph.graph import Padding, pad_edges


class Both(nn.Module):
    """Scripts the two methods."""

    def __init__(self, ensemble: ClosestPairs) -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, environment: Environment) -> tuple[Frames, Saved]:
        return self.ensemble.find(environment)

    @torch.jit.export
    def vjp(self, grad_matrix: Tensor, grad_weight: Tensor, saved: Saved) -> EnvironmentGradient:
        return self.ensemble.vjp(grad_matrix, grad_weight, saved)


SCRIPTED = torch.jit.script(Both(ENSEMBLE))
METHODS = {"eager": (ENSEMBLE.find, ENSEMBLE.vjp), "scripted": (SCRIPTED, SCRIPTED.vjp)}


def edges_of(kind: str) -> tuple[list[Tensor], Padding]:
    """Atoms with few and with many neighbours of a kind, and another atom; in one batch.

    Returns:
        Vectors (E, 3), distances (E,) and switch (E,), independent leaves that require grad.
    """
    vectors = [random_vectors(kind, n, seed) for seed, n in enumerate((0, 1, 2, 3, 6, 30))]
    vectors.insert(3, random_vectors("random", 4, 9))
    count = torch.tensor([len(v) for v in vectors])
    centre = torch.repeat_interleave(torch.arange(len(vectors)), count)
    flat = torch.cat(vectors)
    distance = torch.linalg.vector_norm(flat, dim=1)
    switch = cutoff_switch(distance, CUTOFF, WIDTH, "Bump")
    edges = [x.requires_grad_(True) for x in (flat, distance, switch)]
    return edges, pad_edges(centre, len(vectors))


def normal(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def assert_close(found: list[Tensor], expected: tuple[Tensor, ...]) -> None:
    scale = max(float(values.abs().max()) for values in expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("way", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_gradient_of_autograd(kind, way):
    """Over vectors, distances and switch as if they were independent of each other."""
    edges, padding = edges_of(kind)
    frames = ENSEMBLE(build_environment(*edges, padding))
    grad_matrix, grad_weight = normal(len(frames.atom), 3, 3), normal(len(frames.atom), seed=1)
    expected = torch.autograd.grad(frames[1:], edges, [grad_matrix, grad_weight])
    find, vjp = METHODS[way]
    with torch.no_grad():
        found, saved = find(build_environment(*edges, padding))
        gradient = vjp(grad_matrix, grad_weight, saved)
    assert torch.equal(found.atom, frames.atom)
    torch.testing.assert_close(found.matrix, frames.matrix.detach(), rtol=0, atol=1e-13)
    torch.testing.assert_close(found.weight, frames.weight.detach(), rtol=0, atol=1e-13)
    assert_close(edges_of_gradient(gradient, padding), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_differentiated(kind):
    """Training goes through it to the gradients that it takes back, in which it is linear."""
    edges, padding = edges_of(kind)
    with torch.no_grad():
        frames, saved = ENSEMBLE.find(build_environment(*edges, padding))
    n_frames = len(frames.atom)

    def gradients(seed: int) -> list[Tensor]:
        return [normal(n_frames, 3, 3, seed=seed), normal(n_frames, seed=seed + 1)]

    def product(grads: list[Tensor]) -> Tensor:
        found = edges_of_gradient(ENSEMBLE.vjp(*grads, saved), padding)
        return sum((values * normal(*values.shape, seed=7)).sum() for values in found)

    given, other = [x.requires_grad_(True) for x in gradients(0)], gradients(2)
    of_given = torch.autograd.grad(product(given), given)
    found = sum((a * b).sum() for a, b in zip(of_given, other, strict=True))
    torch.testing.assert_close(found, product(other), rtol=1e-10, atol=1e-10)
