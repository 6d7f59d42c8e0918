"""The axis-plane ensemble: frames from a nearest neighbour and a second one beside it."""

import torch
from torch import Tensor, nn

from pet_mlip.ecse.frames import Frames, order_frames
from pet_mlip.ecse.hypers import AxisPlaneHypers
from pet_mlip.ecse.switches import adaptive_radius, quintic
from pet_mlip.graph.environment import Environment


class AxisPlane(nn.Module):
    """Frames (u_j, e_z x u_j, +-e_z), e_z = u_j x u_k / |u_j x u_k|, of neighbours j and k.

    The axis j is among the nearest neighbours, k among the nearest ones not collinear with j: each
    within a radius that adapts so that it holds about one neighbour. Where no plane exists the
    projector on the axis takes over. All weights are smooth functions of the positions that sum to
    one, and the ensemble of a rotated or mirrored environment is the rotated or mirrored ensemble.
    """

    def __init__(self, cutoff: float, hypers: AxisPlaneHypers, derivatives: int = 2) -> None:
        super().__init__()
        self.derivatives = derivatives
        self.cutoff = cutoff
        self.axis_width = hypers.axis_width
        self.plane_width = hypers.plane_width
        self.collinear = hypers.collinear
        self.collinear_width = hypers.collinear_width
        self.handedness_width = hypers.handedness_width
        self.fallback = hypers.fallback
        self.core = min(1.0, 0.5 * cutoff)

    def forward(self, environment: Environment) -> Frames:
        """Frames of every atom; see the class."""
        distance, switch, vectors = environment.distance, environment.switch, environment.vectors
        largest = self.cutoff + self.axis_width
        radius = adaptive_radius(distance, switch, self.axis_width, largest, self.derivatives)
        axis_score = quintic((radius[:, None] - distance) / self.axis_width) * switch
        total = axis_score.sum(dim=1)

        axis_atom, axis_slot = torch.nonzero(axis_score.detach() > 0.0).unbind(1)
        place = axis_atom * distance.shape[1] + axis_slot
        axis_weight = axis_score.flatten().index_select(0, place) / total.index_select(0, axis_atom)
        length = distance.flatten().index_select(0, place)
        axis = vectors.flatten(0, 1).index_select(0, place) / length.unsqueeze(1)
        normal, plane_score = self.score_planes(axis, axis_atom, environment)
        plane_total = plane_score.sum(dim=1)
        missing = (1.0 - plane_total / self.fallback).clamp(min=0.0) ** 3
        share = axis_weight / (plane_total + missing)

        pair_axis, pair_slot = torch.nonzero(plane_score.detach() > 0.0).unbind(1)
        place = pair_axis * distance.shape[1] + pair_slot
        pair_weight = plane_score.flatten().index_select(0, place)
        pair_weight = pair_weight * share.index_select(0, pair_axis)
        pair_atom = axis_atom.index_select(0, pair_axis)
        z = normal.flatten(0, 1).index_select(0, place)
        z = z / torch.linalg.vector_norm(z, dim=1, keepdim=True)
        x = axis.index_select(0, pair_axis)
        y = torch.linalg.cross(z, x)
        asymmetry = self.asymmetry(environment).index_select(0, pair_atom)
        zeta = (asymmetry * z).sum(dim=1) / self.handedness_width
        right = quintic(0.5 * (1.0 + zeta))
        left = quintic(0.5 * (1.0 - zeta))
        of_right = torch.nonzero(right.detach() > 0.0).squeeze(1)
        of_left = torch.nonzero(left.detach() > 0.0).squeeze(1)
        of_axis = torch.nonzero(missing.detach() > 0.0).squeeze(1)
        isolated = torch.nonzero(total.detach() == 0.0).squeeze(1)

        lone = axis.index_select(0, of_axis)
        no_axis = torch.zeros_like(lone)
        nothing = torch.zeros(isolated.shape[0], 3, 3, dtype=axis.dtype, device=axis.device)
        matrix = torch.cat(
            [
                torch.stack([x, y, z], dim=2).index_select(0, of_right),
                torch.stack([x, y, -z], dim=2).index_select(0, of_left),
                torch.stack([lone, no_axis, no_axis], dim=2),
                nothing,
            ]
        )
        weight = torch.cat(
            [
                (pair_weight * right).index_select(0, of_right),
                (pair_weight * left).index_select(0, of_left),
                (share * missing).index_select(0, of_axis),
                torch.ones_like(nothing[:, 0, 0]),
            ]
        )
        atom = torch.cat([pair_atom[of_right], pair_atom[of_left], axis_atom[of_axis], isolated])
        return order_frames(atom, matrix, weight)

    def score_planes(
        self, axis: Tensor, axis_atom: Tensor, environment: Environment
    ) -> tuple[Tensor, Tensor]:
        """Normals u_j x r_k (A, M, 3) and scores s(r_k; R2_j) q_jk (A, M) of each axis' planes."""
        distance = environment.distance.index_select(0, axis_atom)
        vectors = environment.vectors.index_select(0, axis_atom)
        normal = torch.linalg.cross(axis.unsqueeze(1), vectors)
        sine_squared = (normal * normal).sum(dim=2) / (distance * distance)
        eligible = quintic((sine_squared - self.collinear) / self.collinear_width)
        eligible = eligible * environment.switch.index_select(0, axis_atom)
        largest = self.cutoff + self.plane_width
        radius = adaptive_radius(distance, eligible, self.plane_width, largest, self.derivatives)
        return normal, quintic((radius[:, None] - distance) / self.plane_width) * eligible

    def asymmetry(self, environment: Environment) -> Tensor:
        """sum_l omega(r_l) f_l u_l, (N, 3): omega is 1 in the core and falls to 0 at the cutoff."""
        omega = quintic((self.cutoff - environment.distance) / (self.cutoff - self.core))
        # With adaptive cutoffs, neighbours appear and disappear before the cutoff.
        omega = omega * environment.switch / environment.distance
        return (omega.unsqueeze(2) * environment.vectors).sum(dim=1)


class Plain(nn.Module):
    """The ensemble of the unsymmetrized model: the identity, for every atom."""

    def forward(self, environment: Environment) -> Frames:
        """One identity matrix of weight one per atom."""
        n_atoms = environment.distance.shape[0]
        device = environment.distance.device
        eye = torch.eye(3, dtype=torch.float64, device=device).expand(n_atoms, 3, 3)
        weight = torch.ones(n_atoms, dtype=torch.float64, device=device)
        return Frames(torch.arange(n_atoms, device=device), eye, weight)
