"""One message-passing layer on a block of environments."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pet_mlip.graph.hypers import PETHypers
from pet_mlip.network.blocks import Block
from pet_mlip.network.density import Density, NoDensity
from pet_mlip.network.frame_average import average_frames, average_frames_vjp
from pet_mlip.network.functions import silu, silu_vjp
from pet_mlip.network.linear import Linear
from pet_mlip.network.products import add_product
from pet_mlip.network.transformer import Saved, TransformerLayer

FIRST_DIRECTIONS = 0.1
"""Initial weights of directions, less than usual by this factor: the neighbour density knows the
angles, and what only the frames show starts as a correction (benchmarks/README.md)."""


class EmbeddingMaps(NamedTuple):
    """The first linear map of the token MLP, divided by what it reads."""

    species: Tensor
    """By the neighbour's species, constant included, (n_species, D)."""
    messages: Tensor
    """(D, D)."""
    radial: Tensor
    """Distance and radial functions, (1 + size, D)."""
    coordinates: Tensor
    """Into the leading hidden channels, which alone see directions, (3, D_directed)."""


class LayerSaved(NamedTuple):
    """What the derivative of a layer on a block needs."""

    tokens: Tensor
    """Hidden values before their activation, (n, M, D); what all frames share of them, if any."""
    layers: list[Saved]
    density: list[Tensor]
    """Of the neighbour density."""


class LayerGradient(NamedTuple):
    """Gradient over what a layer reads of a block, in the network's dtype."""

    nodes: Tensor
    """Of each atom, (n, D_node)."""
    messages: Tensor
    """Of each place, (n * M, D); nothing in the first layer, whose messages are constant."""
    radial: Tensor
    """Distance and radial functions of each place, (n * M, 1 + size)."""
    harmonics: Tensor
    """Of each place, (n * M, size)."""
    rotated: Tensor
    """(3, P * M)."""
    log_switch: Tensor
    """(n, T)."""
    weight: Tensor
    """Of each frame, (P,); nothing if there is one frame per atom."""


class GNNLayer(nn.Module):
    """Embed the neighbours as tokens, averaged over the frames, and transform these.

    A neighbour's token is W_2 <silu(W_1 [edge(r_j R, |r_j|), species_j, message_j] + b_j)> + b_2.
    The average < > is over the frames R of the centre; directions enter here only. What a neighbour
    is told of angles is b_j (`pet_mlip.network.density`).
    """

    def __init__(self, hypers: PETHypers, n_species: int, first: bool) -> None:
        super().__init__()
        width = hypers.d_pet
        self.first = first
        self.width = width
        self.n_directed = max(round(hypers.direction_share * width), 1)
        self.rounding = False
        self.edge_embedder = nn.Linear(4, width)
        if hypers.density_channels > 0:
            with torch.no_grad():
                self.edge_embedder.weight[:, :3] *= FIRST_DIRECTIONS
        # Without radial functions, and in the first layer, where the message is the neighbour's
        # species embedding already, there is nothing to embed: those weights are empty.
        bound = 1.0 / math.sqrt(max(hypers.num_radial, 1))
        radial = torch.empty(width, hypers.num_radial).uniform_(-bound, bound)
        self.radial_embedder = nn.Parameter(radial, requires_grad=hypers.num_radial > 0)
        self.neighbor_embedder = nn.Embedding(0 if first else n_species, width)
        self.neighbor_embedder.requires_grad_(not first)
        self.compress_in = nn.Linear((2 if first else 3) * width, width)
        self.compress_out = Linear(width, width)
        self.density: Density | NoDensity = (
            Density(hypers) if hypers.density_channels > 0 else NoDensity()
        )
        self.layers = nn.ModuleList(
            TransformerLayer(hypers) for _ in range(hypers.num_attention_layers)
        )

    def maps(self, first_messages: Tensor) -> EmbeddingMaps:
        """Fold the embeddings into the first linear map.

        Args:
            first_messages: Messages into the first layer by species, (n_species, D).
        """
        width = self.width
        weight = self.compress_in.weight
        of_edge, of_message = weight[:, :width], weight[:, weight.shape[1] - width :]
        cartesian = of_edge @ self.edge_embedder.weight
        constant = of_edge @ self.edge_embedder.bias + self.compress_in.bias
        if self.first:
            of_species = first_messages @ of_message.t()
        else:
            of_species = self.neighbor_embedder.weight @ weight[:, width : 2 * width].t()
        radial = of_edge @ self.radial_embedder
        return EmbeddingMaps(
            of_species + constant,
            of_message.t().to(self.compress_out.weight.dtype),
            torch.cat([cartesian[:, 3:], radial], dim=1).t(),
            cartesian[: self.n_directed, :3].t(),
        )

    def forward(
        self,
        nodes: Tensor,
        messages: Tensor,
        neighbor_species: Tensor,
        radial: Tensor,
        harmonics: Tensor,
        rotated: Tensor,
        block: Block,
        maps: EmbeddingMaps,
    ) -> tuple[Tensor, Tensor, LayerSaved]:
        """Evaluate a block.

        Args:
            nodes: Node features of all atoms, (N, D_node).
            messages: Messages of all edges, (E, D).
            neighbor_species: Of all edges, (E,) int64.
            radial: Distance and radial functions of all edges, (E, 1 + size).
            harmonics: Of the directions of all edges, (E, size).
            rotated: Of the block; see `pet_mlip.network.blocks.rotate`.
            block: Of some environments.
            maps: See `maps`.

        Returns:
            Node features (n, D_node), edge features (n, M, D), and what `vjp` needs.
        """
        n_atoms, n_tokens = block.log_switch.shape
        shape = [n_atoms, n_tokens - 1, self.width]
        tokens = maps.species.index_select(0, neighbor_species.index_select(0, block.padded))
        if not self.first:
            own = messages.index_select(0, block.padded).to(maps.messages.dtype)
            if torch.is_grad_enabled():
                tokens = torch.addmm(tokens, own, maps.messages)
            elif maps.messages.dtype == tokens.dtype:
                tokens.addmm_(own, maps.messages)
            else:
                tokens.add_(torch.matmul(own, maps.messages))
        own = radial.index_select(0, block.padded)
        tokens = add_product(tokens, own, maps.radial, self.rounding).view(shape)
        tokens, of_density = self.density(tokens, switch_of(block), harmonics_of(block, harmonics))
        directed, others = tokens[..., : self.n_directed], tokens[..., self.n_directed :]
        if block.weight.shape[0] > 0:
            directed = average_frames(
                directed.contiguous(),
                maps.coordinates,
                rotated,
                block.weight,
                block.owner,
                block.tiles,
                self.rounding,
            )
            hidden = join(directed, silu(others))
        else:
            directed = directed.reshape(-1, self.n_directed)
            directed = add_product(directed, rotated, maps.coordinates, self.rounding)
            tokens = join(directed.view(shape[0], shape[1], self.n_directed), others)
            hidden = silu(tokens)
        edges = self.compress_out(hidden).to(tokens.dtype)
        nodes = nodes.index_select(0, block.atoms)
        saved: list[Saved] = []
        for layer in self.layers:
            nodes, edges, of_layer = layer(nodes, edges, block.log_switch)
            saved.append(of_layer)
        return nodes, edges, LayerSaved(tokens, saved, of_density)

    def vjp(
        self,
        grad_nodes: Tensor,
        grad_edges: Tensor,
        harmonics: Tensor,
        rotated: Tensor,
        block: Block,
        maps: EmbeddingMaps,
        saved: LayerSaved,
    ) -> LayerGradient:
        """Compute the gradient over what the layer reads.

        Args:
            grad_nodes: Gradient over the node features out of the layer, (n, D_node).
            grad_edges: That over the edge features in each place, (n, M, D), zero where empty;
                overwritten.
            harmonics: As in `forward`.
            rotated: As in `forward`.
            block: The block.
            maps: See `maps`.
            saved: What `forward` returned.
        """
        grad_logs = torch.zeros_like(block.log_switch)
        n_layers = len(self.layers)
        for step in range(n_layers):
            for i, layer in enumerate(self.layers):
                if i == n_layers - 1 - step:
                    grad_nodes, grad_edges, of_logs = layer.vjp(  # type: ignore[operator]
                        grad_nodes, grad_edges, saved.layers[i]
                    )
                    grad_logs = grad_logs + of_logs
        grad_hidden = self.compress_out.vjp(grad_edges).to(grad_edges.dtype)
        grad_weight = block.weight
        if block.weight.shape[0] > 0:
            of_directed, grad_rotated, grad_weight = average_frames_vjp(
                grad_hidden[..., : self.n_directed].contiguous(),
                saved.tokens[..., : self.n_directed].contiguous(),
                maps.coordinates,
                rotated,
                block.weight,
                block.owner,
                block.tiles,
                self.rounding,
            )
            of_others = silu_vjp(
                grad_hidden[..., self.n_directed :], saved.tokens[..., self.n_directed :]
            )
            grad_tokens = join(of_directed, of_others)
        else:
            grad_tokens = silu_vjp(grad_hidden, saved.tokens)
            of_directed = grad_tokens[..., : self.n_directed].reshape(-1, self.n_directed)
            grad_rotated = (of_directed @ maps.coordinates.t()).t()
        grad_tokens, of_logs, grad_harmonics = self.density.vjp(
            grad_tokens, switch_of(block), harmonics_of(block, harmonics), saved.density
        )
        grad_tokens = grad_tokens.reshape(-1, self.width)
        grad_logs = grad_logs + torch.nn.functional.pad(of_logs, [1, 0])
        grad_messages = grad_tokens[:0]
        if not self.first:
            of_messages = torch.matmul(grad_tokens.to(maps.messages.dtype), maps.messages.t())
            grad_messages = of_messages.to(grad_tokens.dtype)
        grad_radial = grad_tokens @ maps.radial.t()
        return LayerGradient(
            grad_nodes,
            grad_messages,
            grad_radial,
            grad_harmonics.flatten(0, 1),
            grad_rotated,
            grad_logs,
            grad_weight,
        )


def switch_of(block: Block) -> Tensor:
    """Return the cutoff function of each place, (n, M, 1)."""
    return block.log_switch[:, 1:].exp().unsqueeze(2)


def harmonics_of(block: Block, harmonics: Tensor) -> Tensor:
    """Return the harmonics of each place, (n, M, size) of (E, size)."""
    n_atoms, n_tokens = block.log_switch.shape
    return harmonics.index_select(0, block.padded).view(n_atoms, n_tokens - 1, harmonics.shape[1])


def join(directed: Tensor, others: Tensor) -> Tensor:
    """Put channels that see directions before the others, if there are any, (n, M, D)."""
    return torch.cat([directed, others], dim=2) if others.shape[2] > 0 else directed
