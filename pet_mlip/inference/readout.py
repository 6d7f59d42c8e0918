"""Atomic energies from node and edge features."""

from typing import cast

import torch
from torch import Tensor, nn

from pet_mlip.inference.functions import silu
from pet_mlip.inference.linear import linear
from pet_mlip.model.pet import PET
from pet_mlip.model.pet import Head as Reference


class Head(nn.Module):
    """See `pet_mlip.model.pet.Head`."""

    def __init__(self, reference: Reference) -> None:
        super().__init__()
        self.first = linear(reference.mlp[0])
        self.second = linear(reference.mlp[2])
        self.last = linear(reference.last)

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Energies (R,) of features (R, D), and what the derivative needs."""
        hidden, slope = silu(self.first(features))
        hidden, next_slope = silu(self.second(hidden))
        return self.last(hidden).squeeze(1), [slope, next_slope]

    def vjp(self, given: Tensor, saved: list[Tensor]) -> Tensor:
        """Gradient over the features of sum_r given_r E_r."""
        of_hidden = (given.unsqueeze(1) * self.last.weight).mul_(saved[1])
        return self.first.vjp(self.second.vjp(of_hidden).mul_(saved[0]))


class Readout(nn.Module):
    """E_i = head(node_i) + sum_j f_ij head(edge_ij), in pieces of edges, and its gradient."""

    def __init__(self, node_head: Reference, edge_head: Reference) -> None:
        super().__init__()
        self.node_head = Head(node_head)
        self.edge_head = Head(edge_head)

    def forward(
        self,
        nodes: Tensor,
        edges: Tensor,
        centre: Tensor,
        switch: Tensor,
        weights: Tensor,
        piece: int,
        compute_gradient: bool,
        of_switch: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Atomic energies (N,) float64, and the gradient of sum_i w_i E_i over nodes and edges.

        Args:
            nodes: (N, D_node).
            edges: (E, D).
            centre: (E,) int64.
            switch: Cutoff switch f, (E,) float64.
            weights: w, (N,) float64.
            piece: Edges evaluated at once.
            compute_gradient: Whether to compute it; nothing otherwise.
            of_switch: The gradient over the switch is added to its first rows, float64.
        """
        dtype = nodes.dtype
        energies, saved = self.node_head(nodes)
        energies = energies.to(torch.float64)
        of_nodes, of_edges = nodes[:0], edges[:0]
        if compute_gradient:
            of_nodes = self.node_head.vjp(weights.to(dtype), saved)
            of_edges = torch.empty_like(edges)
        for start in range(0, edges.shape[0], piece):
            end = min(start + piece, edges.shape[0])
            f, owner = switch[start:end].to(dtype), centre[start:end]
            of_edge, saved = self.edge_head(edges[start:end])
            energies.index_add_(0, owner, (of_edge * f).to(torch.float64))
            if compute_gradient:
                w = weights.index_select(0, owner)
                of_switch[start:end] += of_edge * w
                of_edges[start:end] = self.edge_head.vjp(w.to(dtype) * f, saved)
        return energies, of_nodes, of_edges


def make_readouts(pet: PET) -> nn.ModuleList:
    """One for each layer (residual featurizer), or a single one."""
    pairs = zip(pet.node_heads, pet.edge_heads, strict=True)
    return nn.ModuleList(Readout(cast(Reference, n), cast(Reference, e)) for n, e in pairs)
