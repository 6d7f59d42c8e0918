"""The PET backbone (arXiv:2305.19302): message passing between transformers on environments."""

import torch
from torch import Tensor, nn

from pet_mlip.ecse.frames import Frames
from pet_mlip.network.conditioning import Conditioning, NoConditioning
from pet_mlip.model.environment import Environment
from pet_mlip.network.hypers import PETHypers
from pet_mlip.model.layer import GNNLayer


class Head(nn.Module):
    """Energy of one node or edge from its features."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.last = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Energies (...,) of features (..., D)."""
        return self.last(self.mlp(features)).squeeze(-1)


class PET(nn.Module):
    """Layers, messages and readout; the caller composes them (see `pet_mlip.engine.potential`).

    Features live on nodes (N, D_node) and on directed edges (E, D), never on padding. All of them
    are in the dtype of the parameters; geometry is float64.
    """

    def __init__(self, hypers: PETHypers, n_species: int) -> None:
        super().__init__()
        self.num_layers = hypers.num_gnn_layers
        self.residual = hypers.featurizer_type == "residual"
        n_readouts = self.num_layers if self.residual else 1
        n_combinations = 0 if self.residual else self.num_layers
        width = hypers.d_pet
        self.layers = nn.ModuleList(
            GNNLayer(hypers, n_species, first=i == 0) for i in range(self.num_layers)
        )
        self.combination_norms = nn.ModuleList(
            nn.LayerNorm(2 * width) for _ in range(n_combinations)
        )
        self.combination_mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(n_combinations)
        )
        self.node_embedders = nn.ModuleList(
            nn.Embedding(n_species, hypers.d_node) for _ in range(n_readouts)
        )
        self.edge_embedder = nn.Embedding(n_species, width)
        self.node_heads = nn.ModuleList(
            Head(hypers.d_node, hypers.d_head) for _ in range(n_readouts)
        )
        self.edge_heads = nn.ModuleList(Head(width, hypers.d_head) for _ in range(n_readouts))
        self.conditioning: nn.Module = NoConditioning()
        if hypers.system_conditioning:
            self.conditioning = Conditioning(
                hypers.d_node, hypers.max_charge, hypers.max_spin_multiplicity
            )

    def embed_nodes(self, layer: int, species: Tensor) -> Tensor:
        """Node features from the species alone, as layer ``layer`` starts from them."""
        features = torch.zeros(0)
        for i, embedder in enumerate(self.node_embedders):
            if i == layer:
                features = embedder(species)
        return features

    def embed_messages(self, neighbor_species: Tensor) -> Tensor:
        """First messages, from the neighbours' species."""
        return self.edge_embedder(neighbor_species)

    def apply_layer(
        self,
        layer: int,
        nodes: Tensor,
        messages: Tensor,
        neighbor_species: Tensor,
        environment: Environment,
        frames: Frames,
    ) -> tuple[Tensor, Tensor]:
        """Node and edge features out of layer ``layer``; see `GNNLayer`."""
        edges = messages
        for i, module in enumerate(self.layers):
            if i == layer:
                nodes, edges = module(nodes, messages, neighbor_species, environment, frames)
        return nodes, edges

    def condition(self, nodes: Tensor, electronic: Tensor) -> Tensor:
        """Node features that know the electronic state, (N, 2), of their structures."""
        return self.conditioning(nodes, electronic)

    def exchange(
        self, layer: int, messages: Tensor, edges: Tensor, reversed_edges: Tensor
    ) -> Tensor:
        """Messages into the next layer, from this layer's and the reverse edges' features."""
        if self.residual:
            return 0.5 * (messages + reversed_edges)
        both = torch.cat([edges, reversed_edges], dim=-1)
        for i, (norm, mlp) in enumerate(
            zip(self.combination_norms, self.combination_mlps, strict=True)
        ):
            if i == layer:
                messages = messages + edges + mlp(norm(both))
        return messages

    def readout_nodes(self, index: int, nodes: Tensor) -> Tensor:
        """Energies of the nodes by head ``index``, (N,)."""
        energies = torch.zeros(0)
        for i, head in enumerate(self.node_heads):
            if i == index:
                energies = head(nodes)
        return energies

    def readout_edges(self, index: int, edges: Tensor, switch: Tensor) -> Tensor:
        """Cutoff-weighted energies of the edges by head ``index``, (E,)."""
        energies = torch.zeros(0)
        for i, head in enumerate(self.edge_heads):
            if i == index:
                energies = head(edges) * switch
        return energies
