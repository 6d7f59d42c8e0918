"""One transformer layer on the tokens of the environments.

A layer can be left open before its last map, which is linear: the average over frames is then taken
before that map, once per atom, and not after it, once per frame.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pet_mlip.inference.attention import Attention
from pet_mlip.inference.center import make_center
from pet_mlip.inference.feedforward import FeedForward
from pet_mlip.inference.functions import normalise, normalise_vjp
from pet_mlip.inference.linear import affine, linear, linear_after_norm
from pet_mlip.model.transformer import TransformerLayer


class Activations(NamedTuple):
    """What the derivative of a transformer layer needs."""

    normed: Tensor
    """Normalised tokens, (P, T, D)."""
    inverse: Tensor
    """(P, T, 1)."""
    qkv: Tensor
    """Queries, keys, values, (3, P * H, T, D / H)."""
    weights: Tensor
    """Attention weights, (P * H, T, T)."""
    normed_mlp: Tensor
    """The tokens that the MLP's norm saw, normalised, (P, M or T, D)."""
    inverse_mlp: Tensor
    slopes: list[Tensor]
    """Derivatives of the MLP's hidden values, (P, M or T, F)."""
    center: list[Tensor]
    """Of the central token's update."""


def pack(saved: Activations) -> list[Tensor]:
    """As a plain list."""
    tensors = [
        saved.normed,
        saved.inverse,
        saved.qkv,
        saved.weights,
        saved.normed_mlp,
        saved.inverse_mlp,
    ]
    tensors.extend(saved.slopes)
    tensors.extend(saved.center)
    return tensors


def unpack(tensors: list[Tensor], gated: bool) -> Activations:
    """What `pack` made a list of; a gated MLP has two slopes, others one."""
    first, n_slopes = tensors[:6], 2 if gated else 1
    return Activations(
        first[0],
        first[1],
        first[2],
        first[3],
        first[4],
        first[5],
        tensors[6 : 6 + n_slopes],
        tensors[6 + n_slopes :],
    )


class PreNormLayer(nn.Module):
    """Normalises before attention and MLP (``PreLN``); see `pet_mlip.model.transformer`."""

    def __init__(self, reference: TransformerLayer) -> None:
        super().__init__()
        self.layer_norm = isinstance(reference.norm_attention, nn.LayerNorm)
        self.attention = Attention(reference.attention, reference.norm_attention)
        w_in = linear_after_norm(reference.norm_mlp, reference.mlp.w_in)
        self.mlp = FeedForward(reference.mlp, w_in)
        self.center = make_center(reference)

    def forward(
        self, nodes: Tensor, edges: Tensor, log_switch: Tensor
    ) -> tuple[Tensor, Tensor, Activations]:
        """Nodes (P, D_node) and edge tokens (P, M, D) after the layer; ``edges`` is overwritten."""
        nodes, edges, hidden, saved = self.open(nodes, edges, log_switch)
        return nodes, edges.add_(self.mlp.w_out(hidden)), saved

    def open(
        self, nodes: Tensor, edges: Tensor, log_switch: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Activations]:
        """As `forward`, without the last map: edges lack what `close` makes of the hidden values.

        Returns:
            Nodes (P, D_node), edges (P, M, D), hidden values (P, M, F), and the rest.
        """
        n_rows, n_edges, width = edges.shape
        dtype = self.attention.input_linear.weight.dtype
        normed = torch.empty(n_rows, n_edges + 1, width, dtype=dtype, device=edges.device)
        center = self.center.contract(nodes).unsqueeze(1)
        of_center = normalise(center, self.layer_norm, normed[:, :1])
        of_edges = normalise(edges, self.layer_norm, normed[:, 1:])
        mixed, qkv, weights = self.attention(normed, log_switch)
        nodes, saved = self.center.update(nodes, mixed[:, 0])
        edges.add_(mixed[:, 1:])
        normed_mlp = torch.empty_like(edges, dtype=dtype)
        inverse_mlp = normalise(edges, self.layer_norm, normed_mlp)
        hidden, slopes = self.mlp.hidden(normed_mlp)
        inverse = torch.cat([of_center, of_edges], dim=1)
        activations = Activations(
            normed, inverse, qkv, weights, normed_mlp, inverse_mlp, slopes, saved
        )
        return nodes, edges, hidden, activations

    def close(self, edges: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
        """Edges (n, M, D) after the layer from sums over frames whose weights add up to (n,).

        Without weights there is one frame, of weight 1.
        """
        if weight.shape[0] == 0:
            return edges.add_(self.mlp.w_out(hidden))
        weights = self.mlp.w_out.weight
        change = torch.matmul(hidden.to(weights.dtype), weights.t())
        return edges.add_(change).addcmul_(weight[:, None, None], self.mlp.w_out.bias)

    def close_vjp(self, of_edges: Tensor, averaging: bool) -> tuple[Tensor, Tensor]:
        """Gradient over the hidden values (n, M, F) and, if averaging, the weights (n,)."""
        of_weight = of_edges.new_zeros(0)
        if averaging:
            bias = self.mlp.w_out.bias.to(of_edges.dtype)
            of_weight = torch.matmul(of_edges, bias).sum(dim=1)
        return self.mlp.w_out.vjp(of_edges), of_weight

    def vjp(
        self, of_nodes: Tensor, of_edges: Tensor, saved: Activations
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient over nodes, edges and log f, (P, T); ``of_edges`` is overwritten."""
        return self.open_vjp(of_nodes, of_edges, self.mlp.w_out.vjp(of_edges), saved)

    def open_vjp(
        self, of_nodes: Tensor, of_edges: Tensor, of_hidden: Tensor, saved: Activations
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `vjp`, from the gradient over what `open` returns; ``of_hidden`` is overwritten."""
        of_normed = self.mlp.hidden_vjp(of_hidden, saved.slopes)
        of_edges.add_(
            normalise_vjp(of_normed, saved.normed_mlp, saved.inverse_mlp, self.layer_norm)
        )
        of_nodes, of_center = self.center.update_vjp(of_nodes, saved.center)
        of_mixed = torch.cat([of_center.unsqueeze(1), of_edges], dim=1)
        of_tokens, of_log_switch = self.attention.vjp(of_mixed, saved.qkv, saved.weights)
        of_tokens = normalise_vjp(of_tokens, saved.normed, saved.inverse, self.layer_norm)
        of_nodes = of_nodes + self.center.contract_vjp(of_tokens[:, 0])
        return of_nodes, of_edges.add_(of_tokens[:, 1:]), of_log_switch


class PostNormLayer(nn.Module):
    """Normalises after attention and MLP (``PostLN``); see `pet_mlip.model.transformer`."""

    scale_attention: Tensor
    offset_attention: Tensor
    scale_mlp: Tensor
    offset_mlp: Tensor

    def __init__(self, reference: TransformerLayer) -> None:
        super().__init__()
        self.layer_norm = isinstance(reference.norm_attention, nn.LayerNorm)
        self.attention = Attention(reference.attention, None)
        self.mlp = FeedForward(reference.mlp, linear(reference.mlp.w_in))
        self.center = make_center(reference)
        names = {"attention": reference.norm_attention, "mlp": reference.norm_mlp}
        for name, norm in names.items():
            scale, offset = affine(norm)
            self.register_buffer(f"scale_{name}", scale.detach().clone())
            self.register_buffer(f"offset_{name}", offset.detach().clone())

    def forward(
        self, nodes: Tensor, edges: Tensor, log_switch: Tensor
    ) -> tuple[Tensor, Tensor, Activations]:
        """See `PreNormLayer.forward`."""
        nodes, edges, _, saved = self.open(nodes, edges, log_switch)
        return nodes, edges, saved

    def open(
        self, nodes: Tensor, edges: Tensor, log_switch: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Activations]:
        """See `PreNormLayer.open`; the last map is a norm, so that nothing is left open."""
        tokens = torch.cat([self.center.contract(nodes).unsqueeze(1), edges], dim=1)
        mixed, qkv, weights = self.attention(tokens, log_switch)
        normed = mixed.to(tokens.dtype).add_(tokens)
        inverse = normalise(normed, self.layer_norm, normed)
        tokens = torch.addcmul(self.offset_attention, normed, self.scale_attention)
        change, slopes = self.mlp(tokens)
        normed_mlp = change.to(tokens.dtype).add_(tokens)
        inverse_mlp = normalise(normed_mlp, self.layer_norm, normed_mlp)
        tokens = torch.addcmul(self.offset_mlp, normed_mlp, self.scale_mlp)
        nodes, saved = self.center.update(nodes, tokens[:, 0])
        activations = Activations(
            normed, inverse, qkv, weights, normed_mlp, inverse_mlp, slopes, saved
        )
        return nodes, tokens[:, 1:], tokens[:, 1:, :0], activations

    def close(self, edges: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
        """See `PreNormLayer.close`."""
        return edges

    def close_vjp(self, of_edges: Tensor, averaging: bool) -> tuple[Tensor, Tensor]:
        """See `PreNormLayer.close_vjp`."""
        return of_edges[:, :, :0], of_edges.new_zeros(of_edges.shape[0] if averaging else 0)

    def vjp(
        self, of_nodes: Tensor, of_edges: Tensor, saved: Activations
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `PreNormLayer.vjp`."""
        return self.open_vjp(of_nodes, of_edges, of_edges[:, :, :0], saved)

    def open_vjp(
        self, of_nodes: Tensor, of_edges: Tensor, of_hidden: Tensor, saved: Activations
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `PreNormLayer.open_vjp`."""
        of_nodes, of_center = self.center.update_vjp(of_nodes, saved.center)
        given = torch.cat([of_center.unsqueeze(1), of_edges], dim=1).mul_(self.scale_mlp)
        given = normalise_vjp(given, saved.normed_mlp, saved.inverse_mlp, self.layer_norm)
        given = given.add_(self.mlp.vjp(given, saved.slopes)).mul_(self.scale_attention)
        given = normalise_vjp(given, saved.normed, saved.inverse, self.layer_norm)
        of_tokens, of_log_switch = self.attention.vjp(given, saved.qkv, saved.weights)
        of_tokens = of_tokens.to(given.dtype).add_(given)
        of_nodes = of_nodes + self.center.contract_vjp(of_tokens[:, 0])
        return of_nodes, of_tokens[:, 1:], of_log_switch


def make_transformer_layer(reference: nn.Module) -> PreNormLayer | PostNormLayer:
    """The same layer with its derivative written out."""
    assert isinstance(reference, TransformerLayer)
    return PreNormLayer(reference) if reference.pre_norm else PostNormLayer(reference)
