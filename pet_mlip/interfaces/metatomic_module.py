"""A potential as metatomic evaluates it: systems in, labelled energies and other results out."""

from typing import Dict, List, Optional  # noqa: UP035 (metatomic compares the annotations)

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System
from torch import Tensor, nn

from pet_mlip.engine.potential import Evaluation, Potential
from pet_mlip.graph.graph import Graph, sort_edges

PREFIX = "pet_mlip::"
"""Of the names of results for which metatomic has no standard."""


class MetatomicModule(nn.Module):
    """Energies and other results of systems, differentiable twice.

    Metatomic's engines take forces, stresses and whatever else they need by differentiating what
    this returns, of all atoms or of some, with any weights. Nothing here is therefore detached from
    the positions, and the potential is evaluated such that autograd sees all of it.

    Args:
        potential: The model; it is taken over.
    """

    results: Dict[str, str]  # noqa: UP006
    """Names of results that are no energies, by metatomic's name."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential
        hypers = potential.pet_hypers
        self.neighbors = NeighborListOptions(
            cutoff=potential.cutoff, full_list=True, strict=True, requestor="pet_mlip"
        )
        self.conditioned = hypers.system_conditioning
        self.max_charge = hypers.max_charge
        self.max_spin_multiplicity = hypers.max_spin_multiplicity
        self.results = {PREFIX + name: name for name in hypers.results}

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:  # noqa: UP006
        """Name the list of neighbours that an engine has to find."""
        return [self.neighbors]

    def requested_inputs(self) -> Dict[str, ModelOutput]:  # noqa: UP006
        """Name what an engine has to know of each system besides its geometry."""
        inputs: Dict[str, ModelOutput] = {}  # noqa: UP006
        if self.conditioned:
            inputs["charge"] = ModelOutput(unit="e", sample_kind="system")
            inputs["spin_multiplicity"] = ModelOutput(unit="", sample_kind="system")
        return inputs

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels],
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """Evaluate systems.

        Args:
            systems: With the neighbours that `requested_neighbor_lists` asks for, in Å.
            outputs: What to compute, of atoms or of systems.
            selected_atoms: Pairs of system and atom; only these have results, and only they are
                summed up for their systems. All by default.

        Returns:
            By name, in eV for energies: one row for each selected atom in the order given, or one
            for each system.

        Raises:
            ValueError: Something is asked for that the model does not give, or an energy is not
                finite.
        """
        found: Dict[str, TensorMap] = {}  # noqa: UP006
        if len(outputs) == 0 or len(systems) == 0:
            return found
        compute_last = "energy_uncertainty" in outputs or "feature" in outputs
        evaluation = self.evaluate(self.graph(systems), compute_last)
        if not bool(torch.isfinite(evaluation.energies).all()):
            raise ValueError(
                "pet_mlip: an energy is not finite; do two atoms lie at the same place?"
            )
        device = evaluation.energies.device
        n_atoms = torch.tensor([len(system) for system in systems]).to(device)
        owner = torch.repeat_interleave(n_atoms)
        first = n_atoms.cumsum(0) - n_atoms
        chosen = torch.arange(owner.shape[0], device=device)
        if selected_atoms is not None:
            pairs = selected_atoms.values.to(torch.int64)
            chosen = first.index_select(0, pairs[:, 0]) + pairs[:, 1]
            owner = owner.index_select(0, chosen)
        of_atoms = torch.stack([owner, chosen - first.index_select(0, owner)], dim=1)
        atoms = Labels(["system", "atom"], of_atoms.to(torch.int32), assume_unique=True)
        numbers = torch.arange(len(systems), device=device).unsqueeze(1)
        whole = Labels(["system"], numbers.to(torch.int32), assume_unique=True)
        for name, output in outputs.items():
            if len(output.explicit_gradients) > 0:
                raise ValueError(
                    f"pet_mlip has no explicit gradients of '{name}': differentiate it by autograd"
                )
            kind = output.sample_kind
            if kind != "atom" and kind != "system":
                raise ValueError(f"pet_mlip has '{name}' of atoms and systems, not of '{kind}'")
            values = self.values(name, evaluation, systems).index_select(0, chosen)
            samples = atoms
            if kind == "system":
                size = list(values.shape)
                size[0] = len(systems)
                values = values.new_zeros(size).index_add(0, owner, values)
                samples = whole
            if name == "energy_uncertainty":
                values = torch.linalg.vector_norm(values, dim=1)
            found[name] = labelled(name, values, samples)
        return found

    def evaluate(self, graph: Graph, compute_last: bool) -> Evaluation:
        """Evaluate all atoms, for autograd if something is to be differentiated."""
        if graph.edge_vectors.requires_grad and torch.is_grad_enabled():
            return self.potential.record(graph, None, compute_last)
        return self.potential.evaluate(
            [graph.edge_vectors],
            self.potential.preparation(graph),
            torch.ones_like(graph.species, dtype=torch.float64),
            False,
            0,
            None,
            False,
            int(compute_last),
        )

    def graph(self, systems: List[System]) -> Graph:  # noqa: UP006
        """Join the systems in one graph."""
        species: List[Tensor] = []  # noqa: UP006
        pairs: List[Tensor] = []  # noqa: UP006
        vectors: List[Tensor] = []  # noqa: UP006
        shifts: List[Tensor] = []  # noqa: UP006
        states: List[Tensor] = []  # noqa: UP006
        first = 0
        for system in systems:
            neighbors = system.get_neighbor_list(self.neighbors)
            samples = neighbors.samples.values.to(torch.int64)
            species.append(system.types.to(torch.int64))
            pairs.append(samples[:, :2].t() + first)
            shifts.append(samples[:, 2:])
            vectors.append(neighbors.values.squeeze(2).to(torch.float64))
            states.append(self.electronic_state(system))
            first += len(system)
        return sort_edges(
            torch.cat(species),
            torch.cat(pairs, dim=1),
            torch.cat(vectors),
            torch.cat(shifts),
            torch.cat(states),
            self.potential.cutoff,
        )

    def electronic_state(self, system: System) -> Tensor:
        """Return charge and spin multiplicity for each atom of a system, (N, 2) int64.

        Raises:
            ValueError: The engine does not tell them, or the model does not know such.
        """
        n_atoms = len(system)
        state = torch.tensor([[0, 1]], dtype=torch.int64, device=system.device)
        if self.conditioned:
            known = system.known_data()
            if "charge" not in known or "spin_multiplicity" not in known:
                raise ValueError(
                    "this model of pet_mlip depends on the charge and the spin multiplicity of a "
                    "system, which the engine does not tell it"
                )
            charge = system.get_data("charge").block().values.reshape(1)
            spin = system.get_data("spin_multiplicity").block().values.reshape(1)
            exact = torch.stack([charge, spin], dim=1)
            state = exact.round().to(torch.int64)
            inside = state[0, 0].abs() <= self.max_charge
            inside = inside & (state[0, 1] >= 1) & (state[0, 1] <= self.max_spin_multiplicity)
            if not bool(inside & (state == exact).all()):
                raise ValueError(
                    f"this model of pet_mlip knows whole charges from {-self.max_charge} to "
                    f"{self.max_charge} and spin multiplicities from 1 to "
                    f"{self.max_spin_multiplicity}, not {float(charge)} and "
                    f"{float(spin)}"
                )
        return state.expand(n_atoms, 2)

    def values(self, name: str, evaluation: Evaluation, systems: List[System]) -> Tensor:  # noqa: UP006
        """Return what is summed over the atoms of a system, (N, ...).

        Args:
            name: Of the output; uncertainties are the norms of what is returned for them.
            evaluation: Of all atoms.
            systems: The systems.

        Raises:
            ValueError: The model does not know it.
        """
        if name == "energy":
            return evaluation.energies
        if name == "feature":
            return evaluation.last
        if name == "energy_uncertainty" and self.potential.uncertainty.known():
            species = torch.cat([system.types for system in systems]).to(torch.int64)
            own = self.potential.preparation.species_index[species]
            return self.potential.uncertainty(evaluation.last, own)
        if name in self.results:
            return evaluation.results[self.results[name]]
        raise ValueError(f"this model of pet_mlip does not know '{name}'")


def labelled(name: str, values: Tensor, samples: Labels) -> TensorMap:
    """Give values (S,), (S, 3) or (S, 3, 3), or features (S, D), their labels.

    Args:
        name: Of the output.
        values: In the order of the samples.
        samples: Atoms or systems.
    """
    label = "energy" if name == "energy_uncertainty" else name.split("::")[-1]
    components: List[Labels] = []  # noqa: UP006
    axes = torch.arange(3, device=values.device).unsqueeze(1)
    if name != "feature":
        if values.dim() == 2:
            components.append(Labels(["xyz"], axes))
        elif values.dim() == 3:
            components.append(Labels(["xyz_1"], axes))
            components.append(Labels(["xyz_2"], axes))
        values = values.unsqueeze(-1)
    numbers = torch.arange(values.shape[-1], device=values.device).unsqueeze(1)
    block = TensorBlock(values, samples, components, Labels([label], numbers))
    return TensorMap(Labels(["_"], numbers[:1]), [block])
