"""The polynomial switch."""

import torch
from ecse_tools import unit_vectors

from pet_mlip.ecse.switches import quintic, quintic_and_slope


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


def test_unit_vectors_have_unit_length():
    length = unit_vectors(5, torch.Generator().manual_seed(0)).norm(dim=1)
    torch.testing.assert_close(length, torch.ones_like(length))
