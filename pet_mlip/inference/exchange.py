"""What both directions of an edge tell each other after a layer."""

from typing import cast

import torch
from torch import Tensor, nn

from pet_mlip.inference.functions import normalise, normalise_vjp, silu
from pet_mlip.inference.linear import linear, linear_after_norm
from pet_mlip.model.pet import PET


class MeanMixing(nn.Module):
    """The mean of the message and the reverse edge's features (residual featurizer)."""

    def forward(
        self, messages: Tensor, edges: Tensor, reverse: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Messages into the next layer, and what the derivative needs.

        Args:
            messages: Into this layer, (E, D).
            edges: Out of this layer, (E, D).
            reverse: The same of the reverse edges, (E, D).
        """
        return (messages + reverse).mul_(0.5), []

    def vjp(self, given: Tensor, saved: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient over messages, edges and reverse edges."""
        half = 0.5 * given
        return half, torch.zeros_like(given), half


class LearnedMixing(nn.Module):
    """Both directions mixed by an MLP, added to message and edge (feedforward featurizer)."""

    def __init__(self, norm: nn.Module, mlp: nn.Sequential) -> None:
        super().__init__()
        self.w_in = linear_after_norm(norm, mlp[0])
        self.w_out = linear(mlp[2])

    def forward(
        self, messages: Tensor, edges: Tensor, reverse: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """See `MeanMixing`."""
        both = torch.cat([edges, reverse], dim=1)
        inverse = normalise(both, True, both)
        both = both.to(self.w_in.weight.dtype)
        hidden, slope = silu(self.w_in(both))
        mixed = self.w_out(hidden).to(edges.dtype)
        return mixed.add_(messages).add_(edges), [both, inverse, slope]

    def vjp(self, given: Tensor, saved: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See `MeanMixing`."""
        of_normed = self.w_in.vjp(self.w_out.vjp(given).mul_(saved[2])).to(given.dtype)
        of_both = normalise_vjp(of_normed, saved[0], saved[1], True)
        width = given.shape[1]
        return given, given + of_both[:, :width], of_both[:, width:]


class Exchange(nn.Module):
    """Messages into the next layer, in pieces of edges."""

    def __init__(self, mixing: MeanMixing | LearnedMixing) -> None:
        super().__init__()
        self.mixing = mixing

    def forward(
        self, messages: Tensor, edges: Tensor, reverse: Tensor, piece: int, n_kept: int
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Messages into the next layer, (E', D), and what the derivative needs of the first pieces.

        Args:
            messages: Into this layer, (E, D).
            edges: Out of this layer, (E, D).
            reverse: Reverse of the first E' edges, (E',) int64.
            piece: Edges evaluated at once.
            n_kept: Pieces to keep.
        """
        n_edges = reverse.shape[0]
        out = torch.empty(n_edges, edges.shape[1], dtype=edges.dtype, device=edges.device)
        kept: list[list[Tensor]] = []
        for start in range(0, n_edges, piece):
            end = min(start + piece, n_edges)
            other = edges.index_select(0, reverse[start:end])
            out[start:end], saved = self.mixing(messages[start:end], edges[start:end], other)
            if len(kept) < n_kept:
                kept.append(saved)
        return out, kept

    def vjp(
        self,
        messages: Tensor,
        edges: Tensor,
        reverse: Tensor,
        piece: int,
        kept: list[list[Tensor]],
        given: Tensor,
        of_edges: Tensor,
    ) -> Tensor:
        """Gradient over the messages; that over the edges is added to ``of_edges``."""
        of_messages = torch.zeros_like(messages)
        n_edges, n_done = reverse.shape[0], 0
        for start in range(0, n_edges, piece):
            end = min(start + piece, n_edges)
            if n_done < len(kept):
                saved = kept[n_done]
                n_done += 1
            else:
                other = edges.index_select(0, reverse[start:end])
                _, saved = self.mixing(messages[start:end], edges[start:end], other)
            found = self.mixing.vjp(given[start:end], saved)
            of_messages[start:end] = found[0]
            of_edges[start:end] += found[1]
            of_edges.index_add_(0, reverse[start:end], found[2])
        return of_messages


def make_exchanges(pet: PET) -> nn.ModuleList:
    """The exchange after each layer."""
    if pet.residual:
        return nn.ModuleList(Exchange(MeanMixing()) for _ in range(pet.num_layers))
    pairs = zip(pet.combination_norms, pet.combination_mlps, strict=True)
    return nn.ModuleList(
        Exchange(LearnedMixing(norm, cast(nn.Sequential, mlp))) for norm, mlp in pairs
    )
