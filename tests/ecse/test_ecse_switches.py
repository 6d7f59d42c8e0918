"""The polynomial switch and the adaptive radius."""

import pytest
import torch
from ecse_tools import unit_vectors
from torch.autograd import gradcheck, gradgradcheck

from pet_mlip.ecse.switches import adaptive_radius, quintic, quintic_and_slope


def test_quintic():
    x = torch.linspace(-0.5, 1.5, 401, dtype=torch.float64)
    y = quintic(x)
    assert (y[x <= 0] == 0).all()
    assert (y[x >= 1] == 1).all()
    assert (y.diff() >= 0).all()
    torch.testing.assert_close(y + quintic(1 - x), torch.ones_like(y))


def test_quintic_is_twice_continuously_differentiable():
    x = torch.linspace(-0.5, 1.5, 4001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(quintic(x).sum(), x, create_graph=True)
    value, expected = quintic_and_slope(x.detach())
    torch.testing.assert_close(slope, expected)
    torch.testing.assert_close(value, quintic(x).detach())
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert curvature.diff().abs().max() < 70 * 5e-4  # the third derivative is at most 60


def neighbours(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    distance = 0.7 + 3.8 * torch.rand(30, n, dtype=torch.float64, generator=draw)
    return distance, torch.rand(30, n, dtype=torch.float64, generator=draw)


@pytest.mark.parametrize("width", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_radius_solves_its_equation(width, n):
    distance, count = neighbours(n, 0)
    radius = adaptive_radius(distance, count, width, 4.5 + width)
    inside = (count * quintic((radius[:, None] - distance) / width)).sum(dim=1)
    torch.testing.assert_close(
        inside + (radius / (4.5 + width)) ** 3,
        torch.ones(30, dtype=torch.float64),
        atol=1e-13,
        rtol=0,
    )


@pytest.mark.parametrize("count", [1e-3, 1e-6, 1e-9, 1e-12])
def test_radius_of_neighbours_that_hardly_count(count):
    """The root lies just below the largest radius."""
    distance = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    radius = adaptive_radius(distance, torch.full_like(distance, count), 0.5, 5.0)
    expected = 5.0 * (1.0 - 3 * count) ** (1 / 3)
    torch.testing.assert_close(radius, torch.full_like(radius, expected), rtol=1e-14, atol=0)


@pytest.mark.parametrize("derivatives", [1, 2])
def test_first_derivatives_are_the_same_however_many_are_exact(derivatives):
    distance, count = (x.requires_grad_(True) for x in neighbours(6, 2))
    found = adaptive_radius(distance, count, 0.5, 5.0, derivatives)
    exact = adaptive_radius(distance, count, 0.5, 5.0)
    assert torch.equal(found, exact) or (found - exact).abs().max() < 1e-14
    given = torch.linspace(-1, 1, len(found), dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(found, [distance, count], given),
        torch.autograd.grad(exact, [distance, count], given),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_radius_without_neighbours_is_the_largest():
    radius = adaptive_radius(*(torch.zeros(2, 0, dtype=torch.float64),) * 2, 0.5, 5.0)
    torch.testing.assert_close(radius, torch.full((2,), 5.0, dtype=torch.float64))


def test_radius_of_equal_neighbours():
    distance = torch.full((1, 12), 2.5, dtype=torch.float64)
    radius = adaptive_radius(distance, torch.ones_like(distance), 0.5, 5.0)
    assert 2.5 < radius < 2.75


def test_derivatives_of_the_radius_are_exact():
    distance, count = neighbours(5, 1)
    distance, count = distance[:4].requires_grad_(True), count[:4].requires_grad_(True)

    def radius(r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        return adaptive_radius(r, f, 0.5, 5.0)

    assert gradcheck(radius, (distance, count), rtol=1e-6, atol=1e-7)
    assert gradgradcheck(radius, (distance, count), rtol=1e-4, atol=1e-5)


def test_unit_vectors_have_unit_length():
    length = unit_vectors(5, torch.Generator().manual_seed(0)).norm(dim=1)
    torch.testing.assert_close(length, torch.ones_like(length))
