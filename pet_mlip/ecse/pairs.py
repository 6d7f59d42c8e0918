"""The pair ensemble of the paper: frames from all ordered pairs inside one inner radius."""

import torch
from torch import Tensor, nn

from pet_mlip.ecse.axes import nearest_axes
from pet_mlip.ecse.frames import Frames
from pet_mlip.ecse.hypers import PairsHypers
from pet_mlip.ecse.switches import quintic
from pet_mlip.model.environment import Environment

# Lambert's W(1/e), the largest value of x / (1 + exp(x)): by how much a smooth maximum falls short.
SHORTFALL = 0.2784645427610738


class Pairs(nn.Module):
    """Frames (u_j, e_z x u_j, +-e_z), e_z = u_j x u_k / |u_j x u_k|, of all pairs in a radius.

    The inner radius is a smooth minimum, over the pairs that are not collinear, of the distance of
    the farther neighbour; it never lies below that of the best pair. Pruning (off by default) drops
    pairs that score far below a smooth maximum of the scores. Where no pair makes a plane, the
    projectors on the nearest neighbours take over, as in `AxisPlane`. With mirrors the ensemble is
    exact under O(3), without them under rotations only.
    """

    def __init__(self, cutoff: float, hypers: PairsHypers) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.smoothing = hypers.smoothing
        self.shortfall = SHORTFALL / hypers.smoothing
        self.width = hypers.width
        self.collinear = hypers.collinear
        self.collinear_width = hypers.collinear_width
        self.fallback = hypers.fallback
        self.mirrors = hypers.mirrors
        self.pruning_rounds = hypers.pruning_rounds
        self.pruning_threshold = hypers.pruning_threshold
        self.pruning_width = hypers.pruning_width

    def forward(self, environment: Environment) -> Frames:
        """Frames of every atom; see the class."""
        unit = environment.vectors / environment.distance.unsqueeze(2)
        score = self.score_pairs(unit, environment)
        for _ in range(self.pruning_rounds):
            score = self.prune(score)
        total = score.sum(dim=[1, 2])
        missing = (1.0 - total / self.fallback).clamp(min=0.0) ** 3
        share = 1.0 / (total + missing)
        radius = self.inner_radius(environment.distance, environment.switch)
        axis_atom, axis, axis_weight, isolated = nearest_axes(
            radius, self.width, unit, missing * share, environment
        )

        atom, first, second = torch.nonzero(score.detach() > 0.0).unbind(1)
        weight = score[atom, first, second] * share[atom]
        x = unit[atom, first]
        z = torch.linalg.cross(x, unit[atom, second])
        z = z / torch.linalg.vector_norm(z, dim=1, keepdim=True)
        y = torch.linalg.cross(z, x)
        atoms, matrices, weights = [atom], [torch.stack([x, y, z], dim=2)], [weight]
        if self.mirrors:
            atoms, weights = [atom, atom], [0.5 * weight, 0.5 * weight]
            matrices.append(torch.stack([x, y, -z], dim=2))

        no_axis = torch.zeros_like(axis)
        nothing = torch.zeros(isolated.shape[0], 3, 3, dtype=x.dtype, device=x.device)
        matrices.extend([torch.stack([axis, no_axis, no_axis], dim=2), nothing])
        weights.extend([axis_weight, torch.ones_like(nothing[:, 0, 0])])
        atoms.extend([axis_atom, isolated])
        all_atoms = torch.cat(atoms)
        order = torch.argsort(all_atoms, stable=True)
        return Frames(all_atoms[order], torch.cat(matrices)[order], torch.cat(weights)[order])

    def score_pairs(self, unit: Tensor, environment: Environment) -> Tensor:
        """s(r_j; R) s(r_k; R) q_jk f_j f_k of the pairs of each atom, (N, M, M)."""
        distance, switch = environment.distance, environment.switch
        cosine = unit @ unit.transpose(1, 2)
        eligible = quintic((1.0 - cosine * cosine - self.collinear) / self.collinear_width)
        eligible = eligible * switch.unsqueeze(2) * switch.unsqueeze(1)
        difference = distance.unsqueeze(2) - distance.unsqueeze(1)
        farther = distance.unsqueeze(1) + torch.sigmoid(self.smoothing * difference) * difference
        farther = farther + self.shortfall
        # Every pair appears in both orders, hence the half.
        radius = self.inner_radius(farther.flatten(1), 0.5 * eligible.flatten(1))
        inside = quintic((radius[:, None] - distance) / self.width)
        return eligible * inside.unsqueeze(2) * inside.unsqueeze(1)

    def inner_radius(self, values: Tensor, weights: Tensor) -> Tensor:
        """Smooth minimum of the values (N, K) and of the cutoff, plus the switch's width, (N,)."""
        decay = weights * torch.exp(-self.smoothing * (values - self.cutoff))
        smallest = ((decay * values).sum(dim=1) + self.cutoff) / (decay.sum(dim=1) + 1.0)
        return smallest + self.width

    def prune(self, score: Tensor) -> Tensor:
        """Scores (N, M, M) without those far below their smooth maximum."""
        weighted = score * torch.exp(score)
        total = weighted.sum(dim=[1, 2], keepdim=True)
        largest = (weighted * score).sum(dim=[1, 2], keepdim=True)
        exists = total.detach() > 0.0
        # Without any pair the factor does not matter; these values keep its gradient finite.
        largest = torch.where(exists, largest, torch.ones_like(largest))
        relative = score * torch.where(exists, total, torch.ones_like(total)) / largest
        return score * quintic((relative - self.pruning_threshold) / self.pruning_width)
