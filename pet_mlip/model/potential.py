"""The potential: PET in the frames of an ensemble, plus the composition baseline."""

from typing import Any

import torch
from torch import Tensor, nn

from pet_mlip.ecse.ensembles import make_ensemble
from pet_mlip.ecse.frames import Frames, count_frames, leading_frames
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.model.environment import Environment, build_environment, leading_atoms
from pet_mlip.model.graph import (
    Graph,
    Topology,
    edges_within,
    pad_edges,
    reverse_edges,
    select_edges,
)
from pet_mlip.model.hypers import PETHypers
from pet_mlip.model.inputs import EdgeCutoffs, Inputs
from pet_mlip.model.pet import PET
from pet_mlip.model.reach import domain_reach, full_reach
from pet_mlip.model.repulsion import Repulsion


class Potential(nn.Module):
    """Atomic energies of a graph, E_i = composition(species_i) + scale * PET_i (+ ZBL_i), in eV.

    Geometry, frames, baselines and sums are float64; the network has its own dtype (`set_dtype`).

    Args:
        species: Atomic numbers the potential knows.
        pet: Architecture.
        symmetrization: Frame ensemble and training mode.
    """

    species_index: Tensor
    composition: Tensor
    scale: Tensor

    def __init__(
        self, species: list[int], pet: PETHypers, symmetrization: SymmetrizationHypers
    ) -> None:
        super().__init__()
        self.species: list[int] = sorted(set(species))
        self.pet_hypers = pet
        self.symmetrization = symmetrization
        self.num_layers = pet.num_gnn_layers
        self.message_range = pet.message_range
        self.interaction_range = pet.interaction_range
        self.residual = pet.featurizer_type == "residual"
        self.edge_cutoffs = EdgeCutoffs(pet)
        self.zbl = pet.zbl
        self.repulsion = Repulsion(self.species if pet.zbl else [])
        self.cutoff = max(pet.cutoff, self.repulsion.cutoff)
        self.pet = PET(pet, len(self.species))
        self.ensemble = make_ensemble(pet.cutoff, symmetrization)
        index = torch.full((self.species[-1] + 1,), -1, dtype=torch.int64)
        index[torch.tensor(self.species)] = torch.arange(len(self.species))
        self.register_buffer("species_index", index)
        self.register_buffer("composition", torch.zeros(len(self.species), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, graph: Graph, frames: list[Frames] | None = None) -> Tensor:
        """Atomic energies, (N,) float64, twice differentiable in ``graph.edge_vectors``.

        With adaptive cutoffs, only the first derivative is exact (see `pet_mlip.model.adaptive`).

        Args:
            graph: Atoms and edges.
            frames: Frames for each GNN layer, as training draws them; by default the ensemble's.
        """
        inputs = self.prepare(graph)
        environment = self.environment(inputs)
        if frames is None:
            ensemble = self.ensemble(environment)
            frames = [ensemble for _ in range(self.num_layers)]
        return self.evaluate(inputs, environment, frames)

    def prepare(self, graph: Graph) -> Inputs:
        """The graph within the cutoff, as the layers read it."""
        near = select_edges(graph, edges_within(graph, self.cutoff))
        n_atoms = graph.species.shape[0]
        # An edge without a reverse lies outside the receptive field of a domain's own atoms.
        return self.select(
            Topology(
                near.species,
                near.edge_index,
                near.edge_shifts,
                reverse_edges(near),
                [n_atoms] * self.interaction_range,
            ),
            near.edge_vectors,
            torch.linalg.vector_norm(near.edge_vectors, dim=-1),
            near.electronic,
            True,
        )

    def prepare_domain(
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
        if whole:
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
            repulsion,
            reach,
        )

    def evaluate(self, inputs: Inputs, environment: Environment, frames: list[Frames]) -> Tensor:
        """Atomic energies in the given frames of each layer, (N,) or those of a domain's own."""
        n_atoms, n_edges = inputs.reach.atoms[-1], inputs.reach.edges[-1]
        switch, centre = inputs.switch[:n_edges], inputs.centre[:n_edges]
        nodes = self.pet.embed_nodes(0, inputs.species)
        messages = self.pet.embed_messages(inputs.neighbor_species)
        energies = self.composition[inputs.species[:n_atoms]] + inputs.repulsion
        for layer in range(self.num_layers):
            if self.residual:
                nodes = self.pet.embed_nodes(layer, inputs.species)
            nodes, edges = self.reach_layer(
                layer, inputs, nodes, messages, environment, frames[layer]
            )
            if self.residual:
                energies = energies + self.readout(
                    layer, nodes[:n_atoms], edges[:n_edges], switch, centre
                )
            if not self.residual or layer + 1 < self.num_layers:
                needed = inputs.reach.edges[layer + 1]
                reversed_edges = edges.index_select(0, inputs.reverse[:needed])
                messages = self.pet.exchange(
                    layer, messages[:needed], edges[:needed], reversed_edges
                )
        if not self.residual:
            energies = energies + self.readout(0, nodes[:n_atoms], messages, switch, centre)
        return energies

    def reach_layer(
        self,
        layer: int,
        inputs: Inputs,
        nodes: Tensor,
        messages: Tensor,
        environment: Environment,
        frames: Frames,
    ) -> tuple[Tensor, Tensor]:
        """Node and edge features out of a layer, on the atoms and edges within its reach."""
        n_atoms, n_edges = inputs.reach.atoms[layer], inputs.reach.edges[layer]
        if n_atoms < environment.distance.shape[0]:
            environment = leading_atoms(environment, n_atoms, n_edges)
            frames = leading_frames(frames, n_atoms)
        nodes, edges = self.pet.apply_layer(
            layer,
            nodes[:n_atoms],
            messages[:n_edges],
            inputs.neighbor_species[:n_edges],
            environment,
            frames,
        )
        return self.pet.condition(nodes, inputs.electronic[:n_atoms]), edges

    def environment(self, inputs: Inputs) -> Environment:
        """Padded environments of the atoms that the first layer is evaluated on."""
        n_atoms = inputs.reach.atoms[0]
        padding = pad_edges(inputs.centre, n_atoms)
        return build_environment(inputs.vectors, inputs.distance, inputs.switch, padding)

    def readout(
        self, index: int, nodes: Tensor, edges: Tensor, switch: Tensor, centre: Tensor
    ) -> Tensor:
        """Contribution of one readout to the atomic energies in eV, (N,) float64."""
        of_nodes = self.pet.readout_nodes(index, nodes).to(torch.float64)
        of_edges = self.pet.readout_edges(index, edges, switch.to(edges.dtype)).to(torch.float64)
        return self.scale * of_nodes.index_add(0, centre, of_edges)

    @torch.jit.unused
    def set_baseline(self, composition: dict[int, float], scale: float) -> None:
        """Set the energy of each species (eV per atom) and the scale of the network (eV)."""
        values = [composition[z] for z in self.species]
        self.composition.copy_(torch.tensor(values, dtype=torch.float64))
        self.scale.fill_(scale)

    @torch.jit.unused
    def set_dtype(self, dtype: torch.dtype) -> "Potential":
        """Cast the network; geometry, frames and baselines stay float64."""
        self.pet.to(dtype)
        return self

    @torch.jit.unused
    def n_parameters(self) -> int:
        """Number of weights of the network."""
        return sum(p.numel() for p in self.pet.parameters())

    @torch.jit.unused
    def count_frames(self, graph: Graph) -> Tensor:
        """Frames that each atom is evaluated in, (N,) int64."""
        with torch.no_grad():
            return count_frames(self.layer_frames(graph), graph.species.shape[0])

    @torch.jit.unused
    def layer_frames(self, graph: Graph) -> Frames:
        """The ensemble of every atom, differentiable in the edge vectors."""
        return self.ensemble(self.environment(self.prepare(graph)))

    @torch.jit.unused
    def config(self) -> dict[str, Any]:
        """Everything but the numbers, as plain JSON types."""
        return {
            "species": self.species,
            "pet": self.pet_hypers.model_dump(),
            "symmetrization": self.symmetrization.model_dump(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Potential":
        """Build the architecture that `config` describes; load the numbers with a state dict."""
        return cls(
            config["species"],
            PETHypers(**config["pet"]),
            SymmetrizationHypers(**config["symmetrization"]),
        )
