"""Uncertainty of energies from the last features: last-layer prediction rigidity.

The energy is linear in the weights of the last layers, E = sum_i w^T f_i with the last features f_i
of the atoms, so that a curvature C over w tells how far training data have fixed them. The
posterior of w is a Gaussian of covariance alpha^2 C^-1. With features measured from their mean over
the training atoms of the same element (what a constant of each element would take up),

    sigma^2(E) = |sum_i A (f_i - m_i)|^2 ,    A^T A = alpha^2 C^-1 .

(Bigi, Chong, Ceriotti, Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024).) Members drawn from
it give the uncertainty of what is differentiated. Last features are invariant, and so is all this.
"""

import torch
from torch import Tensor, nn


class LastLayerUncertainty(nn.Module):
    """Hold A, the members and the means; all are empty in a model that knows no uncertainties."""

    whitening: Tensor
    members: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not in the state dict: they belong to one set of weights, not to an architecture.
        self.register_buffer("whitening", torch.zeros(0, 0, dtype=torch.float64), persistent=False)
        self.register_buffer("members", torch.zeros(0, 0, dtype=torch.float64), persistent=False)
        self.register_buffer("mean", torch.zeros(0, 0, dtype=torch.float64), persistent=False)

    @torch.jit.unused
    def set(self, whitening: Tensor, members: Tensor, mean: Tensor) -> None:
        """Take over what was found, all float64.

        Args:
            whitening: A in eV, (D, D).
            members: In eV, (K, D), scaled such that the mean square of forces over all of them, and
                over the three components, is the variance of a component.
            mean: Last features m of each element, in the order of the species, (S, D).
        """
        self.whitening = whitening.to(self.whitening.device, torch.float64)
        self.members = members.to(self.members.device, torch.float64)
        self.mean = mean.to(self.mean.device, torch.float64)

    @torch.jit.unused
    def content(self) -> dict[str, Tensor]:
        """Return what `set` takes, by name."""
        return {"whitening": self.whitening, "members": self.members, "mean": self.mean}

    @torch.jit.unused
    def shape(self) -> dict[str, int]:
        """Tell K and D by name; nothing if there are no uncertainties."""
        if not self.known():
            return {}
        return {"members": self.members.shape[0], "size": self.members.shape[1]}

    def known(self) -> bool:
        """Tell whether there is anything to ask for."""
        return self.whitening.shape[0] > 0

    def forward(self, last: Tensor, species: Tensor) -> Tensor:
        """Return A (f - m) in eV of atoms, (N, D) float64.

        Its norm is the uncertainty of an atom's energy, and the norm of a sum over atoms that of
        the sum of their energies.

        Args:
            last: Last features f, (N, D) float64.
            species: Which of the potential's elements each atom is, (N,) int64.
        """
        return (last - self.mean.index_select(0, species)) @ self.whitening.t()
