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
        return self.last_vjp(grad.unsqueeze(1) * self.last.weight, saved)

    def last_features(self, saved: list[Tensor]) -> Tensor:
        """Return what the last layer reads, (R, H)."""
        return silu(saved[1])

    def last_vjp(self, grad: Tensor, saved: list[Tensor]) -> Tensor:
        """Return the gradient over the features from that over the last ones, (R, H)."""
        return self.first.vjp(silu_vjp(self.second.vjp(silu_vjp(grad, saved[1])), saved[0]))


class Readout(nn.Module):
    """Compute E_i = head(node_i) + sum_j f_ij head(edge_ij), in pieces of edges.

    The last features of an atom are those whose product with the weights of both last layers is
    E_i, but for a constant of its species and its cutoff functions: h(node_i) and, behind them,
    sum_j f_ij h(edge_ij).
    """

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
        compute_last: bool,
        grad_switch: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Evaluate atomic energies and the gradient of sum_i w_i E_i over the features.

        Args:
            nodes: (N, D_node).
            edges: (E, D).
            centre: (E,) int64.
            switch: Cutoff function f, (E,) float64.
            weights: w, (N,) float64.
            piece: Edges evaluated at once.
            compute_gradient: Whether to compute it; nothing otherwise.
            compute_last: Whether to return last features; nothing otherwise.
            grad_switch: The gradient over f is added to its first rows, float64.

        Returns:
            Energies (N,) float64, the gradients, and the last features, (N, 2 H) float64.
        """
        dtype = nodes.dtype
        energies, saved = self.node_head(nodes)
        energies = energies.to(torch.float64)
        of_node = energies.new_zeros(0, 0)
        if compute_last:
            of_node = self.node_head.last_features(saved).to(torch.float64)
        of_neighbors = torch.zeros_like(of_node)
        grad_nodes = nodes[:0]
        grad_edges: list[Tensor] = [edges[:0]]
        if compute_gradient:
            grad_nodes = self.node_head.vjp(weights.to(dtype), saved)
        for start in range(0, edges.shape[0], piece):
            end = min(start + piece, edges.shape[0])
            f, owner = switch[start:end].to(dtype), centre[start:end]
            of_edges, saved = self.edge_head(edges[start:end])
            energies = energies.index_add(0, owner, (of_edges * f).to(torch.float64))
            if compute_last:
                last = self.edge_head.last_features(saved) * f.unsqueeze(1)
                of_neighbors = of_neighbors.index_add(0, owner, last.to(torch.float64))
            if compute_gradient:
                w = weights.index_select(0, owner)
                grad_switch[start:end] += of_edges * w
                grad_edges.append(self.edge_head.vjp(w.to(dtype) * f, saved))
        last = torch.cat([of_node, of_neighbors], dim=1)
        return energies, grad_nodes, torch.cat(grad_edges), last

    def last_vjp(
        self,
        grad: Tensor,
        nodes: Tensor,
        edges: Tensor,
        centre: Tensor,
        switch: Tensor,
        piece: int,
        grad_switch: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients over nodes and edges from that over the last features.

        Args:
            grad: (N, 2 H) float64.
            nodes: As in `forward`.
            edges: As in `forward`.
            centre: As in `forward`.
            switch: As in `forward`.
            piece: As in `forward`.
            grad_switch: As in `forward`.
        """
        of_node, of_edges = grad.to(nodes.dtype).chunk(2, dim=1)
        _, saved = self.node_head(nodes)
        grad_nodes = self.node_head.last_vjp(of_node, saved)
        grad_edges: list[Tensor] = [edges[:0]]
        for start in range(0, edges.shape[0], piece):
            end = min(start + piece, edges.shape[0])
            of_edge = of_edges.index_select(0, centre[start:end])
            _, saved = self.edge_head(edges[start:end])
            grad_switch[start:end] += (self.edge_head.last_features(saved) * of_edge).sum(dim=1)
            f = switch[start:end].to(nodes.dtype).unsqueeze(1)
            grad_edges.append(self.edge_head.last_vjp(f * of_edge, saved))
        return grad_nodes, torch.cat(grad_edges)
