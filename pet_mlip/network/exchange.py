"""The exchange of features between both directions of an edge, after each layer."""

import torch
from torch import Tensor, nn

from pet_mlip.graph.hypers import PETHypers
from pet_mlip.network.functions import silu, silu_vjp
from pet_mlip.network.linear import Linear, Norm


class MeanExchange(nn.Module):
    """Take the mean of the message and the reverse edge's features (residual featurizer)."""

    def forward(
        self, messages: Tensor, edges: Tensor, reverse: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the messages into the next layer, and what the derivative needs.

        Args:
            messages: Into this layer, (E, D).
            edges: Out of this layer, (E, D).
            reverse: The same of the reverse edges, (E, D).
        """
        return 0.5 * (messages + reverse), []

    def vjp(self, grad: Tensor, saved: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient over messages, edges and reverse edges."""
        half = 0.5 * grad
        return half, torch.zeros_like(grad), half


class LearnedExchange(nn.Module):
    """Add what an MLP makes of both directions to message and edge (feedforward featurizer)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm("LayerNorm", 2 * width)
        self.w_in = Linear(2 * width, 2 * width)
        self.w_out = Linear(2 * width, width)

    def forward(
        self, messages: Tensor, edges: Tensor, reverse: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """See `MeanExchange.forward`."""
        x, normed, inverse = self.norm(torch.cat([edges, reverse], dim=1))
        hidden = self.w_in(x)
        mixed = self.w_out(silu(hidden)).to(edges.dtype)
        return mixed + messages + edges, [normed, inverse, hidden]

    def vjp(self, grad: Tensor, saved: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See `MeanExchange.vjp`."""
        grad_x = self.w_in.vjp(silu_vjp(self.w_out.vjp(grad), saved[2]))
        grad_both = self.norm.vjp(grad_x.to(grad.dtype), saved[0], saved[1])
        width = grad.shape[1]
        return grad, grad + grad_both[:, :width], grad_both[:, width:]


class Exchange(nn.Module):
    """Make the messages into the next layer, in pieces of edges."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        residual = hypers.featurizer_type == "residual"
        self.mixing: MeanExchange | LearnedExchange = (
            MeanExchange() if residual else LearnedExchange(hypers.d_pet)
        )

    def forward(
        self, messages: Tensor, edges: Tensor, reverse: Tensor, piece: int, n_kept: int
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Return messages into the next layer, (E', D), and what `vjp` needs of the first pieces.

        Args:
            messages: Into this layer, (E, D).
            edges: Out of this layer, (E, D).
            reverse: Reverse of the first E' edges, (E',) int64.
            piece: Edges evaluated at once.
            n_kept: Pieces to keep.
        """
        n_edges = reverse.shape[0]
        out: list[Tensor] = [messages[:0]]
        kept: list[list[Tensor]] = []
        for start in range(0, n_edges, piece):
            end = min(start + piece, n_edges)
            other = edges.index_select(0, reverse[start:end])
            mixed, saved = self.mixing(messages[start:end], edges[start:end], other)
            out.append(mixed)
            if len(kept) < n_kept:
                kept.append(saved)
        return torch.cat(out), kept

    def vjp(
        self,
        messages: Tensor,
        edges: Tensor,
        reverse: Tensor,
        piece: int,
        kept: list[list[Tensor]],
        grad: Tensor,
        grad_edges: Tensor,
    ) -> Tensor:
        """Return the gradient over the messages; that over the edges is added to ``grad_edges``."""
        n_edges, n_done = reverse.shape[0], 0
        grad_messages: list[Tensor] = []
        for start in range(0, n_edges, piece):
            end = min(start + piece, n_edges)
            if n_done < len(kept):
                saved = kept[n_done]
                n_done += 1
            else:
                other = edges.index_select(0, reverse[start:end])
                _, saved = self.mixing(messages[start:end], edges[start:end], other)
            found = self.mixing.vjp(grad[start:end], saved)
            grad_messages.append(found[0])
            grad_edges[start:end] += found[1]
            grad_edges.index_add_(0, reverse[start:end], found[2])
        # Edges that the next layer does not need have no gradient.
        grad_messages.append(torch.zeros_like(messages[n_edges:]))
        return torch.cat(grad_messages)
