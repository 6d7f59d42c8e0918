"""Polynomial switches and the radius that adapts to the neighbours."""

import torch
from torch import Tensor


def quintic(x: Tensor) -> Tensor:
    """Polynomial switch: 0 for x <= 0, 1 for x >= 1, twice continuously differentiable.

    Antisymmetric about x = 1/2: its values at x and 1 - x add up to one.
    """
    x = x.clamp(0.0, 1.0)
    return x * x * x * (10.0 + x * (6.0 * x - 15.0))


def quintic_slope(x: Tensor) -> Tensor:
    """Derivative of `quintic`."""
    x = x.clamp(0.0, 1.0)
    y = x * (1.0 - x)
    return 30.0 * y * y


def adaptive_radius(distance: Tensor, count: Tensor, width: float, largest: float) -> Tensor:
    """Radius that holds about one neighbour: the solution R of n(R) = 1.

    n(R) = sum_j count_j quintic((R - r_j) / width) + (R / largest)^3 grows monotonically from 0,
    and its last term alone reaches 1 at ``largest``: the root always exists and never jumps.

    Args:
        distance: r_j in Å, (A, M) float64.
        count: How much each neighbour counts, in [0, 1], (A, M) float64.
        width: Width of the switch in Å.
        largest: Upper bound of R in Å.

    Returns:
        R, (A,), with exact first and second derivatives.
    """
    radius, slope = _solve(distance.detach(), count.detach(), width, largest)
    # Each step with a constant slope makes one more derivative of the implicit function exact.
    for _ in range(2):
        s = quintic((radius[:, None] - distance) / width)
        excess = (count * s).sum(dim=1) + (radius / largest) ** 3 - 1.0
        radius = radius - excess / slope
    return radius


def _solve(distance: Tensor, count: Tensor, width: float, largest: float) -> tuple[Tensor, Tensor]:
    """The root to round-off, and n'(R) there."""
    low = torch.zeros_like(count[:, :1].sum(dim=1))
    high = torch.full_like(low, largest)
    radius = 0.5 * (low + high)
    slope = torch.ones_like(low)
    step = high - low
    tolerance = 1e-12 * largest
    if radius.numel() == 0:
        return radius, slope
    # A GPU is not waited for after each iteration.
    between_checks = 1 if radius.device.type == "cpu" else 4
    # Newton's method, with bisection wherever its steps do not halve:
    # a dozen iterations as a rule, and bisection's pace at worst.
    for k in range(100):
        x = (radius[:, None] - distance) / width
        excess = (count * quintic(x)).sum(dim=1) + (radius / largest) ** 3 - 1.0
        slope = (count * quintic_slope(x)).sum(dim=1) / width + 3.0 * radius**2 / largest**3
        low = torch.where(excess <= 0.0, radius, low)
        high = torch.where(excess > 0.0, radius, high)
        newton = torch.minimum(torch.maximum(radius - excess / slope, low), high)
        good = 2.0 * (newton - radius).abs() <= step.clamp(min=tolerance)
        following = torch.where(good, newton, 0.5 * (low + high))
        step = (following - radius).abs()
        radius = following
        if (k + 1) % between_checks == 0 and float(step.max()) <= tolerance:
            break
    return radius, slope
