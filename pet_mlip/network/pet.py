"""PET: layers, exchanges and readouts on all blocks, forward and back.

The forward pass keeps the features between layers, and what the derivative needs of as many blocks
as it may; the backward pass evaluates the others once more.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pet_mlip.ecse.frames import Frames
from pet_mlip.graph.chunks import extend
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.graph.inputs import Inputs
from pet_mlip.network.blocks import Block, make_blocks, rotate
from pet_mlip.network.conditioning import Conditioning, NoConditioning
from pet_mlip.network.exchange import Exchange, LearnedExchange
from pet_mlip.network.gradient import (
    GeometryGradient,
    NetworkGradient,
    add_rotated,
    to_geometry,
    zero_gradient,
)
from pet_mlip.network.layer import EmbeddingMaps, GNNLayer, LayerSaved
from pet_mlip.network.readout import Readout
from pet_mlip.network.results import ResultReadouts
from pet_mlip.network.transformer import TransformerLayer
from pet_mlip.network.uncertainty import Posterior, factors_of_members


class Trace(NamedTuple):
    """What the forward pass keeps."""

    maps: list[EmbeddingMaps]
    nodes: list[Tensor]
    """Node features into each layer."""
    messages: list[Tensor]
    """Messages into each layer."""
    edges: list[Tensor]
    """Edge features out of each layer."""
    layers: list[list[LayerSaved]]
    """Of each layer, on the first blocks."""
    exchanges: list[list[list[Tensor]]]
    """Of each exchange, on the first pieces."""
    read_nodes: list[Tensor]
    """Node features that each readout reads, of the last step's atoms."""
    read_edges: list[Tensor]
    """Edge features that each readout reads, of these atoms."""


class NetworkOutput(NamedTuple):
    """What the network says of N atoms, those of the last step."""

    energies: Tensor
    """(N,) float64."""
    results: dict[str, Tensor]
    """Others by name, (N,), (N, 3) or (N, 3, 3) float64."""
    last: Tensor
    """Last features, those of all readouts behind each other, (N, D) float64, if asked for."""
    gradients: list[GeometryGradient]
    """Of sum_i w_i E_i, zeros if not asked for; then of each member."""


class PET(nn.Module):
    """The network. Features live on nodes (N, D_node) and on directed edges (E, D).

    They are in the dtype of the parameters; geometry, frames and sums are float64.
    """

    def __init__(self, hypers: PETHypers, n_species: int) -> None:
        super().__init__()
        self.num_layers = hypers.num_gnn_layers
        self.residual = hypers.featurizer_type == "residual"
        self.width = hypers.d_pet
        self.node_width = hypers.d_node
        self.last_size = 2 * hypers.d_head * (self.num_layers if self.residual else 1)
        """Number of last features."""
        n_readouts = self.num_layers if self.residual else 1
        self.layers = nn.ModuleList(
            GNNLayer(hypers, n_species, first=i == 0) for i in range(self.num_layers)
        )
        self.exchanges = nn.ModuleList(Exchange(hypers) for _ in range(self.num_layers))
        self.node_embedders = nn.ModuleList(
            nn.Embedding(n_species, hypers.d_node) for _ in range(n_readouts)
        )
        self.edge_embedder = nn.Embedding(n_species, hypers.d_pet)
        self.readouts = nn.ModuleList(Readout(hypers) for _ in range(n_readouts))
        n_results = n_readouts if hypers.results else 0
        self.result_readouts = nn.ModuleList(ResultReadouts(hypers) for _ in range(n_results))
        self.conditioning: nn.Module = NoConditioning()
        if hypers.system_conditioning:
            self.conditioning = Conditioning(
                hypers.d_node, hypers.max_charge, hypers.max_spin_multiplicity
            )

    def forward(
        self,
        inputs: Inputs,
        radial: Tensor,
        harmonics: Tensor,
        frames: Frames,
        plain: bool,
        weights: Tensor,
        compute_gradient: bool,
        kept_tokens: int,
        block_size: int,
        compute_last: bool,
        posterior: Posterior,
    ) -> NetworkOutput:
        """Evaluate atoms, and gradients of sums over them.

        Args:
            inputs: The graph.
            radial: Distance and radial functions of each edge, (E, 1 + size), network's dtype.
            harmonics: Spherical harmonics of each edge's direction, (E, size), so too.
            frames: Of the centres.
            plain: Whether each centre has one frame, the identity, of weight one.
            weights: w of the last step's atoms, (N,) float64.
            compute_gradient: Whether to compute any; zeros otherwise.
            kept_tokens: Tokens (neighbours + 1, summed over atoms) whose activations may be kept
                for the gradient; 0 for all.
            block_size: Tokens evaluated at once.
            compute_last: Whether to return last features.
            posterior: Its members' products with the last features, times the atoms' factors of
                growth and summed over all atoms, are differentiated too; this needs last features.
        """
        blocks = make_blocks(inputs, frames, plain, block_size, self.width, radial.dtype)
        n_kept, pieces_kept = 0, 0
        if compute_gradient:
            n_kept = count_kept(blocks, kept_tokens)
            # Edges are kept like tokens: as many of them.
            pieces_kept = kept_tokens // block_size
            if n_kept == len(blocks):
                pieces_kept = inputs.centre.shape[0] // block_size + 1
        trace = self.run_layers(inputs, radial, harmonics, blocks, block_size, n_kept, pieces_kept)

        n_read = inputs.reach.edges[-1]
        switch, centre = inputs.switch[:n_read], inputs.centre[:n_read]
        gradient = zero_gradient(inputs, radial, harmonics, frames)
        energies = torch.zeros_like(weights)
        results: dict[str, Tensor] = {}
        last: list[Tensor] = []
        grad_nodes: list[Tensor] = []
        grad_edges: list[Tensor] = []
        for k, readout in enumerate(self.readouts):
            found, of_nodes, of_edges, of_last = readout(
                trace.read_nodes[k],
                trace.read_edges[k],
                centre,
                switch,
                weights,
                block_size,
                compute_gradient,
                compute_last,
                gradient.switch,
            )
            energies = energies + found
            last.append(of_last)
            grad_nodes.append(of_nodes)
            grad_edges.append(of_edges)
        for k, readout in enumerate(self.result_readouts):
            of_layer = readout(
                trace.read_nodes[k],
                trace.read_edges[k],
                centre,
                switch,
                inputs.vectors[:n_read],
                block_size,
            )
            results = add_by_name(results, of_layer)
        of_atoms = torch.cat(last, dim=1)
        members = posterior.members
        factor = factors_of_members(posterior, of_atoms, inputs.species[: of_atoms.shape[0]])
        gradients: list[GeometryGradient] = []
        for k in range(1 + members.shape[0]):
            if k > 0:
                gradient = zero_gradient(inputs, radial, harmonics, frames)
                grad_nodes, grad_edges = self.last_vjp(
                    factor * members[k - 1], trace, centre, switch, block_size, gradient.switch
                )
            if compute_gradient:
                self.backpropagate(
                    inputs,
                    radial,
                    harmonics,
                    blocks,
                    block_size,
                    trace,
                    grad_nodes,
                    grad_edges,
                    gradient,
                )
            gradients.append(to_geometry(gradient, inputs))
        return NetworkOutput(energies, results, of_atoms, gradients)

    def run_layers(
        self,
        inputs: Inputs,
        radial: Tensor,
        harmonics: Tensor,
        blocks: list[Block],
        block_size: int,
        n_kept: int,
        pieces_kept: int,
    ) -> Trace:
        """Evaluate all layers and exchanges.

        Args:
            inputs: As in `forward`.
            radial: As in `forward`.
            harmonics: As in `forward`.
            blocks: All blocks.
            block_size: As in `forward`.
            n_kept: How many of the first blocks keep their activations.
            pieces_kept: How many of the first pieces of edges do, in exchanges.
        """
        n_own, n_read = inputs.reach.atoms[-1], inputs.reach.edges[-1]
        all_maps: list[EmbeddingMaps] = []
        all_nodes: list[Tensor] = []
        all_messages: list[Tensor] = []
        all_edges: list[Tensor] = []
        of_layers: list[list[LayerSaved]] = []
        of_exchanges: list[list[list[Tensor]]] = []
        read_nodes: list[Tensor] = []
        read_edges: list[Tensor] = []
        messages = self.edge_embedder(inputs.neighbor_species)
        nodes = self.embed_nodes(0, inputs.species)
        for i, (layer, exchange) in enumerate(zip(self.layers, self.exchanges, strict=True)):
            if self.residual:
                nodes = self.embed_nodes(i, inputs.species)
            maps: EmbeddingMaps = layer.maps(self.edge_embedder.weight)  # type: ignore[operator]
            all_maps.append(maps)
            all_nodes.append(nodes)
            all_messages.append(messages)
            nodes_out, edges, kept = self.run_layer(
                i, inputs, radial, harmonics, blocks, n_kept, nodes, messages, maps
            )
            nodes = self.conditioning(nodes_out, inputs.electronic[: nodes_out.shape[0]])
            all_edges.append(edges)
            of_layers.append(kept)
            if not self.residual or i + 1 < self.num_layers:
                reverse = inputs.reverse[: inputs.reach.edges[i + 1]]
                messages, pieces = exchange(messages, edges, reverse, block_size, pieces_kept)
                of_exchanges.append(pieces)
            if self.residual or i + 1 == self.num_layers:
                read_nodes.append(nodes[:n_own])
                read_edges.append((edges if self.residual else messages)[:n_read])
        return Trace(
            all_maps,
            all_nodes,
            all_messages,
            all_edges,
            of_layers,
            of_exchanges,
            read_nodes,
            read_edges,
        )

    def run_layer(
        self,
        number: int,
        inputs: Inputs,
        radial: Tensor,
        harmonics: Tensor,
        blocks: list[Block],
        n_kept: int,
        nodes: Tensor,
        messages: Tensor,
        maps: EmbeddingMaps,
    ) -> tuple[Tensor, Tensor, list[LayerSaved]]:
        """Evaluate one layer on all blocks.

        Args:
            number: Of the layer.
            inputs: As in `forward`.
            radial: As in `forward`.
            harmonics: As in `forward`.
            blocks: All blocks.
            n_kept: How many of the first keep their activations.
            nodes: Into the layer, of all atoms.
            messages: Into the layer, of all edges.
            maps: Of the layer.

        Returns:
            Nodes and edges out of the layer, and the activations.
        """
        nodes_out = radial.new_zeros(inputs.reach.atoms[number], self.node_width)
        edges_out = radial.new_zeros(inputs.reach.edges[number], self.width)
        activations: list[LayerSaved] = []
        for k, block in enumerate(blocks):
            if block.last_layer >= number:
                for i, layer in enumerate(self.layers):
                    if i == number:
                        of_atoms, of_places, saved = layer(
                            nodes,
                            messages,
                            inputs.neighbor_species,
                            radial,
                            harmonics,
                            rotate(block),
                            block,
                            maps,
                        )
                        nodes_out.index_add_(0, block.atoms, of_atoms)
                        of_edges = of_places.reshape(-1, self.width)
                        if block.empty.shape[0] > 0:
                            of_edges = of_edges.index_select(0, block.places)
                        edges_out.index_add_(0, block.edges, of_edges)
                        if k < n_kept:
                            activations.append(saved)
        return nodes_out, edges_out, activations

    def embed_nodes(self, layer: int, species: Tensor) -> Tensor:
        """Return node features from the species alone, as layer ``layer`` starts from them."""
        features = torch.zeros(0)
        for i, embedder in enumerate(self.node_embedders):
            if i == layer:
                features = embedder(species)
        return features

    def backpropagate(
        self,
        inputs: Inputs,
        radial: Tensor,
        harmonics: Tensor,
        blocks: list[Block],
        block_size: int,
        trace: Trace,
        grad_read_nodes: list[Tensor],
        grad_read_edges: list[Tensor],
        gradient: NetworkGradient,
    ) -> None:
        """Add the gradient through the layers to ``gradient``.

        Args:
            inputs: As in `forward`.
            radial: As in `forward`.
            harmonics: As in `forward`.
            blocks: All blocks.
            block_size: As in `forward`.
            trace: What the forward pass kept.
            grad_read_nodes: Gradient over the nodes that each readout reads.
            grad_read_edges: Gradient over the edges that each readout reads; overwritten.
            gradient: Added to.
        """
        grad_nodes, grad_messages = grad_read_nodes[-1], grad_read_edges[-1]
        for step in range(self.num_layers):
            number = self.num_layers - 1 - step
            grad_edges = torch.zeros_like(trace.edges[number])
            if self.residual:
                grad_nodes = grad_read_nodes[number]
                grad_edges[: inputs.reach.edges[-1]] += grad_read_edges[number]
            if not self.residual or step > 0:
                reverse = inputs.reverse[: inputs.reach.edges[number + 1]]
                for i, exchange in enumerate(self.exchanges):
                    if i == number:
                        grad_messages = exchange.vjp(  # type: ignore[operator]
                            trace.messages[i],
                            trace.edges[i],
                            reverse,
                            block_size,
                            trace.exchanges[i],
                            grad_messages,
                            grad_edges,
                        )
            else:
                grad_messages = torch.zeros_like(trace.messages[number])
            grad_nodes = extend(grad_nodes, inputs.reach.atoms[number])
            grad_nodes = self.layer_vjp(
                number,
                inputs,
                radial,
                harmonics,
                blocks,
                trace,
                grad_nodes,
                grad_edges,
                grad_messages,
                gradient,
            )

    def layer_vjp(
        self,
        number: int,
        inputs: Inputs,
        radial: Tensor,
        harmonics: Tensor,
        blocks: list[Block],
        trace: Trace,
        grad_nodes: Tensor,
        grad_edges: Tensor,
        grad_messages: Tensor,
        gradient: NetworkGradient,
    ) -> Tensor:
        """Go back through one layer; return the gradient over its nodes.

        Args:
            number: Of the layer.
            inputs: As in `forward`.
            radial: As in `forward`.
            harmonics: As in `forward`.
            blocks: All blocks.
            trace: What the forward pass kept; other blocks are evaluated once more.
            grad_nodes: Gradient over the nodes out of the layer.
            grad_edges: Gradient over the edges out of the layer.
            grad_messages: The gradient over the messages is added here.
            gradient: Everything else is added here.
        """
        nodes, maps, kept = trace.nodes[number], trace.maps[number], trace.layers[number]
        into = radial.new_zeros(nodes.shape[0], self.node_width)
        n_done = 0
        for block in blocks:
            if block.last_layer >= number:
                n, n_tokens = block.log_switch.shape
                of_places = grad_edges.index_select(0, block.padded)
                of_places = of_places.view(n, n_tokens - 1, self.width)
                if block.empty.shape[0] > 0:
                    of_places = of_places.masked_fill(block.empty, 0.0)
                of_nodes = grad_nodes.index_select(0, block.atoms)
                rotated = rotate(block)
                for i, layer in enumerate(self.layers):
                    if i == number:
                        if n_done < len(kept):
                            saved = kept[n_done]
                            n_done += 1
                        else:
                            messages = trace.messages[number]
                            _, _, saved = layer(
                                nodes,
                                messages,
                                inputs.neighbor_species,
                                radial,
                                harmonics,
                                rotated,
                                block,
                                maps,
                            )
                        found = layer.vjp(  # type: ignore[operator]
                            of_nodes, of_places, harmonics, rotated, block, maps, saved
                        )
                        into.index_add_(0, block.atoms, found.nodes)
                        of_radial, of_harmonics = found.radial, found.harmonics
                        of_switch = found.log_switch[:, 1:].reshape(-1)
                        of_message = found.messages
                        if block.empty.shape[0] > 0:
                            of_radial = of_radial.index_select(0, block.places)
                            of_harmonics = of_harmonics.index_select(0, block.places)
                            of_switch = of_switch.index_select(0, block.places)
                            if number > 0:
                                of_message = of_message.index_select(0, block.places)
                        if number > 0:
                            grad_messages.index_add_(0, block.edges, of_message)
                        gradient.radial.index_add_(0, block.edges, of_radial)
                        gradient.harmonics.index_add_(0, block.edges, of_harmonics)
                        gradient.log_switch.index_add_(0, block.edges, of_switch)
                        add_rotated(gradient, block, found.rotated, found.weight)
        return into

    def last_vjp(
        self,
        grad: Tensor,
        trace: Trace,
        centre: Tensor,
        switch: Tensor,
        piece: int,
        grad_switch: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the gradients over what readouts read from that over all last features.

        Args:
            grad: (N, D) float64.
            trace: What the forward pass kept.
            centre: Of the edges that are read, (E,) int64.
            switch: Cutoff function of the edges that are read, float64.
            piece: Edges evaluated at once.
            grad_switch: The gradient over the cutoff function is added to its first rows.
        """
        grad_nodes: list[Tensor] = []
        grad_edges: list[Tensor] = []
        of_readouts = grad.chunk(len(self.readouts), dim=1)
        for k, readout in enumerate(self.readouts):
            of_nodes, of_edges = readout.last_vjp(  # type: ignore[operator]
                of_readouts[k],
                trace.read_nodes[k],
                trace.read_edges[k],
                centre,
                switch,
                piece,
                grad_switch,
            )
            grad_nodes.append(of_nodes)
            grad_edges.append(of_edges)
        return grad_nodes, grad_edges

    @torch.jit.unused
    def fold(self) -> None:
        """Let linear maps take over norms' weights and scales, for good: cheaper, not trainable."""
        for module in self.modules():
            if isinstance(module, TransformerLayer):
                module.fold()
            elif isinstance(module, LearnedExchange):
                module.norm.fold_into(module.w_in)


def add_by_name(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the values of equal names; names of the second that the first lacks start from zero."""
    total: dict[str, Tensor] = {}
    for name, value in second.items():
        total[name] = first[name] + value if name in first else value
    return total


def count_kept(blocks: list[Block], kept_tokens: int) -> int:
    """Count how many of the first blocks fit into that many tokens; all of them if it is zero."""
    n_kept, total = 0, 0
    for block in blocks:
        total += block.n_tokens
        if kept_tokens == 0 or total <= kept_tokens:
            n_kept += 1
    return n_kept
