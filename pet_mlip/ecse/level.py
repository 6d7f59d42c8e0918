"""A level that adapts to rows with a cost each, and what lies below it.

The level of an atom is where about one of its rows is below, faded in over a width. What is held
lies below the level plus a margin: of many rows that cost the same, as in crystals, the level alone
would hold the last bit that fades in only, which the smallest displacement changes much.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.ecse.switches import quintic, quintic_and_slope


class Level(NamedTuple):
    """The levels of N atoms, and how P rows of which each belongs to one lie to them."""

    value: Tensor
    """L, (N,) float64."""
    held: Tensor
    """quintic((L + margin - cost) / width) of each row, (P,) float64."""
    slopes: Tensor
    """Derivative of count held over L, (P,) float64."""
    below: Tensor
    """quintic((L - cost) / width) of each row, (P,) float64."""
    slopes_below: Tensor
    """Derivative of count below over L, (P,) float64."""
    slope: Tensor
    """Derivative of each atom's equation over L, (N,) float64."""


class Search(NamedTuple):
    """Where the roots of functions that grow monotonically are looked for, (N,) each."""

    root: Tensor
    low: Tensor
    high: Tensor
    step: Tensor
    """Size of the last one; after a bisection, of the bracket."""


def find_level(
    cost: Tensor,
    count: Tensor,
    atom: Tensor,
    n_atoms: int,
    width: float,
    largest: float,
    margin: float = 0.0,
) -> Level:
    """Solve sum count quintic((L - cost) / width) + (L / largest)^3 = 1 for each atom.

    The left side grows monotonically from 0, and its last term alone reaches 1 at ``largest``: the
    root always exists and never jumps. Value and held rows are differentiable twice where the
    arguments require grad; `level_vjp` is the first derivative.

    Args:
        cost: Cost of each row, (P,) float64.
        count: How much each row counts, in [0, 1], (P,) float64.
        atom: Atom of each row, (P,) int64.
        n_atoms: N.
        width: Width of the switch, in the units of the cost.
        largest: Upper bound of the level.
        margin: By how much rows that are held may lie above the level, in the units of the cost.
    """
    c, f = cost.detach(), count.detach()
    level = _solve(c, f, atom, n_atoms, width, largest)
    depth = level.index_select(0, atom) - c
    below, slopes_below = quintic_and_slope(depth / width)
    slopes_below.mul_(f).div_(width)
    slope = level.square().mul_(3.0 / largest**3).index_add_(0, atom, slopes_below)
    held, slopes = below, slopes_below
    if margin > 0.0:
        held, slopes = quintic_and_slope((depth + margin) / width)
        slopes.mul_(f).div_(width)
    if cost.requires_grad or count.requires_grad:
        # Each step with a constant slope makes one more derivative of the implicit function exact.
        for _ in range(2):
            inside = count * quintic((level.index_select(0, atom) - cost) / width)
            level = level - ((level / largest) ** 3 - 1.0).index_add(0, atom, inside) / slope
        held = quintic((level.index_select(0, atom) + margin - cost) / width)
    return Level(level, held, slopes, below, slopes_below, slope)


def select_rows(level: Level, rows: Tensor) -> Level:
    """Return the same levels with some of the rows."""
    return Level(
        level.value,
        level.held.index_select(0, rows),
        level.slopes.index_select(0, rows),
        level.below.index_select(0, rows),
        level.slopes_below.index_select(0, rows),
        level.slope,
    )


def level_vjp(grad_held: Tensor, level: Level, atom: Tensor) -> tuple[Tensor, Tensor]:
    """Take a gradient over count held of rows back to their cost and count, both (P,).

    Rows that are not held have no part in it and may be left out.

    Args:
        grad_held: Gradient over the products of count and held, (P,).
        level: As found, with the rows that ``atom`` has.
        atom: Atom of each row, (P,) int64.
    """
    of_level = torch.zeros_like(level.slope).index_add(0, atom, grad_held * level.slopes)
    # The level moves so that the sum of all that is below stays what it is.
    of_sum = (of_level / level.slope).index_select(0, atom)
    return (
        level.slopes_below * of_sum - level.slopes * grad_held,
        level.held * grad_held - level.below * of_sum,
    )


def _solve(
    cost: Tensor, count: Tensor, atom: Tensor, n_atoms: int, width: float, largest: float
) -> Tensor:
    """The level to round-off."""
    # Nothing is held below the cheapest row; the level of an atom without rows is the largest.
    low = torch.full([n_atoms], largest, dtype=cost.dtype, device=cost.device)
    full = torch.where(count == 1.0, cost + width, largest)
    high = low.scatter_reduce(0, atom, full, "amin")
    near = torch.where(count > 0.0, cost, largest)
    low = low.scatter_reduce(0, atom, near, "amin")
    if n_atoms == 0:
        return low
    # Half a width above the lower end of the bracket one row is held.
    root = torch.minimum(low + 0.5 * width, high)
    nothing = torch.zeros_like(low)
    cost, weight = cost / width, count / width
    # A GPU is not waited for after each step.
    between_checks = 1 if low.device.type == "cpu" else 4
    enough = 1e-9 * largest
    for k in range(8):
        held, slope = _held(root, cost, count, weight, atom, nothing, width)
        _, newton = _newton(root, held, slope, largest)
        newton = newton.clamp_(low, high)
        step = (newton - root).abs_()
        root = newton
        # To round-off: Newton's next step is quadratically smaller.
        if (k + 1) % between_checks == 0 and float(step.max()) <= enough:
            return root
    search = Search(root, low, high, high - low)
    for k in range(100):
        held, slope = _held(search.root, cost, count, weight, atom, nothing, width)
        search = _next(search, held, slope, largest)
        if (k + 1) % between_checks == 0 and float(search.step.max()) <= enough:
            break
    return search.root


def _held(
    level: Tensor,
    cost: Tensor,
    count: Tensor,
    weight: Tensor,
    atom: Tensor,
    nothing: Tensor,
    width: float,
) -> tuple[Tensor, Tensor]:
    """Find what atoms hold below their levels, and its slope; cost and weight are over width."""
    value, slope = quintic_and_slope((level / width).index_select(0, atom).sub_(cost))
    held = nothing.index_add(0, atom, value.mul_(count))
    return held, nothing.index_add(0, atom, slope.mul_(weight))


def _newton(root: Tensor, held: Tensor, slope: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    """Find by how much the left side exceeds one, and where Newton's method goes from there."""
    square = root.square().div_(largest**3)
    excess = (square * root).add_(held).sub_(1.0)
    return excess, root - excess / square.mul_(3.0).add_(slope)


def _next(search: Search, held: Tensor, slope: Tensor, largest: float) -> Search:
    """Take a step of Newton's method, or bisect wherever its steps do not halve.

    Half a dozen steps as a rule, and bisection's pace at worst.

    Args:
        search: Where it is.
        held: The left side without (L / largest)^3, (N,).
        slope: Its derivative, (N,).
        largest: Upper bound of the roots.
    """
    root = search.root
    excess, newton = _newton(root, held, slope, largest)
    below = excess <= 0.0
    low = torch.where(below, root, search.low)
    high = torch.where(below, search.high, root)
    newton = newton.clamp_(low, high)
    half = (0.5 * search.step).clamp_(min=1e-12 * largest)
    step = (newton - root).abs_()
    good = step <= half
    following = torch.where(good, newton, (low + high).mul_(0.5))
    return Search(following, low, high, torch.where(good, step, high - low))
