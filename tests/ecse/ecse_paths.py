"""Paths of an environment through every switch, and functions that must not jump on them."""

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[list[Tensor]], Tensor]
"""Environments, (m, 3) each, to a value for each, (N,)."""

OTHERS = [[1.3, 0.2, 0.1], [-0.5, 1.4, 0.3], [-0.4, -0.9, 2.1], [1.9, -2.2, -0.6]]


def crossing_the_cutoff(t: Tensor) -> Tensor:
    return with_others([1.0, -1.0, 0.5], 4.2 + 0.6 * t)


def leaving_alone(t: Tensor) -> Tensor:
    return with_others([1.0, 0.3, -0.2], 1.0 + 4.0 * t, n=0)


def leaving_a_pair(t: Tensor) -> Tensor:
    return with_others([1.0, 0.3, -0.2], 1.5 + 3.5 * t, n=1)


def trading_places(t: Tensor) -> Tensor:
    return with_others([-1.0, 0.1, 0.4], 1.0 + 1.2 * t)


def two_equal_neighbours_leaving(t: Tensor) -> Tensor:
    return torch.cat([along([1, 0, 0.2], 3.9 + 0.7 * t), along([0, 1, -0.3], 3.9 + 0.7 * t)], dim=1)


def two_equal_neighbours_leaving_others(t: Tensor) -> Tensor:
    return torch.cat([two_equal_neighbours_leaving(t), with_others([1, 1, 1], 5.0 + t)], dim=1)


def straightening_alone(t: Tensor) -> Tensor:
    """A bent triatomic becomes linear and bends to the other side."""
    angle = torch.pi * (0.8 + 0.4 * t)
    second = torch.stack([torch.cos(angle), torch.sin(angle), 0 * t], dim=1)
    return torch.cat([along([1, 0, 0], 1.1 + 0 * t), 1.2 * second.unsqueeze(1)], dim=1)


def straightening_with_others(t: Tensor) -> Tensor:
    return torch.cat([straightening_alone(t), with_others([1, 1, 1], 5.0 + t)[:, 3:]], dim=1)


def through_a_plane(t: Tensor) -> Tensor:
    """Four neighbours in a plane but for one, which crosses it: zeta changes its sign."""
    flat = torch.tensor([[1.2, 0, 0], [-0.5, 1.3, 0], [-0.7, -1.6, 0]], dtype=torch.float64)
    moving = torch.stack([2.0 + 0 * t, 0.8 + 0 * t, 0.4 * t - 0.2], dim=1)
    return torch.cat([flat.expand(len(t), 3, 3), moving.unsqueeze(1)], dim=1)


def through_a_square(t: Tensor) -> Tensor:
    """A square of equal neighbours breathes through the centre's plane."""
    corner = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    height = (0.4 * t - 0.2).reshape(-1, 1, 1).expand(-1, 4, 1)
    return torch.cat([1.9 * corner.expand(len(t), 4, 2), height], dim=2)


PATHS = [
    crossing_the_cutoff,
    leaving_alone,
    leaving_a_pair,
    trading_places,
    two_equal_neighbours_leaving,
    two_equal_neighbours_leaving_others,
    straightening_alone,
    straightening_with_others,
    through_a_plane,
    through_a_square,
]


def along(direction: list[float], distance: Tensor) -> Tensor:
    """A neighbour at the given distances (T,) in one direction, (T, 1, 3)."""
    unit = torch.tensor(direction, dtype=torch.float64)
    return (unit / unit.norm() * distance[:, None]).unsqueeze(1)


def with_others(direction: list[float], distance: Tensor, n: int = 4) -> Tensor:
    """The same with n neighbours that stay, (T, 1 + n, 3)."""
    others = torch.tensor(OTHERS[:n], dtype=torch.float64).reshape(n, 3)
    return torch.cat([along(direction, distance), others.expand(len(distance), n, 3)], dim=1)


class Along:
    """Value, slope and curvature of a function of environments at points of a path."""

    def __init__(self, function: Function, path: Callable[[Tensor], Tensor], t: Tensor) -> None:
        self.t = t.requires_grad_(True)
        value = function(list(path(t)))
        (slope,) = torch.autograd.grad(value.sum(), t, create_graph=True)
        (self.curvature,) = torch.autograd.grad(slope.sum(), t)
        self.value, self.slope = value.detach(), slope.detach()

    def ranges(self) -> Tensor:
        return torch.stack(
            [self.value.max() - self.value.min(), self.slope.max() - self.slope.min()]
        )

    def defects(self) -> Tensor:
        """Violation of the trapezoid rule by (value, slope) and (slope, curvature), (2, T - 1).

        A jump of value or slope shows in full, whatever the step, and so does a wrong derivative.
        """
        functions = torch.stack([self.value, self.slope])
        derivatives = torch.stack([self.slope, self.curvature])
        step = self.t.detach().diff()
        return (
            functions.diff(dim=1) - 0.5 * (derivatives[:, 1:] + derivatives[:, :-1]) * step
        ).abs()


def assert_no_jump(function: Function, path: Callable[[Tensor], Tensor]) -> None:
    """Value and slope of a function never jump on a path, nor do they stand still."""
    # The ends are irrational, so that no point is special.
    along_path = Along(function, path, torch.linspace(0.001**0.5, 1, 1001, dtype=torch.float64))
    allowed = 2e-3 * along_path.ranges()
    assert (allowed > 0).all()
    for which in range(2):
        part = along_path
        # Where the function turns quickly, look closer: only what is smooth becomes straight.
        for _ in range(3):
            defect, worst = part.defects()[which].max(dim=0)
            if defect < allowed[which]:
                break
            ends = part.t.detach()[[max(int(worst) - 1, 0), min(int(worst) + 2, len(part.t) - 1)]]
            part = Along(function, path, torch.linspace(*ends.tolist(), 301, dtype=torch.float64))
        assert part.defects()[which].max() < allowed[which]
