"""Energies of a graph in given frames, and their gradient.

The forward pass keeps the features between layers, and what the derivative needs of as many blocks
as it may; the backward pass evaluates the others once more.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from pet_mlip.ecse.frames import Frames
from pet_mlip.inference.blocks import Block, make_blocks
from pet_mlip.inference.exchange import make_exchanges
from pet_mlip.inference.gradient import (
    GeometryGradient,
    NetworkGradient,
    to_geometry,
    zero_gradient,
)
from pet_mlip.inference.layer import GNNLayer, LayerActivations
from pet_mlip.inference.readout import make_readouts
from pet_mlip.inference.sweep import LayerSweep
from pet_mlip.model.chunks import extend
from pet_mlip.model.inputs import Inputs
from pet_mlip.model.layer import GNNLayer as ReferenceLayer
from pet_mlip.model.pet import PET


class Trace(NamedTuple):
    """What the forward pass keeps."""

    nodes: list[Tensor]
    """Node features into each layer."""
    messages: list[Tensor]
    """Messages into each layer."""
    edges: list[Tensor]
    """Edge features out of each layer."""
    layers: list[list[LayerActivations]]
    """Of each layer, on the first blocks."""
    exchanges: list[list[list[Tensor]]]
    """Of each exchange, on the first pieces."""
    of_nodes: list[Tensor]
    """Gradient over the nodes that each readout reads."""
    of_edges: list[Tensor]
    """Gradient over the edges that each readout reads."""


class Network(nn.Module):
    """The network of a `Potential`."""

    first_messages: Tensor

    def __init__(self, pet: PET) -> None:
        super().__init__()
        self.num_layers = pet.num_layers
        self.residual = pet.residual
        first_messages = pet.edge_embedder.weight.detach().clone()
        self.register_buffer("first_messages", first_messages)
        self.node_embedders = pet.node_embedders
        self.conditioning = pet.conditioning
        node_width = first_messages.shape[1]
        for embedder in pet.node_embedders:
            node_width = cast(nn.Embedding, embedder).embedding_dim
        self.layers = nn.ModuleList(
            LayerSweep(
                GNNLayer(cast(ReferenceLayer, layer), first_messages, node_width), i, node_width
            )
            for i, layer in enumerate(pet.layers)
        )
        self.exchanges = make_exchanges(pet)
        self.readouts = make_readouts(pet)

    def forward(
        self,
        inputs: Inputs,
        radial: Tensor,
        frames: Frames,
        plain: bool,
        weights: Tensor,
        compute_gradient: bool,
        kept_tokens: int,
        block_size: int,
    ) -> tuple[Tensor, GeometryGradient]:
        """Atomic energies of the last step's atoms, (N,) float64, and the gradient.

        Args:
            inputs: The graph; only its values are read.
            radial: Distance and radial functions of each edge, (E, 1 + size), network's dtype.
            frames: Of the centres.
            plain: Whether each centre has one frame, the identity, of weight one.
            weights: The gradient is that of sum_i w_i E_i; (N,) float64.
            compute_gradient: Whether to compute it; zeros otherwise.
            kept_tokens: Tokens (neighbours + 1, summed over frames) whose activations may be kept
                for the gradient; 0 for all.
            block_size: Tokens evaluated at once.
        """
        blocks = make_blocks(inputs, frames, plain, block_size, radial.dtype)
        n_kept = 0
        if compute_gradient:
            n_kept = count_kept(blocks, kept_tokens)
        # Edges are kept like tokens: as many of them.
        pieces_kept = kept_tokens // block_size
        if not compute_gradient:
            pieces_kept = 0
        elif n_kept == len(blocks):
            pieces_kept = inputs.centre.shape[0] // block_size + 1
        gradient = zero_gradient(inputs, radial, blocks)
        trace = Trace([], [], [], [], [], [], [])
        n_own, n_read = inputs.reach.atoms[-1], inputs.reach.edges[-1]
        switch, centre = inputs.switch.detach()[:n_read], inputs.centre[:n_read]
        energies = torch.zeros_like(weights)
        messages = self.first_messages.index_select(0, inputs.neighbor_species)
        nodes = self.embed_nodes(0, inputs.species)
        n_readouts = len(self.readouts)
        for i, (sweep, exchange) in enumerate(zip(self.layers, self.exchanges, strict=True)):
            if self.residual:
                nodes = self.embed_nodes(i, inputs.species)
            trace.nodes.append(nodes)
            trace.messages.append(messages)
            nodes, edges, kept = sweep(inputs, radial, blocks, nodes, messages, n_kept)
            nodes = self.conditioning(nodes, inputs.electronic[: nodes.shape[0]])
            trace.edges.append(edges)
            trace.layers.append(kept)
            if not self.residual or i + 1 < self.num_layers:
                reverse = inputs.reverse[: inputs.reach.edges[i + 1]]
                messages, pieces = exchange(messages, edges, reverse, block_size, pieces_kept)
                trace.exchanges.append(pieces)
            read = edges if self.residual else messages
            for k, readout in enumerate(self.readouts):
                if i == self.num_layers - n_readouts + k:
                    found, of_nodes, of_edges = readout(
                        nodes[:n_own],
                        read[:n_read],
                        centre,
                        switch,
                        weights,
                        block_size,
                        compute_gradient,
                        gradient.switch,
                    )
                    energies += found
                    trace.of_nodes.append(of_nodes)
                    trace.of_edges.append(of_edges)
        if compute_gradient:
            self.backpropagate(inputs, radial, blocks, block_size, trace, gradient)
        return energies, to_geometry(gradient, inputs, frames, blocks)

    def embed_nodes(self, layer: int, species: Tensor) -> Tensor:
        """Node features from the species alone, as layer ``layer`` starts from them."""
        features = torch.zeros(0)
        for i, embedder in enumerate(self.node_embedders):
            if i == layer:
                features = embedder(species)
        return features

    def backpropagate(
        self,
        inputs: Inputs,
        radial: Tensor,
        blocks: list[Block],
        block_size: int,
        trace: Trace,
        gradient: NetworkGradient,
    ) -> None:
        """Add the gradient through the layers to ``gradient``."""
        of_nodes, of_messages = trace.of_nodes[-1], trace.of_edges[-1]
        for step in range(self.num_layers):
            number = self.num_layers - 1 - step
            of_edges = torch.zeros_like(trace.edges[number])
            if self.residual:
                of_nodes = trace.of_nodes[number]
                of_edges[: inputs.reach.edges[-1]] += trace.of_edges[number]
            if not self.residual or step > 0:
                reverse = inputs.reverse[: inputs.reach.edges[number + 1]]
                for i, exchange in enumerate(self.exchanges):
                    if i == number:
                        of_messages = exchange.vjp(  # type: ignore[operator]
                            trace.messages[i],
                            trace.edges[i],
                            reverse,
                            block_size,
                            trace.exchanges[i],
                            of_messages,
                            of_edges,
                        )
            else:
                of_messages = torch.zeros_like(trace.messages[number])
            of_nodes = extend(of_nodes, inputs.reach.atoms[number])
            for i, sweep in enumerate(self.layers):
                if i == number:
                    of_nodes = sweep.vjp(  # type: ignore[operator]
                        inputs,
                        radial,
                        blocks,
                        trace.nodes[i],
                        trace.messages[i],
                        trace.layers[i],
                        of_nodes,
                        of_edges,
                        of_messages,
                        gradient,
                    )


def count_kept(blocks: list[Block], kept_tokens: int) -> int:
    """How many of the first blocks fit into that many tokens; all of them if it is zero."""
    n_kept, total = 0, 0
    for block in blocks:
        total += block.n_tokens
        if kept_tokens == 0 or total <= kept_tokens:
            n_kept += 1
    return n_kept
