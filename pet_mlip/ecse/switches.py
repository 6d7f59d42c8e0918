"""The polynomial switch that frames fade in and out with."""

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
