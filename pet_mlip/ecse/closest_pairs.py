"""The closest-pairs ensemble: frames from the ordered pairs of neighbours that cost least."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pet_mlip.ecse.axes import Axes, nearest_axes, nearest_axes_vjp
from pet_mlip.ecse.frames import Frames
from pet_mlip.ecse.hypers import ClosestPairsHypers
from pet_mlip.ecse.level import Level, find_level, level_vjp, select_rows
from pet_mlip.ecse.switches import quintic, quintic_and_slope
from pet_mlip.graph.environment import Environment, EnvironmentGradient


class Pairs(NamedTuple):
    """Ordered pairs j, k of neighbours, one row each, from which a right or a left frame is made.

    Places are those among the N x M of the environments.
    """

    atom: Tensor
    """(P,) int64."""
    first: Tensor
    """Place of j, (P,) int64."""
    second: Tensor
    """Place of k, (P,) int64."""
    sign: Tensor
    """1 for the frame with z = u_j x u_k / |u_j x u_k|, -1 for its mirror image, (P,) float64."""


class Saved(NamedTuple):
    """What the derivative of the ensemble is made of."""

    environment: Environment
    unit: Tensor
    """u, (N M, 3)."""
    asymmetry: Tensor
    """(N, 3)."""
    pairs: Pairs
    """Of the P frames that pairs make."""
    level: Level
    """With the rows of these frames."""
    score: Tensor
    """(P,)."""
    share: Tensor
    """What the scores of each atom are multiplied by, (N,)."""
    missing: Tensor
    """What the scores of each atom lack, (N,)."""
    gap: Tensor
    """Where that comes from, 1 - total / fallback or zero, (N,)."""
    axes: list[Axes]
    """Where some atom lacks a plane; else none."""
    order: Tensor
    """Of the frames of pairs, axes and isolated atoms, in order of atoms; where there are axes."""


class ClosestPairs(nn.Module):
    """Frames (u_j, e_z x u_j, +-e_z), e_z = u_j x u_k / |u_j x u_k|, of the cheapest pairs j, k.

    A frame costs a r_j + r_k, something if the pair is oblique, and something if e_z points away
    from the side on which most neighbours are. Since a > 1, the nearer of the two is the axis. A
    level that adapts until about one frame is below it, and a margin, decide on all of this at
    once, so that a frame that is second best in several ways is gone. Where no pair makes a plane,
    the projectors on the nearest neighbours take over. All weights are smooth functions of the
    positions that sum to one, and the ensemble of a rotated or mirrored environment is the rotated
    or mirrored ensemble.
    """

    def __init__(self, cutoff: float, hypers: ClosestPairsHypers) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.width = hypers.width
        self.margin = hypers.margin
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
        self.first_look = 16

    def forward(self, environment: Environment) -> Frames:
        """Find the frames of every atom, twice differentiable in the environments."""
        return self.find(environment)[0]

    def find(self, environment: Environment) -> tuple[Frames, Saved]:
        """Find the frames of every atom, and what `vjp` needs."""
        n_atoms = environment.distance.shape[0]
        unit = environment.vectors / environment.distance.unsqueeze(2)
        asymmetry = self.asymmetry(unit, environment)
        atom, first, second = self.candidates(unit.detach(), asymmetry.detach(), environment)
        unit = unit.flatten(0, 1)
        distance, switch = environment.distance.flatten(), environment.switch.flatten()
        x, other = unit.index_select(0, first), unit.index_select(0, second)
        cost, count = self.costs(
            (x * other).sum(dim=1),
            distance.index_select(0, first),
            distance.index_select(0, second),
            switch.index_select(0, first),
            switch.index_select(0, second),
        )
        normal = torch.linalg.cross(x, other)
        zeta = (asymmetry.index_select(0, atom) * normal).sum(dim=1)
        # Each pair makes two frames, of either handedness.
        both = self.wrong_side(torch.stack([zeta, -zeta], dim=1))
        cost = (cost.unsqueeze(1) + both).flatten()
        count = count.unsqueeze(1).expand(-1, 2).flatten()
        of_frame = atom.unsqueeze(1).expand(-1, 2).flatten()
        level = find_level(cost, count, of_frame, n_atoms, self.width, self.largest, self.margin)
        score = count * level.held
        total = torch.zeros_like(level.slope).index_add(0, of_frame, score)
        gap = (1.0 - total / self.fallback).clamp(min=0.0)
        missing = gap**3
        share = 1.0 / (total + missing)

        used = torch.nonzero(score.detach() > 0.0).squeeze(1)
        pair = torch.div(used, 2, rounding_mode="floor")
        sign = (1 - 2 * (used % 2)).to(score.dtype)
        pairs = Pairs(
            atom.index_select(0, pair),
            first.index_select(0, pair),
            second.index_select(0, pair),
            sign,
        )
        score = score.index_select(0, used)
        x, z = x.index_select(0, pair), normal.index_select(0, pair)
        z = z / torch.linalg.vector_norm(z, dim=1, keepdim=True)
        y = torch.linalg.cross(z, x)
        frames = Frames(
            pairs.atom,
            torch.stack([x, y, sign.unsqueeze(1) * z], dim=2),
            score * share.index_select(0, pairs.atom),
        )
        level = select_rows(level, used)
        axes: list[Axes] = []
        order = used
        incomplete = missing.detach() > 0.0
        if bool(incomplete.any()):
            found = nearest_axes(environment, incomplete, self.width, self.cutoff + self.width)
            axes.append(found)
            order = torch.argsort(torch.cat([pairs.atom, found.atom, found.isolated]), stable=True)
            frames = self.with_axes(frames, found, unit, missing * share, order)
        saved = Saved(
            environment,
            unit,
            asymmetry,
            pairs,
            level,
            score,
            share,
            missing,
            gap,
            axes,
            order,
        )
        return frames, saved

    def vjp(self, grad_matrix: Tensor, grad_weight: Tensor, saved: Saved) -> EnvironmentGradient:
        """Take a gradient over matrices and weights of the frames back to the environments.

        Args:
            grad_matrix: (F, 3, 3) float64.
            grad_weight: (F,) float64.
            saved: From `find`.
        """
        pairs, n_pairs = saved.pairs, saved.pairs.atom.shape[0]
        if len(saved.axes) > 0:
            # In the order of pairs, axes and isolated atoms.
            place = torch.argsort(saved.order)
            grad_matrix = grad_matrix.index_select(0, place)
            grad_weight = grad_weight.index_select(0, place)
        of_pairs = grad_weight[:n_pairs]
        nothing = torch.zeros_like(saved.share)
        grad_share = nothing.index_add(0, pairs.atom, of_pairs * saved.score)
        grad_total = -saved.share.square() * grad_share
        places: list[Tensor] = []
        rows: list[Tensor] = []
        for axes in saved.axes:
            end = n_pairs + axes.atom.shape[0]
            of_axes = grad_weight[n_pairs:end]
            grad_taken = nothing.index_add(0, axes.atom, of_axes * axes.share)
            # The axes take missing * share, and share = 1 / (total + missing).
            grad_share = grad_share + grad_taken * saved.missing
            grad_total = -saved.share.square() * grad_share
            grad_missing = grad_total + grad_taken * saved.share
            grad_total = grad_total - grad_missing * (3.0 / self.fallback) * saved.gap.square()
            taken = (saved.missing * saved.share).index_select(0, axes.atom)
            of_distance, of_switch = nearest_axes_vjp(of_axes * taken, axes)
            places.append(axes.place)
            rows.append(_rows(grad_matrix[n_pairs:end, :, 0], of_distance, of_switch))
        grad_score = of_pairs * saved.share.index_select(0, pairs.atom)
        grad_score = grad_score + grad_total.index_select(0, pairs.atom)
        of_first, of_second, of_asymmetry = self.pairs_vjp(grad_matrix[:n_pairs], grad_score, saved)
        places += [pairs.first, pairs.second]
        rows += [of_first, of_second]
        total = torch.zeros(
            saved.unit.shape[0], 5, dtype=saved.unit.dtype, device=saved.unit.device
        ).index_add(0, torch.cat(places), torch.cat(rows))
        return self.through_asymmetry(total, of_asymmetry, saved)

    def pairs_vjp(
        self, grad_matrix: Tensor, grad_score: Tensor, saved: Saved
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take gradients over the frames of pairs (P, 3, 3) and scores (P,) back to both atoms.

        Returns:
            Over u, distance and switch of j, (P, 5), and of k, (P, 5); over the asymmetry, (N, 3).
        """
        pairs = saved.pairs
        switch = saved.environment.switch.flatten()
        x, other = saved.unit.index_select(0, pairs.first), saved.unit.index_select(0, pairs.second)
        normal = torch.linalg.cross(x, other)
        cosine = (x * other).sum(dim=1)
        asymmetry = saved.asymmetry.index_select(0, pairs.atom)
        grad_cost, grad_count = level_vjp(grad_score, saved.level, pairs.atom)

        eligible, slope = quintic_and_slope(
            (1.0 - self.collinear - cosine.square()) / self.collinear_width
        )
        first, second = switch.index_select(0, pairs.first), switch.index_select(0, pairs.second)
        grad_cosine = self.oblique * grad_cost
        grad_cosine = grad_cosine - grad_count * (first * second * slope / self.collinear_width)
        grad_cosine = (2.0 * grad_cosine * cosine).unsqueeze(1)
        zeta = pairs.sign * (asymmetry * normal).sum(dim=1)
        _, slope = quintic_and_slope(0.5 * (1.0 - zeta / self.handedness_width))
        slope = slope * pairs.sign * (-0.5 * self.handedness / self.handedness_width)
        grad_zeta = (grad_cost * slope).unsqueeze(1)

        length = torch.linalg.vector_norm(normal, dim=1, keepdim=True)
        z = normal / length
        grad_x, grad_y = grad_matrix[:, :, 0], grad_matrix[:, :, 1]
        grad_z = pairs.sign.unsqueeze(1) * grad_matrix[:, :, 2] + torch.linalg.cross(x, grad_y)
        grad_normal = (grad_z - z * (z * grad_z).sum(dim=1, keepdim=True)) / length
        grad_normal = grad_normal + grad_zeta * asymmetry
        grad_x = grad_x + torch.linalg.cross(grad_y, z) + torch.linalg.cross(other, grad_normal)
        grad_x = grad_x + grad_cosine * other
        grad_other = torch.linalg.cross(grad_normal, x) + grad_cosine * x
        grad_count = grad_count * eligible
        of_asymmetry = torch.zeros_like(saved.asymmetry)
        return (
            _rows(grad_x, self.axis_cost * grad_cost, grad_count * second),
            _rows(grad_other, grad_cost, grad_count * first),
            of_asymmetry.index_add(0, pairs.atom, grad_zeta * normal),
        )

    def through_asymmetry(
        self, grad: Tensor, grad_asymmetry: Tensor, saved: Saved
    ) -> EnvironmentGradient:
        """Add what comes through the asymmetry (N, 3), and go from u back to the vectors."""
        distance, switch = saved.environment.distance, saved.environment.switch
        unit = saved.unit.reshape(distance.shape[0], distance.shape[1], 3)
        grad = grad.reshape(distance.shape[0], distance.shape[1], 5)
        fall = self.cutoff - self.core
        omega, slope = quintic_and_slope((self.cutoff - distance) / fall)
        grad_weight = (unit * grad_asymmetry.unsqueeze(1)).sum(dim=2)
        grad_unit = grad[:, :, :3]
        grad_unit = grad_unit + (omega * switch).unsqueeze(2) * grad_asymmetry.unsqueeze(1)
        grad_vectors = grad_unit / distance.unsqueeze(2)
        grad_distance = grad[:, :, 3] - (grad_vectors * unit).sum(dim=2)
        grad_distance = grad_distance - grad_weight * (switch * slope / fall)
        return EnvironmentGradient(grad_vectors, grad_distance, grad[:, :, 4] + grad_weight * omega)

    def with_axes(
        self, frames: Frames, axes: Axes, unit: Tensor, taken: Tensor, order: Tensor
    ) -> Frames:
        """Add projectors on axes, which take some of each atom's weight (N,), and zero matrices."""
        axis = unit.index_select(0, axes.place)
        no_axis = torch.zeros_like(axis)
        nothing = torch.zeros(axes.isolated.shape[0], 3, 3, dtype=unit.dtype, device=unit.device)
        atom = torch.cat([frames.atom, axes.atom, axes.isolated])
        matrix = torch.cat([frames.matrix, torch.stack([axis, no_axis, no_axis], dim=2), nothing])
        weight = torch.cat(
            [
                frames.weight,
                axes.share * taken.index_select(0, axes.atom),
                torch.ones_like(nothing[:, 0, 0]),
            ]
        )
        return Frames(
            atom.index_select(0, order),
            matrix.index_select(0, order),
            weight.index_select(0, order),
        )

    def costs(
        self, cosine: Tensor, r_j: Tensor, r_k: Tensor, f_j: Tensor, f_k: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Find what pairs cost, without the side, and how much they count, in [0, 1].

        Args:
            cosine: u_j . u_k of each.
            r_j: Distance of the axis in Å.
            r_k: Distance of the other atom in Å.
            f_j: Switch of the axis.
            f_k: Switch of the other atom.
        """
        cosine_squared = cosine.square()
        eligible = quintic((1.0 - self.collinear - cosine_squared) / self.collinear_width)
        cost = self.axis_cost * r_j + r_k + self.oblique * cosine_squared
        return cost, eligible * f_j * f_k

    def candidates(
        self, unit: Tensor, asymmetry: Tensor, environment: Environment
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Find the pairs that could lie below the level.

        Returns:
            Atom, and j and k among the N M places, (P,) each; ordered by the atom.
        """
        n_atoms, n_places = environment.distance.shape
        near = self.near_places(unit, asymmetry, environment)
        cost, count = self.pair_costs(unit, asymmetry, environment, near)
        below = (count > 0.0) & (cost < self.bound(cost, count)[:, None, None])
        atom, first, second = torch.nonzero(below).t().unbind(0)
        near = near + n_places * torch.arange(n_atoms, device=near.device).unsqueeze(1)
        return atom, near[atom, first], near[atom, second]

    def near_places(self, unit: Tensor, asymmetry: Tensor, environment: Environment) -> Tensor:
        """Find the places (N, K) of the nearest neighbours, all that a candidate can have.

        No frame costs less than its distances alone: after a look at the pairs of a few neighbours,
        most of the others are too far away.
        """
        n_atoms, n_places = environment.distance.shape
        counts = environment.switch.detach() > 0.0
        distance = environment.distance.detach().masked_fill(~counts, float("inf"))
        ascending, order = distance.sort(dim=1)
        if n_places <= self.first_look or n_atoms == 0:
            return order
        first = order[:, : self.first_look]
        cost, count = self.pair_costs(unit, asymmetry, environment, first)
        reach = self.bound(cost, count) - self.axis_cost * ascending[:, 0]
        return order[:, : int((ascending < reach.unsqueeze(1)).sum(dim=1).max())]

    def pair_costs(
        self, unit: Tensor, asymmetry: Tensor, environment: Environment, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Find what pairs of some places (N, K) cost at least, and count, (N, K, K) each."""
        unit = unit.gather(1, places.unsqueeze(2).expand(-1, -1, 3))
        distance = environment.distance.detach().gather(1, places)
        switch = environment.switch.detach().gather(1, places)
        cost, count = self.costs(
            unit @ unit.transpose(1, 2),
            distance.unsqueeze(2),
            distance.unsqueeze(1),
            switch.unsqueeze(2),
            switch.unsqueeze(1),
        )
        turned = torch.linalg.cross(asymmetry.unsqueeze(1).expand_as(unit), unit)
        zeta = turned @ unit.transpose(1, 2)
        return cost + self.wrong_side(zeta.abs()), count

    def bound(self, cost: Tensor, count: Tensor) -> Tensor:
        """Find below which cost frames may be held, (N,), from pairs (N, K, K) or some of them."""
        # A frame that counts fully holds the level below its own cost plus the width.
        full = torch.where(count == 1.0, cost, self.largest).flatten(1)
        cheapest = torch.nn.functional.pad(full, [0, 1], value=self.largest).amin(dim=1)
        return cheapest + self.width + self.margin

    def wrong_side(self, zeta: Tensor) -> Tensor:
        """Cost of a frame with zeta = sum_l omega(r_l) u_l . z |u_j x u_k|."""
        return self.handedness * quintic(0.5 * (1.0 - zeta / self.handedness_width))

    def asymmetry(self, unit: Tensor, environment: Environment) -> Tensor:
        """sum_l omega(r_l) f_l u_l, (N, 3): omega is 1 in the core and falls to 0 at the cutoff."""
        omega = quintic((self.cutoff - environment.distance) / (self.cutoff - self.core))
        # With adaptive cutoffs, neighbours appear and disappear before the cutoff.
        omega = omega * environment.switch
        return (omega.unsqueeze(2) * unit).sum(dim=1)


def _rows(of_unit: Tensor, of_distance: Tensor, of_switch: Tensor) -> Tensor:
    """Gradients over u (P, 3), distance (P,) and switch (P,) side by side, (P, 5)."""
    return torch.cat([of_unit, torch.stack([of_distance, of_switch], dim=1)], dim=1)
