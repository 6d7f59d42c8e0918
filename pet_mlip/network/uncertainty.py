"""Uncertainty of energies from the last features: last-layer prediction rigidity.

The energy is linear in the weights of the last layers, E = w^T F with the last features F, so that
Gauss and Newton's curvature of the loss over w, C, tells how far training data have fixed them. The
posterior of w is a Gaussian of covariance alpha^2 C^-1, and

    sigma^2(E) = alpha^2 F^T C^-1 F = |A F|^2 ,    A^T A = alpha^2 C^-1 .

(Bigi, Chong, Ceriotti, Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024).) Members drawn from
it give the uncertainty of what is differentiated. Last features are invariant, and so is all this.
"""

import torch
from torch import Tensor, nn


class LastLayerUncertainty(nn.Module):
    """Hold A and the members; both are empty in a model that knows no uncertainties."""

    whitening: Tensor
    members: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not in the state dict: they belong to one set of weights, not to an architecture.
        self.register_buffer("whitening", torch.zeros(0, 0, dtype=torch.float64), persistent=False)
        self.register_buffer("members", torch.zeros(0, 0, dtype=torch.float64), persistent=False)

    @torch.jit.unused
    def set(self, whitening: Tensor, members: Tensor) -> None:
        """Take over A in eV, (D, D), and members in eV, (K, D), both float64.

        The members are scaled such that the mean square of forces over all of them, and over the
        three components, is the variance of a component.
        """
        self.whitening = whitening.to(self.whitening.device, torch.float64)
        self.members = members.to(self.members.device, torch.float64)

    @torch.jit.unused
    def content(self) -> dict[str, Tensor]:
        """Return what `set` takes, by name."""
        return {"whitening": self.whitening, "members": self.members}

    @torch.jit.unused
    def shape(self) -> dict[str, int]:
        """Tell K and D by name; nothing if there are no uncertainties."""
        if not self.known():
            return {}
        return {"members": self.members.shape[0], "size": self.members.shape[1]}

    def known(self) -> bool:
        """Tell whether there is anything to ask for."""
        return self.whitening.shape[0] > 0

    def forward(self, last: Tensor) -> Tensor:
        """Return A f in eV of the last features f of atoms, (N, D) float64.

        Its norm is the uncertainty of an atom's energy, and the norm of a sum over atoms that of
        the sum of their energies.
        """
        return last @ self.whitening.t()
