"""The closest-pairs ensemble: frames from the ordered pairs of neighbours that cost least."""

import torch
from torch import Tensor, nn

from pet_mlip.ecse.axes import nearest_axes
from pet_mlip.ecse.frames import Frames
from pet_mlip.ecse.hypers import ClosestPairsHypers
from pet_mlip.ecse.switches import adaptive_radius, quintic, quintic_slope
from pet_mlip.graph.environment import Environment


class ClosestPairs(nn.Module):
    """Frames (u_j, e_z x u_j, +-e_z), e_z = u_j x u_k / |u_j x u_k|, of the cheapest pairs j, k.

    A frame costs r_j + r_k, something if the pair is oblique, and something if e_z points away from
    the side on which most neighbours are. A level that adapts until it holds about one frame
    decides on all of this at once, so that a frame that is second best in several ways is gone.
    Where no pair makes a plane, the projectors on the nearest neighbours take over. All weights are
    smooth functions of the positions that sum to one, and the ensemble of a rotated or mirrored
    environment is the rotated or mirrored ensemble.
    """

    def __init__(self, cutoff: float, hypers: ClosestPairsHypers) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.width = hypers.width
        self.collinear = hypers.collinear
        self.collinear_width = hypers.collinear_width
        self.oblique = hypers.oblique
        self.handedness = hypers.handedness
        self.handedness_width = hypers.handedness_width
        self.fallback = hypers.fallback
        self.core = min(1.0, 0.5 * cutoff)
        self.largest = 2.0 * cutoff + hypers.oblique + hypers.handedness + hypers.width

    def forward(self, environment: Environment) -> Frames:
        """Frames of every atom; see the class."""
        distance, switch = environment.distance, environment.switch
        unit = environment.vectors / distance.unsqueeze(2)
        asymmetry = self.asymmetry(unit, environment)
        atom, first, second = self.candidates(unit, asymmetry, environment)

        x = unit[atom, first]
        z = torch.linalg.cross(x, unit[atom, second])
        sine_squared = (z * z).sum(dim=1)
        eligible = quintic((sine_squared - self.collinear) / self.collinear_width)
        count = eligible * switch[atom, first] * switch[atom, second]
        zeta = (asymmetry[atom] * z).sum(dim=1)
        cost = distance[atom, first] + distance[atom, second] + self.oblique * (1.0 - sine_squared)
        cost = torch.cat([cost + self.wrong_side(zeta), cost + self.wrong_side(-zeta)])
        of_frame, count = torch.cat([atom, atom]), torch.cat([count, count])

        level = adaptive_level(cost, count, of_frame, distance.shape[0], self.width, self.largest)
        score = count * quintic((level[of_frame] - cost) / self.width)
        total = torch.zeros_like(level).index_add(0, of_frame, score)
        missing = (1.0 - total / self.fallback).clamp(min=0.0) ** 3
        share = 1.0 / (total + missing)
        radius = adaptive_radius(distance, switch, self.width, self.cutoff + self.width)
        axis_atom, axis, axis_weight, isolated = nearest_axes(
            radius, self.width, unit, missing * share, environment
        )

        z = z / sine_squared.sqrt().unsqueeze(1)
        y = torch.linalg.cross(z, x)
        used = torch.nonzero(score.detach() > 0.0).squeeze(1)
        both = torch.cat([torch.stack([x, y, z], dim=2), torch.stack([x, y, -z], dim=2)])
        no_axis = torch.zeros_like(axis)
        nothing = torch.zeros(isolated.shape[0], 3, 3, dtype=x.dtype, device=x.device)
        atoms = torch.cat([of_frame[used], axis_atom, isolated])
        matrix = torch.cat([both[used], torch.stack([axis, no_axis, no_axis], dim=2), nothing])
        weight = torch.cat(
            [(score * share[of_frame])[used], axis_weight, torch.ones_like(nothing[:, 0, 0])]
        )
        order = torch.argsort(atoms, stable=True)
        return Frames(atoms[order], matrix[order], weight[order])

    def candidates(
        self, unit: Tensor, asymmetry: Tensor, environment: Environment
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Atom, j and k of the pairs that could lie below the level, three times (P,)."""
        unit, asymmetry = unit.detach(), asymmetry.detach()
        distance, switch = environment.distance.detach(), environment.switch.detach()
        cosine = unit @ unit.transpose(1, 2)
        sine_squared = 1.0 - cosine * cosine
        count = quintic((sine_squared - self.collinear) / self.collinear_width)
        count = count * switch.unsqueeze(2) * switch.unsqueeze(1)
        turned = torch.linalg.cross(asymmetry.unsqueeze(1).expand_as(unit), unit)
        zeta = turned @ unit.transpose(1, 2)
        cost = distance.unsqueeze(2) + distance.unsqueeze(1) + self.oblique * cosine * cosine
        cost = cost + self.wrong_side(zeta.abs())
        # A frame that counts fully holds the level below its own cost plus the width.
        full = torch.where(count == 1.0, cost, torch.full_like(cost, self.largest)).flatten(1)
        bound = torch.nn.functional.pad(full, [0, 1], value=self.largest).amin(dim=1) + self.width
        below = (count > 0.0) & (cost < bound[:, None, None])
        atom, first, second = torch.nonzero(below).unbind(1)
        return atom, first, second

    def wrong_side(self, zeta: Tensor) -> Tensor:
        """Cost of a frame with zeta = sum_l omega(r_l) u_l . z |u_j x u_k|."""
        return self.handedness * quintic(0.5 * (1.0 - zeta / self.handedness_width))

    def asymmetry(self, unit: Tensor, environment: Environment) -> Tensor:
        """sum_l omega(r_l) f_l u_l, (N, 3): omega is 1 in the core and falls to 0 at the cutoff."""
        omega = quintic((self.cutoff - environment.distance) / (self.cutoff - self.core))
        # With adaptive cutoffs, neighbours appear and disappear before the cutoff.
        omega = omega * environment.switch
        return (omega.unsqueeze(2) * unit).sum(dim=1)


def adaptive_level(
    cost: Tensor, count: Tensor, atom: Tensor, n_atoms: int, width: float, largest: float
) -> Tensor:
    """As `adaptive_radius`, for P rows of which each belongs to one atom.

    The level L of an atom solves sum count quintic((L - cost) / width) + (L / largest)^3 = 1.

    Args:
        cost: Cost of each row, (P,) float64.
        count: How much each row counts, in [0, 1], (P,) float64.
        atom: Atom of each row, (P,) int64.
        n_atoms: Number of atoms.
        width: Width of the switch, in the units of the cost.
        largest: Upper bound of the level.

    Returns:
        L, (N,), with exact first and second derivatives.
    """
    level, slope = _solve(cost.detach(), count.detach(), atom, n_atoms, width, largest)
    # Each step with a constant slope makes one more derivative of the implicit function exact.
    for _ in range(2):
        level = level - _excess(level, cost, count, atom, width, largest) / slope
    return level


def _excess(
    level: Tensor, cost: Tensor, count: Tensor, atom: Tensor, width: float, largest: float
) -> Tensor:
    """What the level of each atom holds, minus one, (N,)."""
    held = count * quintic((level.index_select(0, atom) - cost) / width)
    return ((level / largest) ** 3 - 1.0).index_add(0, atom, held)


def _solve(
    cost: Tensor, count: Tensor, atom: Tensor, n_atoms: int, width: float, largest: float
) -> tuple[Tensor, Tensor]:
    """The level to round-off, and the slope of what it holds there."""
    # Nothing is held below the cheapest row; the level of an atom without rows is the largest.
    high = torch.full([n_atoms], largest, dtype=cost.dtype, device=cost.device)
    low = high.scatter_reduce(0, atom, cost, "amin")
    for _ in range(17):
        level = 0.5 * (low + high)
        excess = _excess(level, cost, count, atom, width, largest)
        low = torch.where(excess <= 0.0, level, low)
        high = torch.where(excess > 0.0, level, high)
    # From 1e-4 Å on Newton steps, as long as they stay inside the bracket.
    level = 0.5 * (low + high)
    slope = torch.ones_like(level)
    for _ in range(7):
        excess = _excess(level, cost, count, atom, width, largest)
        step = (level.index_select(0, atom) - cost) / width
        slope = 3.0 * level**2 / largest**3
        slope = slope.index_add(0, atom, count * quintic_slope(step) / width)
        low = torch.where(excess <= 0.0, level, low)
        high = torch.where(excess > 0.0, level, high)
        newton = level - excess / slope
        level = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
    return level, slope
