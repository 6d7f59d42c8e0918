"""The model for metatomic, whose interfaces to simulation programs then run it.

Needs the optional packages metatomic and metatensor. Those programs differentiate the energy
themselves: here everything is recorded by autograd (`Potential.record`), so that derivatives of any
kind are right: of weighted sums of atomic energies, and second ones, too.
"""

from copy import deepcopy
from pathlib import Path
from typing import Dict, List, Optional  # noqa: UP035 (metatomic compares annotations)

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelEvaluationOptions,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
    load_atomistic_model,
    register_autograd_neighbors,
)
from torch import Tensor, nn

from pet_mlip.engine.derivatives import forces_from_edge_gradient
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.export.metadata import REFERENCES
from pet_mlip.export.selfcheck import TOLERANCE, random_cluster
from pet_mlip.files import check_replaceable, check_writable, replacing
from pet_mlip.graph.graph import Graph, electronic_state
from pet_mlip.version import __version__

ENERGY, UNCERTAINTY = "energy", "energy_uncertainty"
CHARGE, SPIN = "charge", "spin_multiplicity"


class MetatomicPotential(nn.Module):
    """A potential behind metatomic's interface.

    Inputs and outputs are float64, whatever the network is evaluated in.
    """

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential
        self.cutoff = potential.cutoff
        self.conditioned = bool(potential.pet_hypers.system_conditioning)

    @torch.jit.export
    def requested_neighbor_lists(self) -> list[NeighborListOptions]:
        """Ask for all pairs, in both directions, within the cutoff."""
        return [NeighborListOptions(cutoff=self.cutoff, full_list=True, strict=True)]

    @torch.jit.export
    def requested_inputs(self) -> dict[str, ModelOutput]:
        """Ask for the total charge and the spin multiplicity, of models that depend on them."""
        found: dict[str, ModelOutput] = {}
        if self.conditioned:
            found["charge"] = ModelOutput(unit="e", sample_kind="system")
            found["spin_multiplicity"] = ModelOutput(unit="", sample_kind="system")
        return found

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """Evaluate energies, and their uncertainties, of structures or of their atoms.

        Args:
            systems: Structures, with neighbour lists.
            outputs: What is asked for.
            selected_atoms: Atoms whose energies count; by default all.
        """
        results: dict[str, TensorMap] = {}
        if len(outputs) == 0:
            return results
        graph, samples = self.join(systems)
        uncertain = "energy_uncertainty" in outputs
        energies, last = self.potential.record(graph, None, uncertain)
        values = energies.unsqueeze(1)
        if uncertain:
            own = self.potential.preparation.species_index[graph.species]
            vectors = self.potential.uncertainty(last, own)
        else:
            vectors = values[:, :0]
        if selected_atoms is not None:
            # Of any device, in any order.
            wanted = selected_atoms.values.to(samples.device)
            n_atoms = samples.shape[0] + 1
            keys = wanted[:, 0].to(torch.int64) * n_atoms + wanted[:, 1]
            own_keys = samples[:, 0].to(torch.int64) * n_atoms + samples[:, 1]
            chosen = torch.isin(own_keys, keys).nonzero().squeeze(1)
            values, vectors, samples = values[chosen], vectors[chosen], samples[chosen]
        for name, output in outputs.items():
            of_atoms = output.sample_kind == "atom"
            if name == "energy":
                found = values if of_atoms else self.sum_up(values, samples, len(systems))
            elif name == "energy_uncertainty":
                sums = vectors if of_atoms else self.sum_up(vectors, samples, len(systems))
                found = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
            else:
                raise ValueError("this model has no output " + name)
            results[name] = self.wrap(name, found, samples, len(systems), of_atoms)
        return results

    def join(self, systems: list[System]) -> tuple[Graph, Tensor]:
        """Join structures to one graph; also system and atom of each of its atoms, (N, 2) int32."""
        options = self.requested_neighbor_lists()[0]
        species: list[Tensor] = []
        pairs: list[Tensor] = []
        shifts: list[Tensor] = []
        vectors: list[Tensor] = []
        samples: list[Tensor] = []
        states: list[Tensor] = []
        first = 0
        for k, system in enumerate(systems):
            n_atoms = len(system)
            neighbors = system.get_neighbor_list(options)
            index = neighbors.samples.values.to(torch.int64)
            species.append(system.types.to(torch.int64))
            pairs.append(index[:, :2].t() + first)
            shifts.append(index[:, 2:])
            vectors.append(neighbors.values.reshape(-1, 3).to(torch.float64))
            atom = torch.arange(n_atoms, device=system.positions.device)
            samples.append(torch.stack([torch.full_like(atom, k), atom], dim=1).to(torch.int32))
            state = electronic_state(n_atoms).to(atom.device)
            if self.conditioned:
                for column, name in enumerate(["charge", "spin_multiplicity"]):
                    given = system.get_data(name).block().values.reshape(-1)[0]
                    whole = given.round()
                    if bool((given - whole).abs() > 1e-6):
                        raise ValueError("the model takes whole numbers only as " + name)
                    state[:, column] = whole.to(state.dtype)
            states.append(state)
            first += n_atoms
        graph = Graph(
            torch.cat(species),
            torch.cat(pairs, dim=1),
            torch.cat(vectors),
            torch.cat(shifts),
            torch.cat(states),
        )
        return graph, torch.cat(samples)

    def sum_up(self, values: Tensor, samples: Tensor, n_systems: int) -> Tensor:
        """Sum values of atoms (N, D) over those of each system, (S, D)."""
        total = torch.zeros(n_systems, values.shape[1], dtype=values.dtype, device=values.device)
        return total.index_add(0, samples[:, 0].to(torch.int64), values)

    def wrap(
        self, name: str, values: Tensor, samples: Tensor, n_systems: int, of_atoms: bool
    ) -> TensorMap:
        """Label values, (N, 1) of atoms or (S, 1) of systems, as metatomic wants them."""
        device = values.device
        names = ["system", "atom"]
        if not of_atoms:
            names = ["system"]
            samples = torch.arange(n_systems, device=device, dtype=torch.int32).unsqueeze(1)
        only = torch.zeros(1, 1, dtype=torch.int32, device=device)
        block = TensorBlock(
            values=values,
            samples=Labels(names, samples),
            components=torch.jit.annotate(list[Labels], []),
            properties=Labels([name], only),
        )
        return TensorMap(Labels(["_"], only), [block])


def save_metatomic(
    path: str | Path, potential: Potential, *, dtype: str = "float32", name: str = "pet_mlip"
) -> None:
    """Write a file for metatomic's interfaces; it is compared with the potential first.

    Args:
        path: File to write (.pt).
        potential: The model; it is not changed.
        dtype: Of the network: float32 or float64. Positions and energies are float64.
        name: Of the model, in its metadata.

    Raises:
        UserError: The path is a folder, or the written model does not reproduce the potential.
    """
    path = Path(path)
    check_replaceable(path)
    check_writable(path.parent)
    eager = deepcopy(potential).cpu().eval().requires_grad_(False).set_dtype(getattr(torch, dtype))
    known = [ENERGY, *([UNCERTAINTY] if eager.uncertainty.known() else [])]
    capabilities = ModelCapabilities(
        outputs={output: ModelOutput(unit="eV", sample_kind="atom") for output in known},
        atomic_types=list(eager.species),
        interaction_range=eager.cutoff * eager.pet_hypers.interaction_range,
        length_unit="angstrom",
        supported_devices=["cuda", "cpu"],
        dtype="float64",
    )
    metadata = ModelMetadata(
        name=name,
        description=f"PET potential, network in {dtype}, exported by pet_mlip {__version__}.",
        references={"architecture": list(REFERENCES)},
    )
    model = AtomisticModel(MetatomicPotential(eager).eval(), metadata, capabilities)
    with replacing(path) as temporary:
        model.save(str(temporary))
        _check(str(temporary), eager)


def _check(path: str, eager: Potential) -> None:
    """Refuse a written model whose energies or forces differ from the potential's."""
    positions, graph = random_cluster(eager.species, eager.cutoff)
    near = graph.edge_vectors.norm(dim=1) < eager.cutoff
    graph = graph._replace(
        edge_index=graph.edge_index[:, near],
        edge_vectors=graph.edge_vectors[near],
        edge_shifts=graph.edge_shifts[near],
    )
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    energy = eager(graph._replace(edge_vectors=vectors)).sum()
    (gradient,) = torch.autograd.grad(energy, vectors)
    expected = forces_from_edge_gradient(gradient, graph.edge_index, len(positions))
    model = load_atomistic_model(path)
    moved = positions.clone().requires_grad_(True)
    system = System(graph.species.to(torch.int32), moved, torch.zeros(3, 3).double(), _no_pbc())
    pairs = torch.cat([graph.edge_index.t(), graph.edge_shifts], dim=1).to(torch.int32)
    samples = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
    neighbors = TensorBlock(
        values=graph.edge_vectors.unsqueeze(2),
        samples=Labels(samples, pairs),
        components=[Labels.range("xyz", 3)],
        properties=Labels.range("distance", 1),
    )
    register_autograd_neighbors(system, neighbors, check_consistency=True)
    system.add_neighbor_list(model.requested_neighbor_lists()[0], neighbors)
    for name in model.requested_inputs(use_new_names=True):
        usual = torch.tensor([[0.0 if name == CHARGE else 1.0]]).double()
        block = TensorBlock(usual, Labels.range("system", 1), [], Labels.range(name, 1))
        system.add_data(name, TensorMap(Labels.single(), [block]))
    options = ModelEvaluationOptions(
        length_unit="angstrom", outputs={ENERGY: ModelOutput(unit="eV", sample_kind="system")}
    )
    found = model([system], options, check_consistency=True)[ENERGY].block().values.sum()
    (slope,) = torch.autograd.grad(found, moved)
    bound = TOLERANCE[next(eager.pet.parameters()).dtype] * float(expected.abs().max())
    for what, one, other in (
        ("energy", found.detach(), energy.detach()),
        ("forces", -slope, expected),
    ):
        error = float((one - other).abs().max())
        if not error <= bound:
            raise UserError(
                f"The {what} of the model for metatomic differ from the potential's by "
                f"{error:.1e}: nothing was written; please report this with the checkpoint."
            )


def _no_pbc() -> Tensor:
    return torch.zeros(3, dtype=torch.bool)
