"""The potential: PET in the frames of an ensemble, plus the composition baseline."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pet_mlip.ecse.ensembles import make_ensemble
from pet_mlip.ecse.frames import Frames, count_frames
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.model.environment import Environment, environment_of
from pet_mlip.model.graph import Graph
from pet_mlip.model.hypers import PETHypers
from pet_mlip.model.inputs import Inputs
from pet_mlip.model.pet import PET
from pet_mlip.model.preparation import Preparation

DrawFrames = Callable[[Callable[[], Frames]], list[Frames]]
"""Frames for each GNN layer from what finds the ensemble of every atom."""


class Potential(nn.Module):
    """Atomic energies of a graph, E_i = composition(species_i) + scale * PET_i (+ ZBL_i), in eV.

    Geometry, frames, baselines and sums are float64; the network has its own dtype (`set_dtype`).

    Args:
        species: Atomic numbers the potential knows.
        pet: Architecture.
        symmetrization: Frame ensemble and training mode.
    """

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
        self.residual = pet.featurizer_type == "residual"
        self.preparation = Preparation(self.species, pet)
        self.cutoff = self.preparation.cutoff
        self.pet = PET(pet, len(self.species))
        self.ensemble = make_ensemble(pet.cutoff, symmetrization)
        self.register_buffer("composition", torch.zeros(len(self.species), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, graph: Graph, frames: list[Frames] | DrawFrames | None = None) -> Tensor:
        """Atomic energies, (N,) float64, twice differentiable in ``graph.edge_vectors``.

        With adaptive cutoffs, only the first derivative is exact (see `pet_mlip.model.adaptive`).

        Args:
            graph: Atoms and edges.
            frames: Frames for each GNN layer, or how training draws them; by default the
                ensemble's.
        """
        inputs = self.preparation(graph)
        environment = environment_of(inputs)

        def ensemble() -> Frames:
            found: Frames = self.ensemble(environment)
            return found

        if frames is None:
            frames = [ensemble()] * self.num_layers
        elif not isinstance(frames, list):
            frames = frames(ensemble)
        return self.evaluate(inputs, environment, frames)

    def evaluate(self, inputs: Inputs, environment: Environment, frames: list[Frames]) -> Tensor:
        """Atomic energies in the given frames of each layer, (N,)."""
        nodes = self.pet.embed_nodes(0, inputs.species)
        messages = self.pet.embed_messages(inputs.neighbor_species)
        energies = self.composition[inputs.species] + inputs.repulsion
        for layer in range(self.num_layers):
            if self.residual:
                nodes = self.pet.embed_nodes(layer, inputs.species)
            nodes, edges = self.pet.apply_layer(
                layer, nodes, messages, inputs.neighbor_species, environment, frames[layer]
            )
            nodes = self.pet.condition(nodes, inputs.electronic)
            if self.residual:
                energies = energies + self.readout(layer, nodes, edges, inputs)
            if not self.residual or layer + 1 < self.num_layers:
                reversed_edges = edges.index_select(0, inputs.reverse)
                messages = self.pet.exchange(layer, messages, edges, reversed_edges)
        if not self.residual:
            energies = energies + self.readout(0, nodes, messages, inputs)
        return energies

    def readout(self, index: int, nodes: Tensor, edges: Tensor, inputs: Inputs) -> Tensor:
        """Contribution of one readout to the atomic energies in eV, (N,) float64."""
        switch = inputs.switch.to(edges.dtype)
        of_nodes = self.pet.readout_nodes(index, nodes).to(torch.float64)
        of_edges = self.pet.readout_edges(index, edges, switch).to(torch.float64)
        return self.scale * of_nodes.index_add(0, inputs.centre, of_edges)

    def set_baseline(self, composition: dict[int, float], scale: float) -> None:
        """Set the energy of each species (eV per atom) and the scale of the network (eV)."""
        values = [composition[z] for z in self.species]
        self.composition.copy_(torch.tensor(values, dtype=torch.float64))
        self.scale.fill_(scale)

    def set_dtype(self, dtype: torch.dtype) -> "Potential":
        """Cast the network; geometry, frames and baselines stay float64."""
        self.pet.to(dtype)
        return self

    def n_parameters(self) -> int:
        """Number of weights of the network."""
        return sum(p.numel() for p in self.pet.parameters())

    def count_frames(self, graph: Graph) -> Tensor:
        """Frames that each atom is evaluated in, (N,) int64."""
        with torch.no_grad():
            return count_frames(self.layer_frames(graph), graph.species.shape[0])

    def layer_frames(self, graph: Graph) -> Frames:
        """The ensemble of every atom, differentiable in the edge vectors."""
        return self.ensemble(environment_of(self.preparation(graph)))

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
