"""The neighbour density: what each neighbour is told of the angles to all others.

With the cutoff function f, directions u, Legendre polynomials P_l, and the hidden values s of the
edges of an atom i,

    b_ij = V [ d_ij sum_k f_ik c_ik P_l(u_ij . u_ik) ]_l ,    (c_ij, d_ij) = G silu(s_ij) + g :

products of two functions, one of each edge, and of one of the angle between them, which are the
three-body terms of an atomic cluster expansion (Drautz, Phys. Rev. B 99, 014104, 2019). They are
invariant whatever the frames are. By the addition theorem of spherical harmonics the sum over k is

    sum_m Y_lm(u_ij) A_lm ,    A_lm = sum_k Y_lm(u_ik) f_ik c_ik ,

so that time grows with the number of neighbours and not with its square.

As b is of third order in the hidden values and grows with the number of neighbours, nothing would
keep it from becoming so large that attention saturates, and energies change within millionths of
an Å. Beyond a bound B it is shortened: b / sqrt(1 + mean(b^2) / B^2).
"""

import math

import torch
from torch import Tensor, nn

from pet_mlip.graph.hypers import PETHypers
from pet_mlip.network.functions import silu, silu_vjp
from pet_mlip.network.linear import Linear
from pet_mlip.network.products import multiply


class Density(nn.Module):
    """Add b to the hidden values of the edges."""

    is_of_degree: Tensor
    """1 where a harmonic is of a degree, ((L + 1)^2, L + 1)."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        self.n_channels = hypers.density_channels
        self.n_degrees = hypers.density_degree + 1
        self.bound = hypers.density_bound if hypers.density_bound is not None else math.inf
        self.rounding = False
        self.collect = Linear(hypers.d_pet, 2 * self.n_channels)
        self.spread = Linear(self.n_channels * self.n_degrees, hypers.d_pet)
        degrees = torch.arange(self.n_degrees)
        is_of_degree = torch.repeat_interleave(torch.eye(self.n_degrees), 2 * degrees + 1, dim=0)
        self.register_buffer("is_of_degree", is_of_degree, persistent=False)

    def forward(
        self, hidden: Tensor, switch: Tensor, harmonics: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return s + b, b shortened, and what `vjp` needs.

        Args:
            hidden: s, (n, M, D).
            switch: f, zero in empty places, (n, M, 1).
            harmonics: Y(u), (n, M, (L + 1)^2).
        """
        both = self.collect(silu(hidden)).to(hidden.dtype)
        channels, own = both[..., : self.n_channels], both[..., self.n_channels :]
        density = multiply(harmonics.transpose(1, 2), channels * switch, self.rounding)
        seen = multiply(harmonics, self.by_degree(density), self.rounding)
        seen = seen.view(seen.shape[0], seen.shape[1], self.n_channels, self.n_degrees)
        found = self.spread((seen * own.unsqueeze(3)).flatten(2)).to(hidden.dtype)
        factor = torch.rsqrt(1.0 + (found / self.bound).square().mean(dim=2, keepdim=True))
        found = found * factor
        return hidden + found, [hidden, both, density, seen, found, factor]

    def vjp(
        self, grad: Tensor, switch: Tensor, harmonics: Tensor, saved: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the gradient over hidden values, log f (n, M) and harmonics."""
        hidden, both, density, seen = saved[0], saved[1], saved[2], saved[3]
        found, factor = saved[4], saved[5]
        channels, own = both[..., : self.n_channels], both[..., self.n_channels :]
        # Of y = b f with f = (1 + mean(b^2) / B^2)^(-1/2): f (g - y mean(g y) / B^2).
        along = (grad * found).mean(dim=2, keepdim=True) / (self.bound * self.bound)
        of_found = (grad - found * along) * factor
        grad_seen = self.spread.vjp(of_found).to(hidden.dtype).view_as(seen)
        grad_own = (grad_seen * seen).sum(dim=3)
        grad_seen = (grad_seen * own.unsqueeze(3)).flatten(2)
        grad_harmonics = multiply(grad_seen, self.by_degree(density).transpose(1, 2), self.rounding)
        grad_density = multiply(harmonics.transpose(1, 2), grad_seen, self.rounding)
        grad_density = grad_density.view(
            density.shape[0], density.shape[1], self.n_channels, self.n_degrees
        )
        grad_density = (grad_density * self.is_of_degree.to(grad.dtype).unsqueeze(1)).sum(dim=3)
        grad_harmonics = grad_harmonics + multiply(
            channels * switch, grad_density.transpose(1, 2), self.rounding
        )
        grad_channels = multiply(harmonics, grad_density, self.rounding) * switch
        grad_logs = (grad_channels * channels).sum(dim=2)
        through = self.collect.vjp(torch.cat([grad_channels, grad_own], dim=2)).to(hidden.dtype)
        return grad + silu_vjp(through, hidden), grad_logs, grad_harmonics

    def by_degree(self, density: Tensor) -> Tensor:
        """Return A (n, (L + 1)^2, K) in a column for each degree, (n, (L + 1)^2, K (L + 1))."""
        own = self.is_of_degree.to(density.dtype).unsqueeze(1)
        return (density.unsqueeze(3) * own).flatten(2)


class NoDensity(nn.Module):
    """Of networks without: metatrain's."""

    def forward(
        self, hidden: Tensor, switch: Tensor, harmonics: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the hidden values as they are."""
        nothing: list[Tensor] = []
        return hidden, nothing

    def vjp(
        self, grad: Tensor, switch: Tensor, harmonics: Tensor, saved: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient as it is, and zeros."""
        return grad, torch.zeros_like(switch).squeeze(2), torch.zeros_like(harmonics)
