"""Derivatives through the frames against finite differences, and continuity along paths."""

import pytest
import torch
from ecse_paths import PATHS, assert_no_jump
from ecse_tools import KINDS, gradient, random_vectors, symmetrized
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

environments = st.builds(
    random_vectors, st.sampled_from(KINDS), st.integers(1, 7), st.integers(0, 10**6)
)
quick = settings(max_examples=15)


def displaced(vectors: Tensor, step: float) -> list[Tensor]:
    """The environment with each coordinate moved by +step, then each by -step."""
    moves = torch.eye(vectors.numel(), dtype=torch.float64).reshape(-1, *vectors.shape) * step
    return [vectors + m for m in moves] + [vectors - m for m in moves]


@given(vectors=environments)
@quick
def test_gradient_against_differences(vectors):
    step = 1e-5
    plus, minus = symmetrized(displaced(vectors, step))[:, 0].chunk(2)
    expected = ((plus - minus) / (2 * step)).reshape(vectors.shape)
    found = gradient(vectors)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * scale)


@given(vectors=environments, seed=st.integers(0, 10**6))
@quick
def test_second_derivatives_against_differences_of_the_gradient(vectors, seed):
    draw = torch.Generator().manual_seed(seed)
    direction = torch.randn(vectors.shape, generator=draw, dtype=torch.float64)
    step = 1e-6
    plus = gradient(vectors + step * direction)
    minus = gradient(vectors - step * direction)
    expected = ((plus - minus) / (2 * step)).detach()
    vectors = vectors.requires_grad_(True)
    found = torch.autograd.grad((gradient(vectors) * direction).sum(), vectors)[0]
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_no_jump_along_a_path(path):
    assert_no_jump(lambda vectors: symmetrized(vectors)[:, 0], path)
