"""Dependence on the electronic state: total charge and spin multiplicity of a structure."""

import torch
from torch import Tensor, nn


class Conditioning(nn.Module):
    """Adds features of the electronic state to the nodes of a structure, after each layer.

    Args:
        width: Of the node features.
        max_charge: Largest total charge, of either sign.
        max_spin_multiplicity: Largest 2S + 1.
    """

    def __init__(self, width: int, max_charge: int, max_spin_multiplicity: int) -> None:
        super().__init__()
        self.max_charge = max_charge
        self.charge_embedding = nn.Embedding(2 * max_charge + 1, width)
        self.spin_multiplicity_embedding = nn.Embedding(max_spin_multiplicity, width)
        last = nn.Linear(width, width)
        # A new model starts without it, and a structure's state counts as far as it is learned.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), last)

    def forward(self, nodes: Tensor, electronic: Tensor) -> Tensor:
        """Node features (N, width) with charge and multiplicity (N, 2) of each atom's structure."""
        charge = self.charge_embedding(electronic[:, 0] + self.max_charge)
        spin = self.spin_multiplicity_embedding(electronic[:, 1] - 1)
        return nodes + self.project(torch.cat([charge, spin], dim=1))


class NoConditioning(nn.Module):
    """Of models that do not know about electronic states."""

    def forward(self, nodes: Tensor, electronic: Tensor) -> Tensor:
        """The nodes as they are."""
        return nodes
