"""Radial functions of the distance."""

import math

import torch
from torch import Tensor, nn


class RadialBasis(nn.Module):
    """b_n(r) = sqrt(2 / cutoff) sin(n pi r / cutoff) / r for n = 1 ... size (arXiv:2003.03123)."""

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        self.size = size
        self.cutoff = cutoff

    def forward(self, distance: Tensor) -> Tensor:
        """Basis functions at each distance in Å, (..., size)."""
        order = torch.arange(1, self.size + 1, dtype=distance.dtype, device=distance.device)
        phase = distance.unsqueeze(-1) * (order * (math.pi / self.cutoff))
        return math.sqrt(2.0 / self.cutoff) * torch.sin(phase) / distance.unsqueeze(-1)
