"""Uncertainty of energies from the last features: last-layer prediction rigidity.

The energy is linear in the weights of the last layers, E = sum_i w^T f_i with the last features f_i
of the atoms, so that a curvature C over w tells how far training data have fixed them. The
posterior of w is a Gaussian of covariance alpha^2 C^-1 (Bigi, Chong, Ceriotti, Grasselli, Mach.
Learn.: Sci. Technol. 5, 045018 (2024)). Features are measured from their mean m over the training
atoms of the same element, what a constant of each element would take up: a_i = A (f_i - m_i) with
A^T A = alpha^2 C^-1 is how far an atom's environment lies from the training data, in eV.

That the weights are uncertain is an error of first order in this distance. Far away what the other
layers make of an environment is wrong too, which is one of second order, and nothing in C knows of
it. So the distance counts the more the longer it is,

    sigma^2(E) = |sum_i g_i a_i|^2 ,    g_i^2 = 1 + |a_i|^2 / t_i ,

with t = <|a|^4> / <|a|^2> over the validation atoms of the element, for which both parts of the
variance are as large on average (benchmarks/README.md has what this gives). Members drawn from the
posterior give the uncertainty of what is differentiated, with g_i as constants. Last features are
invariant, and so is all this.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Posterior(NamedTuple):
    """What is known of the last weights; all are empty if nothing is. All float64."""

    whitening: Tensor
    """A in eV, (D, D)."""
    members: Tensor
    """In eV, (K, D), scaled such that the mean square of forces over all of them, and over the
    three components, is the variance of a component."""
    mean: Tensor
    """Last features m of each element, in the order of the species, (S, D)."""
    typical: Tensor
    """t of each element in eV^2, (S,); infinite if distances count as what they are."""


def offsets(posterior: Posterior, last: Tensor, species: Tensor) -> Tensor:
    """Return a_i of atoms in eV, (N, D).

    Args:
        posterior: What is known of the last weights.
        last: Last features f, (N, D) float64.
        species: Which of the potential's elements each atom is, (N,) int64.
    """
    return (last - posterior.mean.index_select(0, species)) @ posterior.whitening.t()


def growth(typical: Tensor, offset: Tensor, species: Tensor) -> Tensor:
    """Return the factors g_i of atoms, (N, 1).

    Args:
        typical: t of each element, (S,).
        offset: a_i, (N, D).
        species: Which of the elements each atom is, (N,) int64.
    """
    square = offset.square().sum(dim=1)
    return (1.0 + square / typical.index_select(0, species)).sqrt().unsqueeze(1)


def shrink(typical: Tensor, vectors: Tensor, species: Tensor) -> Tensor:
    """Return a_i of g_i a_i, (N, D), the rest as for `growth`."""
    # |g a|^2 = |a|^2 + |a|^4 / t, solved for |a|^2 such that t may be infinite.
    square = vectors.square().sum(dim=1)
    root = (1.0 + 4.0 * square / typical.index_select(0, species)).sqrt()
    return vectors * (2.0 / (1.0 + root)).sqrt().unsqueeze(1)


def factors_of_members(posterior: Posterior, last: Tensor, species: Tensor) -> Tensor:
    """Return what the members' products with last features count, g_i, (N, 1).

    Args:
        posterior: With members, or without; then it is one.
        last: Last features f, (N, D) float64.
        species: Which of the elements each atom is, (N,) int64.
    """
    if posterior.members.shape[0] == 0:
        return torch.ones_like(last[:, :1])
    return growth(posterior.typical, offsets(posterior, last, species), species)


class LastLayerUncertainty(nn.Module):
    """Hold the posterior of a potential."""

    whitening: Tensor
    members: Tensor
    mean: Tensor
    typical: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not in the state dict: they belong to one set of weights, not to an architecture.
        self.register_buffer("whitening", torch.zeros(0, 0, dtype=torch.float64), persistent=False)
        self.register_buffer("members", torch.zeros(0, 0, dtype=torch.float64), persistent=False)
        self.register_buffer("mean", torch.zeros(0, 0, dtype=torch.float64), persistent=False)
        self.register_buffer("typical", torch.zeros(0, dtype=torch.float64), persistent=False)

    @torch.jit.unused
    def set(self, posterior: Posterior) -> None:
        """Take over what was found."""
        device = self.whitening.device
        self.whitening, self.members, self.mean, self.typical = (
            part.to(device, torch.float64) for part in posterior
        )

    @torch.jit.unused
    def content(self) -> dict[str, Tensor]:
        """Return the parts of what `set` takes, by name."""
        return self.posterior(True)._asdict()

    @torch.jit.unused
    def shape(self) -> dict[str, int]:
        """Tell K and D by name; nothing if there are no uncertainties."""
        if not self.known():
            return {}
        return {"members": self.members.shape[0], "size": self.members.shape[1]}

    def known(self) -> bool:
        """Tell whether there is anything to ask for."""
        return self.whitening.shape[0] > 0

    def posterior(self, with_members: bool) -> Posterior:
        """Return what is known, with or without members."""
        members = self.members if with_members else self.members[:0]
        return Posterior(self.whitening, members, self.mean, self.typical)

    def forward(self, last: Tensor, species: Tensor) -> Tensor:
        """Return g_i a_i in eV of atoms, (N, D) float64.

        Its norm is the uncertainty of an atom's energy, and the norm of a sum over atoms that of
        the sum of their energies.

        Args:
            last: Last features f, (N, D) float64.
            species: Which of the potential's elements each atom is, (N,) int64.
        """
        posterior = self.posterior(False)
        offset = offsets(posterior, last, species)
        return growth(self.typical, offset, species) * offset
