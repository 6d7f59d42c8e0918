"""From a graph to what the layers read: the edges that count, in order, with their switch."""

import torch
from torch import Tensor, nn

from pet_mlip.graph.graph import (
    Graph,
    Topology,
    edges_within,
    reverse_edges,
    select_edges,
)
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.graph.inputs import EdgeCutoffs, Inputs
from pet_mlip.graph.reach import domain_reach, full_reach
from pet_mlip.graph.repulsion import Repulsion


class Preparation(nn.Module):
    """Selects the edges within the cutoffs; adds the repulsion of the nuclei, if there is one.

    Args:
        species: Atomic numbers, ascending.
        pet: Architecture.
    """

    species_index: Tensor

    def __init__(self, species: list[int], pet: PETHypers) -> None:
        super().__init__()
        self.num_layers = pet.num_gnn_layers
        self.message_range = pet.message_range
        self.interaction_range = pet.interaction_range
        self.edge_cutoffs = EdgeCutoffs(pet)
        self.zbl = pet.zbl
        self.repulsion = Repulsion(species if pet.zbl else [])
        self.cutoff = max(pet.cutoff, self.repulsion.cutoff)
        index = torch.full((species[-1] + 1,), -1, dtype=torch.int64)
        index[torch.tensor(species)] = torch.arange(len(species))
        self.register_buffer("species_index", index)

    def forward(self, graph: Graph) -> Inputs:
        """The graph within the cutoff, as the layers read it."""
        near = select_edges(graph, edges_within(graph, self.cutoff))
        n_atoms = graph.species.shape[0]
        # An edge without a reverse lies outside the receptive field of a domain's own atoms.
        return self.select(
            Topology(
                near.species,
                near.edge_index,
                reverse_edges(near),
                [n_atoms] * self.interaction_range,
            ),
            near.edge_vectors,
            torch.linalg.vector_norm(near.edge_vectors, dim=-1),
            near.electronic,
            True,
        )

    def of_domain(
        self, topology: Topology, edge_vectors: Tensor, edge_distances: Tensor, electronic: Tensor
    ) -> Inputs:
        """The part of a neighbour list that is within the cutoff, as the layers read it.

        Args:
            topology: The neighbour list.
            edge_vectors: Its edges now, (E, 3) float64.
            edge_distances: Their lengths, (E,) float64.
            electronic: Charge and spin multiplicity, (N, 2) int64.
        """
        return self.select(topology, edge_vectors, edge_distances, electronic, False)

    def select(
        self,
        topology: Topology,
        vectors: Tensor,
        distance: Tensor,
        electronic: Tensor,
        whole: bool,
    ) -> Inputs:
        """The edges that the layers need, with their switch; the repulsion of the rest.

        Args:
            topology: Edges ordered by centre.
            vectors: Their vectors, (E, 3) float64.
            distance: Their lengths, (E,) float64.
            electronic: Charge and spin multiplicity, (N, 2) int64.
            whole: Whether all atoms are centres, and no edge is longer than the cutoff.
        """
        species = self.species_index[topology.species]
        centre, neighbor = topology.edge_index[0], topology.edge_index[1]
        n_atoms, n_own = species.shape[0], topology.atoms_within[0]
        cutoffs = self.edge_cutoffs(distance, centre, neighbor, n_atoms)
        repulsion = torch.zeros(n_own, dtype=torch.float64, device=vectors.device)
        if self.zbl:
            of_own = torch.nonzero(centre < n_own).squeeze(1)
            owner = centre[of_own]
            pairs = self.repulsion(species[owner], species[neighbor[of_own]], distance[of_own])
            repulsion = repulsion.index_add(0, owner, pairs)
        switch = self.edge_cutoffs.switch(distance, cutoffs)
        frame_switch = self.edge_cutoffs.frame_switch(distance, cutoffs, switch)
        reverse = topology.reverse
        if not whole or self.zbl or self.edge_cutoffs.adaptive:
            reachable = topology.atoms_within[self.message_range - 1]
            is_inside = (distance < cutoffs) & (centre < reachable)
            inside = torch.nonzero(is_inside).squeeze(1)
            place = is_inside.cumsum(0) - 1
            # A missing reverse is never read.
            reverse = place.index_select(0, reverse.index_select(0, inside).clamp(min=0))
            centre, neighbor = centre.index_select(0, inside), neighbor.index_select(0, inside)
            vectors, distance = vectors.index_select(0, inside), distance.index_select(0, inside)
            switch = switch.index_select(0, inside)
            frame_switch = frame_switch.index_select(0, inside)
        if whole or n_own == n_atoms:
            reach = full_reach(self.num_layers, n_atoms, centre.shape[0])
        else:
            reach = domain_reach(self.num_layers, self.message_range, topology.atoms_within, centre)
        return Inputs(
            species,
            electronic,
            centre,
            species[neighbor],
            reverse.clamp(min=0),
            vectors,
            distance,
            switch,
            frame_switch,
            repulsion,
            reach,
        )
