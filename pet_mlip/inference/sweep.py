"""One message-passing layer on all blocks, forward and back."""

import torch
from torch import Tensor, nn

from pet_mlip.inference.blocks import Block
from pet_mlip.inference.gradient import NetworkGradient
from pet_mlip.inference.layer import GNNLayer, LayerActivations
from pet_mlip.model.inputs import Inputs


class LayerSweep(nn.Module):
    """Evaluates the layer that is number ``number`` on the blocks that need it."""

    def __init__(self, layer: GNNLayer, number: int, node_width: int) -> None:
        super().__init__()
        self.layer = layer
        self.number = number
        self.node_width = node_width

    def forward(
        self,
        inputs: Inputs,
        radial: Tensor,
        blocks: list[Block],
        nodes: Tensor,
        messages: Tensor,
        n_kept: int,
    ) -> tuple[Tensor, Tensor, list[LayerActivations]]:
        """Node and edge features out of the layer, and the activations of the first blocks.

        Args:
            inputs: The graph.
            radial: Distance and radial functions of each edge, (E, 1 + size).
            blocks: All of them.
            nodes: Node features into the layer.
            messages: Messages into the layer.
            n_kept: How many blocks' activations to keep.
        """
        n_atoms, n_edges = inputs.reach.atoms[self.number], inputs.reach.edges[self.number]
        nodes_out = torch.zeros(n_atoms, self.node_width, dtype=radial.dtype, device=radial.device)
        edges_out = torch.zeros(
            n_edges, messages.shape[1], dtype=radial.dtype, device=radial.device
        )
        kept: list[LayerActivations] = []
        for k, block in enumerate(blocks):
            if block.last_layer >= self.number:
                of_atoms, of_places, saved = self.layer(
                    nodes, messages, inputs.neighbor_species, radial, block
                )
                nodes_out.index_add_(0, block.atoms, of_atoms)
                of_edges = of_places.reshape(-1, messages.shape[1])
                if block.empty.shape[0] > 0:
                    of_edges = of_edges.index_select(0, block.places)
                edges_out.index_add_(0, block.edges, of_edges)
                if k < n_kept:
                    kept.append(saved)
        return nodes_out, edges_out, kept

    def vjp(
        self,
        inputs: Inputs,
        radial: Tensor,
        blocks: list[Block],
        nodes: Tensor,
        messages: Tensor,
        kept: list[LayerActivations],
        of_nodes: Tensor,
        of_edges: Tensor,
        of_messages: Tensor,
        gradient: NetworkGradient,
    ) -> Tensor:
        """Gradient over the nodes into the layer.

        Args:
            inputs: As in `forward`.
            radial: As in `forward`.
            blocks: As in `forward`.
            nodes: As in `forward`.
            messages: As in `forward`.
            kept: Activations that `forward` returned; other blocks are evaluated once more.
            of_nodes: Gradient over the nodes out of the layer.
            of_edges: Gradient over the edges out of the layer.
            of_messages: The gradient over the messages is added here.
            gradient: Everything else is added here.
        """
        width = of_edges.shape[1]
        into = torch.zeros(
            nodes.shape[0], of_nodes.shape[1], dtype=nodes.dtype, device=nodes.device
        )
        n_done = 0
        for k, block in enumerate(blocks):
            if block.last_layer >= self.number:
                if n_done < len(kept):
                    saved = kept[n_done]
                    n_done += 1
                else:
                    _, _, _, saved = self.layer.open(
                        nodes, messages, inputs.neighbor_species, radial, block
                    )
                n, n_tokens = block.log_switch.shape
                of_places = of_edges.index_select(0, block.padded).view(n, n_tokens - 1, width)
                if block.empty.shape[0] > 0:
                    of_places.masked_fill_(block.empty, 0.0)
                found = self.layer.vjp(
                    of_nodes.index_select(0, block.atoms), of_places, block, saved
                )
                into.index_add_(0, block.atoms, found.nodes)
                of_radial, of_switch = found.radial, found.log_switch[:, 1:].reshape(-1)
                of_message = found.messages
                if block.empty.shape[0] > 0:
                    of_radial = of_radial.index_select(0, block.places)
                    of_switch = of_switch.index_select(0, block.places)
                    if self.number > 0:
                        of_message = of_message.index_select(0, block.places)
                if self.number > 0:
                    of_messages.index_add_(0, block.edges, of_message)
                gradient.radial.index_add_(0, block.edges, of_radial)
                gradient.log_switch.index_add_(0, block.edges, of_switch)
                gradient.rotated[k].add_(found.rotated)
                gradient.weight[k].add_(found.weight)
        return into
