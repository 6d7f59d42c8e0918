"""One message-passing layer: the transformer over an environment, averaged over its frames."""

import math

import torch
from torch import Tensor, nn

from pet_mlip.ecse.frames import Frames
from pet_mlip.model.environment import Environment
from pet_mlip.network.hypers import PETHypers
from pet_mlip.network.radial import RadialBasis
from pet_mlip.model.transformer import TransformerLayer


class GNNLayer(nn.Module):
    """Reads directions in every frame of the centre and returns invariant features.

    A neighbour's token is MLP[edge(r_j R, |r_j|), species_j, message_j]; nodes and edges come out
    averaged over the frames R with their weights.
    """

    def __init__(self, hypers: PETHypers, n_species: int, first: bool) -> None:
        super().__init__()
        width = hypers.d_pet
        self.first = first
        self.width = width
        self.edge_embedder = nn.Linear(4, width)
        self.radial = RadialBasis(hypers.num_radial, hypers.cutoff)
        # Without radial functions, and in the first layer, where the message is the neighbour's
        # species embedding already, there is nothing to embed: those weights are empty.
        bound = 1.0 / math.sqrt(max(hypers.num_radial, 1))
        radial = torch.empty(width, hypers.num_radial).uniform_(-bound, bound)
        self.radial_embedder = nn.Parameter(radial, requires_grad=hypers.num_radial > 0)
        self.neighbor_embedder = nn.Embedding(0 if first else n_species, width)
        self.neighbor_embedder.requires_grad_(not first)
        self.compress_in = nn.Linear((2 if first else 3) * width, width)
        self.compress_out = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            TransformerLayer(hypers) for _ in range(hypers.num_attention_layers)
        )

    def forward(
        self,
        nodes: Tensor,
        messages: Tensor,
        neighbor_species: Tensor,
        environment: Environment,
        frames: Frames,
    ) -> tuple[Tensor, Tensor]:
        """Evaluate N atoms with E edges.

        Args:
            nodes: Node features, (N, D_node).
            messages: Incoming messages, ordered by centre, (E, D).
            neighbor_species: Species index of each edge's neighbour, (E,) int64.
            environment: Padded geometry of the same edges.
            frames: Frames of the same atoms.

        Returns:
            Node features (N, D_node) and edge features (E, D).
        """
        n_atoms, n_neighbors = environment.padding.mask.shape
        tokens, log_switch = self.embed(messages, neighbor_species, environment, frames)
        # Each atom has a frame, so as many frames as atoms means exactly one each, of weight one.
        averaging = frames.atom.shape[0] != n_atoms
        if averaging:
            log_switch = log_switch.index_select(0, frames.atom)
            nodes = nodes.index_select(0, frames.atom)
        nodes = nodes.unsqueeze(1)
        for layer in self.layers:
            nodes, tokens = layer(nodes, tokens, log_switch)
        nodes = nodes.squeeze(1)
        if averaging:
            weight = frames.weight.to(nodes.dtype)
            nodes = average(nodes, weight[:, None], frames.atom, n_atoms)
            tokens = average(tokens, weight[:, None, None], frames.atom, n_atoms)
        places = environment.padding.flat
        return nodes, tokens.reshape(n_atoms * n_neighbors, self.width).index_select(0, places)

    def embed(
        self,
        messages: Tensor,
        neighbor_species: Tensor,
        environment: Environment,
        frames: Frames,
    ) -> tuple[Tensor, Tensor]:
        """Neighbour tokens (P, M, D), and log f of all tokens, centre first, (N, M + 1).

        Only the three rotated coordinates differ between the frames of an atom. The first linear
        map of the token MLP is therefore applied to everything else once per edge.
        """
        n_atoms, n_neighbors = environment.padding.mask.shape
        dtype = messages.dtype
        width = self.width
        weight = self.compress_in.weight
        of_edge, of_message = weight[:, :width], weight[:, weight.shape[1] - width :]
        cartesian = of_edge @ self.edge_embedder.weight
        constant = of_edge @ self.edge_embedder.bias + self.compress_in.bias
        shared = messages @ of_message.t() + constant
        if not self.first:
            species = self.neighbor_embedder.weight @ weight[:, width : 2 * width].t()
            shared = shared + species.index_select(0, neighbor_species)
        places = environment.padding.edge.reshape(-1)
        shared = shared.index_select(0, places).reshape(n_atoms, n_neighbors, width)
        shared = shared + environment.distance.to(dtype)[:, :, None] * cartesian[:, 3]
        if self.radial.size > 0:
            radial = self.radial(environment.distance).to(dtype)
            shared = shared + radial @ (of_edge @ self.radial_embedder).t()

        vectors = environment.vectors
        if frames.atom.shape[0] != n_atoms:
            shared = shared.index_select(0, frames.atom)
            vectors = vectors.index_select(0, frames.atom)
        # Rotated in float64: invariant before rounding, whatever the network's dtype.
        rotated = torch.matmul(vectors, frames.matrix).to(dtype)
        tokens = shared + rotated @ cartesian[:, :3].t()
        tokens = self.compress_out(nn.functional.silu(tokens))

        switch = environment.switch
        present = switch > 0.0
        log_switch = torch.where(present, switch, torch.ones_like(switch)).log()
        log_switch = log_switch.masked_fill(~present, -float("inf"))
        center = torch.zeros(n_atoms, 1, dtype=torch.float64, device=switch.device)
        return tokens, torch.cat([center, log_switch], dim=1).to(dtype)


def average(values: Tensor, weight: Tensor, atom: Tensor, n_atoms: int) -> Tensor:
    """Weighted sum of the rows of each atom."""
    shape = list(values.shape)
    shape[0] = n_atoms
    total = torch.zeros(shape, dtype=values.dtype, device=values.device)
    return total.index_add(0, atom, values * weight)
