"""One message-passing layer on a block of frames."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pet_mlip.inference.blocks import Block
from pet_mlip.inference.encoder import Encoder
from pet_mlip.inference.functions import add_exact_product
from pet_mlip.inference.linear import Product
from pet_mlip.model.layer import GNNLayer as Reference


class LayerActivations(NamedTuple):
    """What the derivative of a layer on a block needs."""

    encoder: list[Tensor]
    """Of the encoder."""
    nodes: Tensor
    """Node features in each frame, (P, D_node); nothing if there is one frame per atom."""
    edges: Tensor
    """Edge tokens in each frame, (P, M, D); nothing if there is one frame per atom."""
    hidden: Tensor
    """Hidden values of the last transformer, (P, M, F); nothing if there is one frame per atom."""


class LayerGradient(NamedTuple):
    """Gradient over what a layer reads of a block, in the network's dtype."""

    nodes: Tensor
    """Of each atom, (n, D_node)."""
    messages: Tensor
    """Of each place, (n * M, D); nothing in the first layer, whose messages are constant."""
    radial: Tensor
    """Distance and radial functions of each place, (n * M, 1 + size)."""
    rotated: Tensor
    """(P * M, 3)."""
    log_switch: Tensor
    """(n, T)."""
    weight: Tensor
    """Of each frame, (P,); nothing if there is one frame per atom."""


class GNNLayer(nn.Module):
    """See `pet_mlip.model.layer.GNNLayer`; the token MLP's first map is split by what it reads.

    Args:
        reference: Where the weights come from.
        first_messages: Messages into the first layer by species, (n_species, D).
        node_width: D_node.
    """

    of_species: Tensor
    of_radial: Tensor
    of_coordinates: Tensor

    def __init__(self, reference: Reference, first_messages: Tensor, node_width: int) -> None:
        super().__init__()
        self.first = reference.first
        width = reference.width
        weight = reference.compress_in.weight
        of_edge, of_message = weight[:, :width], weight[:, weight.shape[1] - width :]
        cartesian = of_edge @ reference.edge_embedder.weight
        constant = of_edge @ reference.edge_embedder.bias + reference.compress_in.bias
        if reference.first:
            of_species = first_messages @ of_message.t()
        else:
            of_species = reference.neighbor_embedder.weight @ weight[:, width : 2 * width].t()
        radial = of_edge @ reference.radial_embedder
        self.register_buffer("of_species", (of_species + constant).detach().clone())
        self.of_messages = Product(of_message)
        of_radial = torch.cat([cartesian[:, 3:], radial], dim=1)
        self.register_buffer("of_radial", of_radial.detach().t().clone())
        self.register_buffer("of_coordinates", cartesian[:, :3].detach().t().clone())
        self.encoder = Encoder(reference, node_width)
        # Whether products round their operands, which coordinates must not be.
        self.rounding = False

    def forward(
        self,
        nodes: Tensor,
        messages: Tensor,
        neighbor_species: Tensor,
        radial: Tensor,
        block: Block,
    ) -> tuple[Tensor, Tensor, LayerActivations]:
        """Evaluate a block.

        Args:
            nodes: As in `open`.
            messages: As in `open`.
            neighbor_species: As in `open`.
            radial: As in `open`.
            block: As in `open`.

        Returns:
            Sums over the block's frames of each atom: node features (n, D_node), and edge features
            in each place, (n, M, D).
        """
        nodes, edges, hidden, saved = self.open(nodes, messages, neighbor_species, radial, block)
        if block.weight.shape[0] == 0:
            return nodes, self.encoder.close(edges, hidden, block.weight), saved
        total_nodes = sum_frames(nodes, block)
        total_edges, total_hidden = sum_frames(edges, block), sum_frames(hidden, block)
        total_edges = self.encoder.close(total_edges, total_hidden, add_frames(block.weight, block))
        return total_nodes, total_edges, saved

    def open(
        self,
        nodes: Tensor,
        messages: Tensor,
        neighbor_species: Tensor,
        radial: Tensor,
        block: Block,
    ) -> tuple[Tensor, Tensor, Tensor, LayerActivations]:
        """Evaluate a block up to the average over frames: all that the derivative needs.

        Args:
            nodes: Node features of all atoms, (N, D_node).
            messages: Incoming messages of all edges, (E, D); not read by the first layer.
            neighbor_species: Species index of the neighbour on each edge, (E,) int64.
            radial: Distance and radial functions of each edge, (E, 1 + size).
            block: Some frames.

        Returns:
            Of each frame nodes (P, D_node), edges and hidden values (P, M, ...) as the encoder
            leaves them open, and the rest.
        """
        n_atoms, n_tokens = block.log_switch.shape
        width = self.of_coordinates.shape[1]
        shape = [n_atoms, n_tokens - 1, width]
        averaging = block.weight.shape[0] > 0
        species = neighbor_species.index_select(0, block.padded)
        tokens = self.of_species.index_select(0, species)
        if not self.first:
            self.of_messages.add_to(tokens, messages.index_select(0, block.padded))
        self.add_geometry(tokens, radial.index_select(0, block.padded), self.of_radial)
        nodes = nodes.index_select(0, block.atoms)
        log_switch = block.log_switch
        if averaging:
            tokens = tokens.view(shape).index_select(0, block.owner).view(-1, width)
            nodes = nodes.index_select(0, block.owner)
            log_switch = log_switch.index_select(0, block.owner)
        self.add_geometry(tokens, block.rotated, self.of_coordinates)
        nodes, edges, hidden, saved = self.encoder(
            nodes, tokens.view(nodes.shape[0], n_tokens - 1, width), log_switch
        )
        if not averaging:
            return nodes, edges, hidden, LayerActivations(saved, nodes[:0], edges[:0], edges[:0])
        return nodes, edges, hidden, LayerActivations(saved, nodes, edges, hidden)

    def add_geometry(self, tokens: Tensor, features: Tensor, weight: Tensor) -> None:
        """Add ``features weight`` to the tokens, without rounding either."""
        if self.rounding:
            add_exact_product(tokens, features, weight)
        else:
            tokens.addmm_(features, weight)

    def vjp(
        self, of_nodes: Tensor, of_edges: Tensor, block: Block, saved: LayerActivations
    ) -> LayerGradient:
        """Gradient over what the layer reads.

        Args:
            of_nodes: Gradient over the node features out of the layer, (n, D_node).
            of_edges: That over the edge features in each place, (n, M, D), zero where empty;
                overwritten.
            block: The block.
            saved: What `forward` returned.
        """
        n_tokens = block.log_switch.shape[1]
        width = self.of_coordinates.shape[1]
        averaging = block.weight.shape[0] > 0
        of_hidden, of_weight = self.encoder.close_vjp(of_edges, averaging)
        if averaging:
            of_weight = of_weight.index_select(0, block.owner)
            of_nodes, of_frames = share_frames(of_nodes, saved.nodes, block)
            of_weight += of_frames
            of_edges, of_frames = share_frames(of_edges, saved.edges, block)
            of_weight += of_frames
            of_hidden, of_frames = share_frames(of_hidden, saved.hidden, block)
            of_weight += of_frames
        of_nodes, of_tokens, of_log_switch = self.encoder.vjp(
            of_nodes, of_edges, of_hidden, saved.encoder
        )
        of_tokens = of_tokens.reshape(-1, width)
        of_rotated = of_tokens @ self.of_coordinates.t()
        if averaging:
            places = [of_nodes.shape[0], (n_tokens - 1) * width]
            of_tokens = add_frames(of_tokens.view(places), block).view(-1, width)
            of_nodes = add_frames(of_nodes, block)
            of_log_switch = add_frames(of_log_switch, block)
        of_messages = of_tokens[:0]
        if not self.first:
            of_messages = self.of_messages.vjp(of_tokens).to(of_tokens.dtype)
        of_radial = of_tokens @ self.of_radial.t()
        return LayerGradient(of_nodes, of_messages, of_radial, of_rotated, of_log_switch, of_weight)


def add_frames(values: Tensor, block: Block) -> Tensor:
    """Sums over the block's frames of each atom, (n, ...) of values (P, ...)."""
    shape = list(values.shape)
    shape[0] = block.atoms.shape[0]
    return values.new_zeros(shape).index_add_(0, block.owner, values)


def sum_frames(values: Tensor, block: Block) -> Tensor:
    """Weighted sums over the block's frames of each atom, (n, ...) of values (P, ...)."""
    shape = [values.shape[0]] + [1] * (values.dim() - 1)
    return add_frames(values * block.weight.view(shape), block)


def share_frames(given: Tensor, values: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Gradient over the values (P, ...) and the weights (P,) of `sum_frames`."""
    shared = given.index_select(0, block.owner)
    dims = list(range(1, shared.dim()))
    of_weight = (shared * values).sum(dim=dims)
    shape = [shared.shape[0]] + [1] * (shared.dim() - 1)
    return shared.mul_(block.weight.view(shape)), of_weight
