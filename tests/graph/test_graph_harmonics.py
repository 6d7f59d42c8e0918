"""Spherical harmonics: the addition theorem, and their gradient."""

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre
from torch.autograd import gradcheck

from pet_mlip.graph.harmonics import Harmonics


def draw(n):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(n)).double()


@pytest.mark.parametrize("degree", [0, 1, 4, 8])
def test_products_are_legendre_polynomials_of_the_angle(degree):
    vectors = draw(12)
    values = Harmonics(degree)(vectors, torch.float64, 5).numpy()
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    assert values.shape == (12, (degree + 1) ** 2)
    for order in range(degree + 1):
        own = values[:, order**2 : (order + 1) ** 2]
        expected = legendre.legval(unit @ unit.T, np.eye(degree + 1)[order])
        np.testing.assert_allclose(own @ own.T, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("degree", [0, 2, 5])
def test_vjp_is_the_gradient_and_linear(degree):
    harmonics, vectors = Harmonics(degree), draw(7).requires_grad_(True)
    found = harmonics(vectors, torch.float64, 3)
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.zeros_like(vectors)
    if degree > 0:
        (expected,) = torch.autograd.grad(found, vectors, grad)
    constant = vectors.detach()
    torch.testing.assert_close(harmonics.vjp(grad, constant, 3), expected, rtol=1e-12, atol=1e-12)
    grad.requires_grad_(True)
    assert gradcheck(lambda g: harmonics.vjp(g, constant, 3), (grad,))


def test_none_are_evaluated_of_a_negative_degree():
    harmonics, vectors = Harmonics(-1), draw(3)
    found = harmonics(vectors, torch.float32, 2)
    assert found.shape == (3, 0)
    assert not harmonics.vjp(found, vectors, 2).any()
