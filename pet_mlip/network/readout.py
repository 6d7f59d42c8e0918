"""Atomic energies from node and edge features."""

import torch
from torch import Tensor, nn

from pet_mlip.graph.hypers import PETHypers
from pet_mlip.network.functions import silu, silu_vjp
from pet_mlip.network.linear import Linear


class Head(nn.Module):
    """Compute the energy of one node or edge from its features."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = Linear(width, hidden)
        self.second = Linear(hidden, hidden)
        self.last = Linear(hidden, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return energies (R,) of features (R, D), and what the derivative needs."""
        first = self.first(features)
        second = self.second(silu(first))
        return self.last(silu(second)).squeeze(1), [first, second]

    def vjp(self, grad: Tensor, saved: list[Tensor]) -> Tensor:
        """Return the gradient over the features of sum_r grad_r E_r."""
        grad_hidden = silu_vjp(grad.unsqueeze(1) * self.last.weight, saved[1])
        return self.first.vjp(silu_vjp(self.second.vjp(grad_hidden), saved[0]))


class Readout(nn.Module):
    """Compute E_i = head(node_i) + sum_j f_ij head(edge_ij), in pieces of edges."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        self.node_head = Head(hypers.d_node, hypers.d_head)
        self.edge_head = Head(hypers.d_pet, hypers.d_head)

    def forward(
        self,
        nodes: Tensor,
        edges: Tensor,
        centre: Tensor,
        switch: Tensor,
        weights: Tensor,
        piece: int,
        compute_gradient: bool,
        grad_switch: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return atomic energies (N,) float64, and the gradient of sum_i w_i E_i over the features.

        Args:
            nodes: (N, D_node).
            edges: (E, D).
            centre: (E,) int64.
            switch: Cutoff function f, (E,) float64.
            weights: w, (N,) float64.
            piece: Edges evaluated at once.
            compute_gradient: Whether to compute it; nothing otherwise.
            grad_switch: The gradient over f is added to its first rows, float64.
        """
        dtype = nodes.dtype
        energies, saved = self.node_head(nodes)
        energies = energies.to(torch.float64)
        grad_nodes = nodes[:0]
        grad_edges: list[Tensor] = [edges[:0]]
        if compute_gradient:
            grad_nodes = self.node_head.vjp(weights.to(dtype), saved)
        for start in range(0, edges.shape[0], piece):
            end = min(start + piece, edges.shape[0])
            f, owner = switch[start:end].to(dtype), centre[start:end]
            of_edges, saved = self.edge_head(edges[start:end])
            energies = energies.index_add(0, owner, (of_edges * f).to(torch.float64))
            if compute_gradient:
                w = weights.index_select(0, owner)
                grad_switch[start:end] += of_edges * w
                grad_edges.append(self.edge_head.vjp(w.to(dtype) * f, saved))
        return energies, grad_nodes, torch.cat(grad_edges)
