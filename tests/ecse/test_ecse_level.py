"""The level that holds about one row of each atom, and its derivative."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pet_mlip.ecse.level import find_level, level_vjp, select_rows
from pet_mlip.ecse.switches import quintic

WIDTH = 0.4
LARGEST = 10.0


def rows(n_atoms: int, per_atom: int, spread: float, seed: int = 0) -> tuple[Tensor, ...]:
    """Cost, count and atom of rows, which are in no order."""
    draw = torch.Generator().manual_seed(seed)
    cost = 3 + spread * torch.rand(n_atoms * per_atom, dtype=torch.float64, generator=draw)
    count = torch.rand(n_atoms * per_atom, dtype=torch.float64, generator=draw) ** 3
    return cost, count, torch.arange(n_atoms).repeat(per_atom)


@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 6.0])
@pytest.mark.parametrize("per_atom", [1, 4, 300])
def test_it_solves_its_equation(spread, per_atom):
    cost, count, atom = rows(50, per_atom, spread)
    level = find_level(cost, count, atom, 51, WIDTH, LARGEST)
    torch.testing.assert_close(level.below, quintic((level.value[atom] - cost) / WIDTH))
    total = ((level.value / LARGEST) ** 3).index_add(0, atom, count * level.below)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-13)
    assert level.value[50] == LARGEST  # it has no rows


@pytest.mark.parametrize("count", [1e-3, 1e-6, 1e-9, 1e-12])
def test_rows_that_hardly_count(count):
    """The root lies just below the largest level."""
    cost = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    atom = torch.zeros(3, dtype=torch.int64)
    found = find_level(cost, torch.full_like(cost, count), atom, 1, WIDTH, LARGEST).value
    expected = LARGEST * (1.0 - 3 * count) ** (1 / 3)
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-14, atol=0)


@pytest.mark.parametrize("n_atoms", [0, 2])
def test_without_rows(n_atoms):
    nothing = torch.zeros(0, dtype=torch.float64)
    atom = torch.zeros(0, dtype=torch.int64)
    level = find_level(nothing, nothing, atom, n_atoms, WIDTH, LARGEST)
    assert level.value.tolist() == [LARGEST] * n_atoms
    assert level.held.shape == level.slopes.shape == (0,)


def test_equal_rows():
    cost = torch.full((12,), 2.5, dtype=torch.float64)
    atom = torch.zeros(12, dtype=torch.int64)
    found = find_level(cost, torch.ones_like(cost), atom, 1, WIDTH, LARGEST).value
    assert 2.5 < found < 2.5 + WIDTH / 2


def test_a_margin_holds_more_and_leaves_the_level():
    cost, count, atom = rows(20, 9, 1.0)
    level = find_level(cost, count, atom, 20, WIDTH, LARGEST)
    more = find_level(cost, count, atom, 20, WIDTH, LARGEST, margin=0.1)
    assert torch.equal(more.value, level.value) and torch.equal(more.below, level.held)
    torch.testing.assert_close(more.held, quintic((level.value[atom] + 0.1 - cost) / WIDTH))
    assert (more.held > 0).sum() > (level.held > 0).sum()


def test_a_margin_smooths_rows_of_equal_cost():
    """What one of them gains by a small change of its cost, relative to all."""
    atom = torch.zeros(100, dtype=torch.int64)
    changes = []
    for margin in (0.0, 0.07):
        cost = torch.full((100,), 2.5, dtype=torch.float64)
        cost[0] -= 0.01
        held = find_level(cost, torch.ones_like(cost), atom, 1, WIDTH, LARGEST, margin).held
        changes.append(float(held[0] / held[1]) - 1.0)
    assert changes[1] < 0.4 * changes[0]


@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("spread", [0.01, 0.6, 6.0])
def test_the_written_derivative_is_that_of_autograd(spread, margin):
    cost, count, atom = rows(20, 7, spread)
    inputs = [cost.clone().requires_grad_(True), count.clone().requires_grad_(True)]
    differentiable = find_level(*inputs, atom, 20, WIDTH, LARGEST, margin)
    grad = torch.linspace(-1, 1, len(cost), dtype=torch.float64)
    expected = torch.autograd.grad(inputs[1] * differentiable.held, inputs, grad)
    level = find_level(cost, count, atom, 20, WIDTH, LARGEST, margin)
    torch.testing.assert_close(level.value, differentiable.value.detach(), rtol=0, atol=1e-13)
    for found, wanted in zip(level_vjp(grad, level, atom), expected, strict=True):
        scale = float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_rows_that_are_not_held_may_be_left_out(margin):
    cost, count, atom = rows(20, 7, 6.0)
    level = find_level(cost, count, atom, 20, WIDTH, LARGEST, margin)
    grad = torch.linspace(-1, 1, len(cost), dtype=torch.float64)
    held = torch.nonzero(level.held > 0).squeeze(1)
    assert 20 <= len(held) < len(cost)
    fewer = select_rows(level, held)
    for all_rows, some in zip(
        level_vjp(grad, level, atom), level_vjp(grad[held], fewer, atom[held]), strict=True
    ):
        torch.testing.assert_close(some, all_rows[held])
        assert torch.count_nonzero(all_rows) == torch.count_nonzero(some)


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_derivatives_of_both_orders_are_exact(margin):
    cost, count, atom = rows(3, 5, 0.6, seed=1)

    def level(c: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        found = find_level(c, n, atom, 3, WIDTH, LARGEST, margin)
        return found.value, found.held

    inputs = (cost.requires_grad_(True), count.requires_grad_(True))
    assert gradcheck(level, inputs, rtol=1e-6, atol=1e-7)
    assert gradgradcheck(level, inputs, rtol=1e-4, atol=1e-5)
