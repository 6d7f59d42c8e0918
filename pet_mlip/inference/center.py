"""The central token: how node features enter the attention and come out of it."""

import torch
from torch import Tensor, nn

from pet_mlip.inference.feedforward import FeedForward
from pet_mlip.inference.functions import normalise, normalise_vjp
from pet_mlip.inference.linear import linear, linear_after_norm
from pet_mlip.model.transformer import FeedForward as ReferenceFeedForward
from pet_mlip.model.transformer import TransformerLayer


class NarrowCenter(nn.Module):
    """Node features are the central token itself."""

    def contract(self, nodes: Tensor) -> Tensor:
        """The central token (P, D) of nodes (P, D), in their dtype."""
        return nodes

    def contract_vjp(self, given: Tensor) -> Tensor:
        """Gradient over the nodes."""
        return given

    def update(self, nodes: Tensor, center: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Nodes after the attention, (P, D), and what the derivative needs."""
        return center.to(nodes.dtype).contiguous(), []

    def update_vjp(self, given: Tensor, saved: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Gradient over the nodes before and over the central token after the attention."""
        return torch.zeros_like(given), given


class WideCenter(nn.Module):
    """Node features (P, D_node) are wider than tokens and keep a residual stream of their own."""

    def __init__(self, reference: TransformerLayer) -> None:
        super().__init__()
        assert isinstance(reference.center_mlp, ReferenceFeedForward)
        norm = reference.norm_center_features
        self.layer_norm = isinstance(norm, nn.LayerNorm)
        self.contraction = linear(reference.center_contraction)
        self.expansion = linear(reference.center_expansion)
        w_in = linear_after_norm(norm, reference.center_mlp.w_in)
        self.mlp = FeedForward(reference.center_mlp, w_in)

    def contract(self, nodes: Tensor) -> Tensor:
        """See `NarrowCenter`."""
        return self.contraction(nodes).to(nodes.dtype)

    def contract_vjp(self, given: Tensor) -> Tensor:
        """See `NarrowCenter`."""
        return self.contraction.vjp(given)

    def update(self, nodes: Tensor, center: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `NarrowCenter`."""
        nodes = nodes + self.expansion(center.contiguous())
        normed = torch.empty_like(nodes)
        inverse = normalise(nodes, self.layer_norm, normed)
        change, slopes = self.mlp(normed)
        saved = [normed, inverse]
        saved.extend(slopes)
        return nodes.add_(change), saved

    def update_vjp(self, given: Tensor, saved: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `NarrowCenter`."""
        of_normed = self.mlp.vjp(given, saved[2:])
        given = given + normalise_vjp(of_normed, saved[0], saved[1], self.layer_norm)
        return given, self.expansion.vjp(given)


def make_center(reference: TransformerLayer) -> NarrowCenter | WideCenter:
    """The central token's part of a transformer layer."""
    return WideCenter(reference) if reference.wide_node else NarrowCenter()
