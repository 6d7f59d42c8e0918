"""Derivatives through the frames against finite differences, and continuity along paths."""

import pytest
import torch
from ecse_paths import PATHS, assert_no_jump
from ecse_tools import (
    KINDS,
    SYMMETRIZATION,
    ensemble_named,
    gradient,
    random_vectors,
    symmetrized,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

environments = st.builds(
    random_vectors, st.sampled_from(KINDS), st.integers(1, 7), st.integers(0, 10**6)
)
pytestmark = pytest.mark.parametrize("name", SYMMETRIZATION)
quick = settings(max_examples=15)


def displaced(vectors: Tensor, step: float) -> list[Tensor]:
    """The environment with each coordinate moved by +step, then each by -step."""
    moves = torch.eye(vectors.numel(), dtype=torch.float64).reshape(-1, *vectors.shape) * step
    return [vectors + m for m in moves] + [vectors - m for m in moves]


@given(vectors=environments)
@quick
def test_gradient_against_differences(name, vectors):
    ensemble = ensemble_named(name)
    step = 1e-5
    plus, minus = symmetrized(ensemble, displaced(vectors, step))[:, 0].chunk(2)
    expected = ((plus - minus) / (2 * step)).reshape(vectors.shape)
    found = gradient(ensemble, vectors)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * scale)


@given(vectors=environments, seed=st.integers(0, 10**6))
@quick
def test_second_derivatives_against_differences_of_the_gradient(name, vectors, seed):
    ensemble = ensemble_named(name)
    draw = torch.Generator().manual_seed(seed)
    direction = torch.randn(vectors.shape, generator=draw, dtype=torch.float64)
    step = 1e-6
    plus = gradient(ensemble, vectors + step * direction)
    minus = gradient(ensemble, vectors - step * direction)
    expected = ((plus - minus) / (2 * step)).detach()
    vectors = vectors.requires_grad_(True)
    found = torch.autograd.grad((gradient(ensemble, vectors) * direction).sum(), vectors)[0]
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_no_jump_along_a_path(name, path):
    ensemble = ensemble_named(name)
    assert_no_jump(lambda vectors: symmetrized(ensemble, vectors)[:, 0], path)
