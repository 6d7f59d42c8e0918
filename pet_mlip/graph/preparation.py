"""From a graph to what the layers read: the edges that count, in order, with their switch."""

import torch
from torch import Tensor, nn

from pet_mlip.graph.graph import Graph, renumber
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
        self.edge_cutoffs = EdgeCutoffs(pet)
        self.zbl = pet.zbl
        self.repulsion = Repulsion(species if pet.zbl else [])
        self.cutoff = max(pet.cutoff, self.repulsion.cutoff)
        index = torch.full((species[-1] + 1,), -1, dtype=torch.int64)
        index[torch.tensor(species)] = torch.arange(len(species))
        self.register_buffer("species_index", index)

    def forward(self, graph: Graph, distances: Tensor | None = None) -> Inputs:
        """Select the part of a graph that the layers read, and evaluate the repulsion.

        Args:
            graph: Atoms and edges.
            distances: Lengths of the edges, (E,) float64, where vectors were projected on an axis
                after these were taken; by default those of the vectors.
        """
        vectors, reverse = graph.edge_vectors, graph.reverse
        distance = torch.linalg.vector_norm(vectors, dim=-1) if distances is None else distances
        species = self.species_index[graph.species]
        centre, neighbor = graph.edge_index[0], graph.edge_index[1]
        n_atoms, n_own = species.shape[0], graph.atoms_within[0]
        cutoffs = self.edge_cutoffs(distance, centre, neighbor, n_atoms)
        repulsion = torch.zeros(n_own, dtype=torch.float64, device=vectors.device)
        if self.zbl:
            of_own = torch.nonzero(centre < n_own).squeeze(1)
            owner = centre[of_own]
            pairs = self.repulsion(species[owner], species[neighbor[of_own]], distance[of_own])
            repulsion = repulsion.index_add(0, owner, pairs)
        switch = self.edge_cutoffs.switch(distance, cutoffs)
        frame_switch = self.edge_cutoffs.frame_switch(distance, cutoffs, switch)
        is_inside = distance < cutoffs
        if n_own < n_atoms:
            reachable = graph.atoms_within[self.message_range - 1]
            is_inside = is_inside & (centre < reachable)
        inside = torch.nonzero(is_inside).squeeze(1)
        if inside.shape[0] < centre.shape[0]:
            reverse = renumber(reverse, is_inside, inside)
            centre, neighbor = centre.index_select(0, inside), neighbor.index_select(0, inside)
            vectors, distance = vectors.index_select(0, inside), distance.index_select(0, inside)
            switch = switch.index_select(0, inside)
            frame_switch = frame_switch.index_select(0, inside)
        if n_own == n_atoms:
            reach = full_reach(self.num_layers, n_atoms, centre.shape[0])
        else:
            reach = domain_reach(self.num_layers, self.message_range, graph.atoms_within, centre)
        return Inputs(
            species,
            graph.electronic,
            centre,
            species[neighbor],
            # A missing reverse is never read.
            reverse.clamp(min=0),
            vectors,
            distance,
            switch,
            frame_switch,
            repulsion,
            reach,
        )
