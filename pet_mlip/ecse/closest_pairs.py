"""The closest-pairs ensemble: frames from the ordered pairs of neighbours that cost least."""

import torch
from torch import Tensor, nn

from pet_mlip.ecse.axes import nearest_axes
from pet_mlip.ecse.frames import Frames, order_frames
from pet_mlip.ecse.hypers import ClosestPairsHypers
from pet_mlip.ecse.switches import (
    adaptive_radius,
    is_found,
    next_search,
    quintic,
    quintic_and_slope,
    start_search,
)
from pet_mlip.graph.environment import Environment


class ClosestPairs(nn.Module):
    """Frames (u_j, e_z x u_j, +-e_z), e_z = u_j x u_k / |u_j x u_k|, of the cheapest pairs j, k.

    A frame costs a r_j + r_k, something if the pair is oblique, and something if e_z points away
    from the side on which most neighbours are. Since a > 1, the nearer of the two is the axis. A
    level that adapts until it holds about one frame decides on all of this at once, so that a frame
    that is second best in several ways is gone. Where no pair makes a plane, the projectors on the
    nearest neighbours take over. All weights are smooth functions of the positions that sum to one,
    and the ensemble of a rotated or mirrored environment is the rotated or mirrored ensemble.
    """

    def __init__(self, cutoff: float, hypers: ClosestPairsHypers, derivatives: int = 2) -> None:
        super().__init__()
        self.derivatives = derivatives
        self.cutoff = cutoff
        self.width = hypers.width
        self.collinear = hypers.collinear
        self.collinear_width = hypers.collinear_width
        self.oblique = hypers.oblique
        self.handedness = hypers.handedness
        self.handedness_width = hypers.handedness_width
        self.fallback = hypers.fallback
        self.core = min(1.0, 0.5 * cutoff)
        self.axis_cost = hypers.axis_cost
        self.largest = (1.0 + hypers.axis_cost) * cutoff
        self.largest += hypers.oblique + hypers.handedness + hypers.width

    def forward(self, environment: Environment) -> Frames:
        """Frames of every atom; see the class."""
        distance, switch = environment.distance, environment.switch
        unit = environment.vectors / distance.unsqueeze(2)
        asymmetry = self.asymmetry(unit, environment)
        atom, first, second = self.candidates(unit, asymmetry, environment)

        n_places = distance.shape[1]
        first, second = atom * n_places + first, atom * n_places + second
        flat, flat_switch, flat_distance = unit.flatten(0, 1), switch.flatten(), distance.flatten()
        x = flat.index_select(0, first)
        z = torch.linalg.cross(x, flat.index_select(0, second))
        sine_squared = (z * z).sum(dim=1)
        eligible = quintic((sine_squared - self.collinear) / self.collinear_width)
        count = eligible * flat_switch.index_select(0, first) * flat_switch.index_select(0, second)
        zeta = (asymmetry.index_select(0, atom) * z).sum(dim=1)
        cost = self.axis_cost * flat_distance.index_select(0, first)
        cost = cost + flat_distance.index_select(0, second)
        cost = cost + self.oblique * (1.0 - sine_squared)
        cost = torch.cat([cost + self.wrong_side(zeta), cost + self.wrong_side(-zeta)])
        of_frame, count = torch.cat([atom, atom]), torch.cat([count, count])

        n_atoms, largest = distance.shape[0], self.largest
        level = adaptive_level(
            cost, count, of_frame, n_atoms, self.width, largest, self.derivatives
        )
        score = count * quintic((level.index_select(0, of_frame) - cost) / self.width)
        total = torch.zeros_like(level).index_add(0, of_frame, score)
        missing = (1.0 - total / self.fallback).clamp(min=0.0) ** 3
        share = 1.0 / (total + missing)
        radius = adaptive_radius(
            distance, switch, self.width, self.cutoff + self.width, self.derivatives
        )
        axis_atom, axis, axis_weight, isolated = nearest_axes(
            radius, self.width, unit, missing * share, environment
        )

        z = z / sine_squared.sqrt().unsqueeze(1)
        y = torch.linalg.cross(z, x)
        used = torch.nonzero(score.detach() > 0.0).squeeze(1)
        both = torch.cat([torch.stack([x, y, z], dim=2), torch.stack([x, y, -z], dim=2)])
        no_axis = torch.zeros_like(axis)
        nothing = torch.zeros(isolated.shape[0], 3, 3, dtype=x.dtype, device=x.device)
        atoms = torch.cat([of_frame.index_select(0, used), axis_atom, isolated])
        matrix = torch.cat(
            [both.index_select(0, used), torch.stack([axis, no_axis, no_axis], dim=2), nothing]
        )
        weight = torch.cat(
            [
                (score * share.index_select(0, of_frame)).index_select(0, used),
                axis_weight,
                torch.ones_like(nothing[:, 0, 0]),
            ]
        )
        return order_frames(atoms, matrix, weight)

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
        cost = self.axis_cost * distance.unsqueeze(2) + distance.unsqueeze(1)
        cost = cost + self.oblique * cosine * cosine
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
    cost: Tensor,
    count: Tensor,
    atom: Tensor,
    n_atoms: int,
    width: float,
    largest: float,
    derivatives: int = 2,
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
        derivatives: How many derivatives of the result are exact, 1 or 2.

    Returns:
        L, (N,).
    """
    c, f = cost.detach(), count.detach()
    level = _solve(c, f, atom, n_atoms, width, largest)
    value, slopes = quintic_and_slope((level.index_select(0, atom) - c) / width)
    slopes.mul_(f).div_(width)
    slope = level.square().mul_(3.0 / largest**3).index_add(0, atom, slopes)
    if derivatives < 2:
        change = slopes * (cost - c) - value * (count - f)
        return level + torch.zeros_like(level).index_add(0, atom, change) / slope
    # Each step with a constant slope makes one more derivative of the implicit function exact.
    for _ in range(2):
        held = count * quintic((level.index_select(0, atom) - cost) / width)
        level = level - ((level / largest) ** 3 - 1.0).index_add(0, atom, held) / slope
    return level


def _solve(
    cost: Tensor, count: Tensor, atom: Tensor, n_atoms: int, width: float, largest: float
) -> Tensor:
    """The level to round-off."""
    # Nothing is held below the cheapest row; the level of an atom without rows is the largest.
    low = torch.full([n_atoms], largest, dtype=cost.dtype, device=cost.device)
    full = torch.where(count == 1.0, cost + width, largest)
    high = low.scatter_reduce(0, atom, full, "amin")
    near = torch.where(count > 0.0, cost, largest)
    search = start_search(low.scatter_reduce(0, atom, near, "amin"), high, width)
    if n_atoms == 0:
        return low
    nothing = torch.zeros_like(low)
    for k in range(100):
        x = search.root.index_select(0, atom).sub_(cost).div_(width)
        value, slope = quintic_and_slope(x)
        held = nothing.index_add(0, atom, value.mul_(count))
        slope = nothing.index_add(0, atom, slope.mul_(count).div_(width))
        search = next_search(search, held, slope, largest)
        if is_found(search, k, largest):
            break
    return search.root
