"""Polynomial switches and the radius that adapts to the neighbours."""

from typing import NamedTuple

import torch
from torch import Tensor


def quintic(x: Tensor) -> Tensor:
    """Polynomial switch: 0 for x <= 0, 1 for x >= 1, twice continuously differentiable.

    Antisymmetric about x = 1/2: its values at x and 1 - x add up to one.
    """
    x = x.clamp(0.0, 1.0)
    return x * x * x * (10.0 + x * (6.0 * x - 15.0))


def quintic_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quintic` and its derivative, where no gradient is wanted: in few operations."""
    x = x.clamp(0.0, 1.0)
    square = x * x
    # 30 x^2 (1 - x)^2, and x^3 (10 - 15 x + 6 x^2).
    slope = (1.0 - x).mul_(x).square_().mul_(30.0)
    value = (x * 6.0).sub_(15.0).mul_(x).add_(10.0).mul_(x).mul_(square)
    return value, slope


class Search(NamedTuple):
    """Where the roots of functions that grow monotonically are looked for, (A,) each."""

    root: Tensor
    low: Tensor
    high: Tensor
    step: Tensor
    """Size of the last one; after a bisection, of the bracket."""


def adaptive_radius(
    distance: Tensor, count: Tensor, width: float, largest: float, derivatives: int = 2
) -> Tensor:
    """Radius that holds about one neighbour: the solution R of n(R) = 1.

    n(R) = sum_j count_j quintic((R - r_j) / width) + (R / largest)^3 grows monotonically from 0,
    and its last term alone reaches 1 at ``largest``: the root always exists and never jumps.

    Args:
        distance: r_j in Å, (A, M) float64.
        count: How much each neighbour counts, in [0, 1], (A, M) float64.
        width: Width of the switch in Å.
        largest: Upper bound of R in Å.
        derivatives: How many derivatives of the result are exact, 1 or 2.

    Returns:
        R, (A,).
    """
    r, f = distance.detach(), count.detach()
    radius = _solve(r, f, width, largest)
    value, slopes = quintic_and_slope((radius.unsqueeze(1) - r) / width)
    slopes.mul_(f).div_(width)
    slope = slopes.sum(dim=1) + radius.square().mul_(3.0 / largest**3)
    if derivatives < 2:
        # The linear function that has the root's value and derivatives.
        change = slopes * (distance - r) - value * (count - f)
        return radius + change.sum(dim=1) / slope
    # Each step with a constant slope makes one more derivative of the implicit function exact.
    for _ in range(2):
        s = quintic((radius[:, None] - distance) / width)
        excess = (count * s).sum(dim=1) + (radius / largest) ** 3 - 1.0
        radius = radius - excess / slope
    return radius


def _solve(distance: Tensor, count: Tensor, width: float, largest: float) -> Tensor:
    """The root to round-off."""
    # Below the nearest neighbour nothing is held; one that counts fully is held at its far end.
    near = torch.where(count > 0.0, distance, largest)
    full = torch.where(count == 1.0, distance + width, largest)
    low = torch.nn.functional.pad(near, [0, 1], value=largest).amin(dim=1)
    high = torch.nn.functional.pad(full, [0, 1], value=largest).amin(dim=1)
    search = start_search(low, high, width)
    if low.numel() == 0:
        return low
    for k in range(100):
        x = (search.root.unsqueeze(1) - distance).div_(width)
        value, slope = quintic_and_slope(x)
        held = value.mul_(count).sum(dim=1)
        search = next_search(search, held, slope.mul_(count).sum(dim=1) / width, largest)
        if is_found(search, k, largest):
            break
    return search.root


def start_search(low: Tensor, high: Tensor, width: float) -> Search:
    """Begin within a bracket, half a width above its lower end: where one neighbour is held."""
    return Search(torch.minimum(low + 0.5 * width, high), low, high, high - low)


def next_search(search: Search, held: Tensor, slope: Tensor, largest: float) -> Search:
    """Take a step of Newton's method, or bisect wherever its steps do not halve.

    Half a dozen steps as a rule, and bisection's pace at worst.

    Args:
        search: Where it is.
        held: n(R) without (R / largest)^3, (A,).
        slope: Its derivative, (A,).
        largest: Upper bound of the roots.
    """
    root = search.root
    square = root.square().div_(largest**3)
    excess = (square * root).add_(held).sub_(1.0)
    below = excess <= 0.0
    low = torch.where(below, root, search.low)
    high = torch.where(below, search.high, root)
    newton = (root - excess.div_(square.mul_(3.0).add_(slope))).clamp(low, high)
    half = (0.5 * search.step).clamp_(min=1e-12 * largest)
    step = (newton - root).abs_()
    good = step <= half
    following = torch.where(good, newton, (low + high).mul_(0.5))
    return Search(following, low, high, torch.where(good, step, high - low))


def is_found(search: Search, number: int, largest: float) -> bool:
    """Whether all roots are found, to round-off: Newton's next step is quadratically smaller."""
    # A GPU is not waited for after each step.
    between_checks = 1 if search.root.device.type == "cpu" else 4
    return (number + 1) % between_checks == 0 and float(search.step.max()) <= 1e-9 * largest
