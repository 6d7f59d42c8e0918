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
    distance = vectors.norm(dim=1)
    values = Harmonics(degree)(vectors, distance, torch.float64, 5).numpy()
    unit = (vectors / distance[:, None]).numpy()
    assert values.shape == (12, (degree + 1) ** 2)
    for order in range(degree + 1):
        own = values[:, order**2 : (order + 1) ** 2]
        expected = legendre.legval(unit @ unit.T, np.eye(degree + 1)[order])
        np.testing.assert_allclose(own @ own.T, expected, rtol=0, atol=1e-13)


def test_vectors_may_be_shorter_than_their_distance():
    """Projected on an axis they may vanish: each degree scales as its power, and is smooth."""
    vectors, distance, harmonics = draw(5), draw(5).norm(dim=1), Harmonics(3)
    values = harmonics(vectors, distance, torch.float64, 5)
    shorter = harmonics(0.5 * vectors, distance, torch.float64, 5)
    for order in range(4):
        own = slice(order**2, (order + 1) ** 2)
        torch.testing.assert_close(shorter[:, own], 0.5**order * values[:, own])
    nothing = harmonics(0.0 * vectors, distance, torch.float64, 5)
    torch.testing.assert_close(nothing[:, 1:], torch.zeros_like(nothing[:, 1:]))
    gradients = harmonics.vjp(torch.ones_like(nothing), 0.0 * vectors, distance, 5)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("degree", [0, 2, 5])
def test_vjp_is_the_gradient_and_linear(degree):
    harmonics, vectors = Harmonics(degree), draw(7).requires_grad_(True)
    distance = (1.3 * draw(7).norm(dim=1)).requires_grad_(True)
    found = harmonics(vectors, distance, torch.float64, 3)
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.zeros_like(vectors), torch.zeros_like(distance)
    if degree > 0:
        expected = torch.autograd.grad(found, [vectors, distance], grad)
    constant = vectors.detach(), distance.detach(), 3
    torch.testing.assert_close(harmonics.vjp(grad, *constant), expected, rtol=1e-12, atol=1e-12)
    grad.requires_grad_(True)
    assert gradcheck(lambda g: harmonics.vjp(g, *constant), (grad,))


def test_none_are_evaluated_of_a_negative_degree():
    harmonics, vectors = Harmonics(-1), draw(3)
    distance = vectors.norm(dim=1)
    found = harmonics(vectors, distance, torch.float32, 2)
    assert found.shape == (3, 0)
    assert not any(g.any() for g in harmonics.vjp(found, vectors, distance, 2))
