"""The transformer over the tokens of one environment: a central token and its neighbours."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pet_mlip.graph.hypers import PETHypers
from pet_mlip.network.attention import Attention
from pet_mlip.network.feedforward import FeedForward
from pet_mlip.network.functions import add
from pet_mlip.network.linear import Linear, Norm


class Saved(NamedTuple):
    """What the derivative of a transformer layer needs of P environments of T = M + 1 tokens."""

    normed: Tensor
    """Normalised tokens of the first norm, (P, T, D), and their factor."""
    inverse: Tensor
    qkv: Tensor
    """Queries, keys, values, (3, P * H, T, D / H)."""
    weights: Tensor
    """Attention weights, (P * H, T, T)."""
    normed_mlp: Tensor
    """Normalised tokens of the second norm, (P, M or T, D), and their factor."""
    inverse_mlp: Tensor
    hidden: Tensor
    """Of the MLP, (P, M or T, F or 2 F)."""
    center: list[Tensor]
    """Of the central token's update."""


class NarrowCenter(nn.Module):
    """Take the node features themselves as the central token.

    As in the published models, the central token has no residual of its own then.
    """

    def contract(self, nodes: Tensor) -> Tensor:
        """Return the central token (P, D) of nodes (P, D)."""
        return nodes

    def contract_vjp(self, grad: Tensor) -> Tensor:
        """Return the gradient over the nodes."""
        return grad

    def update(self, nodes: Tensor, center: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the nodes after the attention, (P, D), and what the derivative needs."""
        return center.to(nodes.dtype).contiguous(), []

    def update_vjp(self, grad: Tensor, saved: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the gradient over the nodes before, and over the central token afterwards."""
        return torch.zeros_like(grad), grad


class WideCenter(nn.Module):
    """Node features (P, D_node) are wider than tokens and have a residual stream of their own."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        node_width = hypers.d_node
        self.contraction = Linear(node_width, hypers.d_pet)
        self.expansion = Linear(hypers.d_pet, node_width)
        self.norm = Norm(hypers.normalization, node_width)
        self.mlp = FeedForward(node_width, 2 * node_width, hypers.activation)

    def contract(self, nodes: Tensor) -> Tensor:
        """See `NarrowCenter.contract`."""
        return self.contraction(nodes).to(nodes.dtype)

    def contract_vjp(self, grad: Tensor) -> Tensor:
        """See `NarrowCenter.contract_vjp`."""
        return self.contraction.vjp(grad)

    def update(self, nodes: Tensor, center: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `NarrowCenter.update`."""
        nodes = nodes + self.expansion(center.contiguous())
        x, normed, inverse = self.norm(nodes)
        change, hidden = self.mlp(x)
        return nodes + change, [normed, inverse, hidden]

    def update_vjp(self, grad: Tensor, saved: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `NarrowCenter.update_vjp`."""
        through = self.norm.vjp(self.mlp.vjp(grad, saved[2]), saved[0], saved[1])
        grad = grad + through
        return grad, self.expansion.vjp(grad)


class TransformerLayer(nn.Module):
    """Attention and MLP on the tokens, normalised before (``PreLN``) or after each (``PostLN``)."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        width = hypers.d_pet
        self.pre_norm = hypers.transformer_type == "PreLN"
        self.attention = Attention(width, hypers.num_heads, hypers.attention_temperature)
        self.norm_attention = Norm(hypers.normalization, width)
        self.norm_mlp = Norm(hypers.normalization, width)
        self.mlp = FeedForward(width, hypers.d_feedforward, hypers.activation)
        self.center: NarrowCenter | WideCenter = (
            NarrowCenter() if hypers.d_node == width else WideCenter(hypers)
        )

    def forward(
        self, nodes: Tensor, edges: Tensor, log_switch: Tensor
    ) -> tuple[Tensor, Tensor, Saved]:
        """Update node features (P, D_node) and edge tokens (P, M, D), which may be overwritten.

        Args:
            nodes: (P, D_node).
            edges: (P, M, D).
            log_switch: log f of each token, that of the centre first, (P, T).
        """
        tokens = torch.cat([self.center.contract(nodes).unsqueeze(1), edges], dim=1)
        if self.pre_norm:
            x, normed, inverse = self.norm_attention(tokens)
            mixed, qkv, weights = self.attention(x, log_switch)
            nodes, center = self.center.update(nodes, mixed[:, 0])
            edges = add(edges, mixed[:, 1:])
            x, normed_mlp, inverse_mlp = self.norm_mlp(edges)
            change, hidden = self.mlp(x)
            edges = add(edges, change)
        else:
            mixed, qkv, weights = self.attention(tokens, log_switch)
            tokens, normed, inverse = self.norm_attention(add(tokens, mixed))
            change, hidden = self.mlp(tokens)
            tokens, normed_mlp, inverse_mlp = self.norm_mlp(tokens + change)
            nodes, center = self.center.update(nodes, tokens[:, 0])
            edges = tokens[:, 1:]
        saved = Saved(normed, inverse, qkv, weights, normed_mlp, inverse_mlp, hidden, center)
        return nodes, edges, saved

    def vjp(
        self, grad_nodes: Tensor, grad_edges: Tensor, saved: Saved
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the gradient over nodes, edges and log f, (P, T); gradients are overwritten."""
        if self.pre_norm:
            grad = self.mlp.vjp(grad_edges, saved.hidden)
            grad = self.norm_mlp.vjp(grad, saved.normed_mlp, saved.inverse_mlp)
            grad_edges = add(grad_edges, grad)
            grad_nodes, grad_center = self.center.update_vjp(grad_nodes, saved.center)
            grad = torch.cat([grad_center.unsqueeze(1), grad_edges], dim=1)
            grad, grad_logs = self.attention.vjp(grad, saved.qkv, saved.weights)
            grad = self.norm_attention.vjp(grad, saved.normed, saved.inverse)
            grad_edges = add(grad_edges, grad[:, 1:])
        else:
            grad_nodes, grad_center = self.center.update_vjp(grad_nodes, saved.center)
            grad = torch.cat([grad_center.unsqueeze(1), grad_edges], dim=1)
            grad = self.norm_mlp.vjp(grad, saved.normed_mlp, saved.inverse_mlp)
            grad = add(grad, self.mlp.vjp(grad, saved.hidden))
            grad = self.norm_attention.vjp(grad, saved.normed, saved.inverse)
            through, grad_logs = self.attention.vjp(grad, saved.qkv, saved.weights)
            grad = add(grad, through)
            grad_edges = grad[:, 1:]
        grad_nodes = grad_nodes + self.center.contract_vjp(grad[:, 0])
        return grad_nodes, grad_edges, grad_logs

    @torch.jit.unused
    def fold(self) -> None:
        """Let linear maps take over the weights of norms before them, and the scale of scores."""
        self.attention.fold_scale()
        if self.pre_norm:
            self.norm_attention.fold_into(self.attention.input_linear)
            self.norm_mlp.fold_into(self.mlp.w_in)
        if isinstance(self.center, WideCenter):
            self.center.norm.fold_into(self.center.mlp.w_in)
