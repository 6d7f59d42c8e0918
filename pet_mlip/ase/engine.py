"""Runs an exported model on the edges of one or several structures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from pet_mlip.engine.allocator import keep_freed_memory
from pet_mlip.engine.derivatives import forces_from_edge_gradient
from pet_mlip.errors import UserError
from pet_mlip.export import LoadedModel
from pet_mlip.graph.graph import Graph

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Uncertainty(NamedTuple):
    """Standard deviations of what a model says about N atoms."""

    vectors: Floats
    """g_i a_i in eV, (N, D): the norm of a sum over atoms is the uncertainty of their energy."""
    forces: Floats | None
    """Of a component of each atom's force in eV/Å, the same in all directions, (N,)."""

    def part(self, atoms: slice) -> Uncertainty:
        """Those of some of the atoms."""
        return Uncertainty(self.vectors[atoms], None if self.forces is None else self.forces[atoms])


class Output(NamedTuple):
    """What a model says about N atoms."""

    energies: Floats
    """Atomic energies in eV, (N,)."""
    n_frames: Ints
    """Number of frames that each atom was evaluated in, (N,)."""
    forces: Floats | None
    """(N, 3) in eV/Å."""
    virials: Floats | None
    """Atomic virials in eV, (N, 3, 3), symmetric; each edge is shared equally by its two atoms."""
    results: dict[str, Floats] = {}
    """Other results of the atoms by name, (N,), (N, 3) or (N, 3, 3)."""
    uncertainty: Uncertainty | None = None
    """If it was asked for."""

    def is_finite(self) -> bool:
        """Tell whether energies and forces are numbers."""
        forces = () if self.forces is None else self.forces
        return bool(np.isfinite(self.energies).all() and np.isfinite(forces).all())

    def part(self, atoms: slice) -> Output:
        """What was said about some of the atoms."""
        return Output(
            self.energies[atoms],
            self.n_frames[atoms],
            None if self.forces is None else self.forces[atoms],
            None if self.virials is None else self.virials[atoms],
            {name: values[atoms] for name, values in self.results.items()},
            None if self.uncertainty is None else self.uncertainty.part(atoms),
        )


class Engine:
    """An exported model as a function of graphs on its device.

    Args:
        model: What `pet_mlip.export.load_model` returned.
        chunk_size: Largest number of attention tokens evaluated at once; 0 for all at once.
    """

    def __init__(self, model: LoadedModel, chunk_size: int) -> None:
        self.model = model
        self.chunk_size = chunk_size
        if model.device.type == "cpu":
            keep_freed_memory()

    def __call__(self, graph: Graph, gradient: bool, uncertainty: int = 0) -> Output:
        """Evaluate a graph.

        Args:
            graph: Atoms and edges.
            gradient: Whether to compute forces and virials.
            uncertainty: 1 for that of energies, 2 for that of forces too.
        """
        index, n_atoms = graph.edge_index, graph.species.shape[0]
        # Tensors made in a caller's inference mode could not be differentiated.
        with torch.inference_mode(False), torch.no_grad():
            energies, edge_gradient, n_frames, results, atom_vectors, deviations = self.model(
                graph, None, gradient or uncertainty > 1, self.chunk_size, uncertainty
            )
            forces, virials = None, None
            if gradient:
                forces = forces_from_edge_gradient(edge_gradient, index, n_atoms).cpu().numpy()
                virials = (
                    virials_from_edge_gradient(edge_gradient, graph.edge_vectors, index, n_atoms)
                    .cpu()
                    .numpy()
                )
            others = {name: values.cpu().numpy() for name, values in results.items()}
            deviation = None
            if uncertainty > 0:
                of_forces = None
                if uncertainty > 1:
                    of_forces = force_uncertainty(deviations, index, n_atoms).cpu().numpy()
                deviation = Uncertainty(atom_vectors.cpu().numpy(), of_forces)
        return Output(
            energies.cpu().numpy(), n_frames.cpu().numpy(), forces, virials, others, deviation
        )

    def features(self, numbers: Ints, uncertainty: Uncertainty) -> Floats:
        """Tell how far atoms are from the training data, by uncertainties that grow faster."""
        species = torch.from_numpy(np.array(numbers, dtype=np.int64))
        return self.model.features(torch.from_numpy(uncertainty.vectors), species).numpy()

    def in_float64(self) -> Engine:
        """Return an engine of the same model that evaluates the network in float64."""
        return Engine(self.model.in_float64(), self.chunk_size)

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        # Nothing ever changes a loaded model, so that copies share it.
        return Engine(self.model, self.chunk_size)

    def __getstate__(self) -> dict[str, Any]:
        buffer = io.BytesIO()
        torch.jit.save(self.model.module, buffer)
        fields = {**vars(self.model), "module": buffer.getvalue()}
        return {"model": fields, "chunk_size": self.chunk_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        fields = dict(state["model"])
        device = fields["device"] if torch.cuda.is_available() else torch.device("cpu")
        with torch.inference_mode(False):
            module = torch.jit.load(io.BytesIO(fields["module"]), map_location=device)
        model = LoadedModel(**{**fields, "module": module, "device": device})
        Engine.__init__(self, model, state["chunk_size"])


def force_uncertainty(deviations: Tensor, index: Tensor, n_atoms: int) -> Tensor:
    """Standard deviation of a force component of each atom, (N,).

    Args:
        deviations: From the gradient over edge vectors, of K members, (K, E, 3).
        index: Centre and neighbour of each edge, (2, E).
        n_atoms: N.
    """
    of_members = [forces_from_edge_gradient(member, index, n_atoms) for member in deviations]
    return torch.stack(of_members).square().mean(dim=(0, 2)).sqrt()


def split(structures: Iterable[Atoms], max_atoms: int) -> Iterator[list[Atoms]]:
    """Consecutive groups of at most `max_atoms` atoms, or of one structure."""
    group: list[Atoms] = []
    size = 0
    for k, atoms in enumerate(structures):
        if not isinstance(atoms, Atoms):
            raise UserError(f"structure {k} is no ase.Atoms, but {type(atoms).__name__}.")
        if group and size + len(atoms) > max_atoms:
            yield group
            group, size = [], 0
        group.append(atoms)
        size += len(atoms)
    if group:
        yield group


def join(graphs: Sequence[Graph]) -> Graph:
    """Several structures as one graph, their atom indices offset."""
    sizes = [graph.species.shape[0] for graph in graphs]
    offsets = np.cumsum([0, *sizes[:-1]]).tolist()
    firsts = np.cumsum([0, *(graph.reverse.shape[0] for graph in graphs[:-1])]).tolist()
    with torch.inference_mode(False), torch.no_grad():
        return Graph(
            torch.cat([graph.species for graph in graphs]),
            torch.cat([g.edge_index + k for g, k in zip(graphs, offsets, strict=True)], dim=1),
            torch.cat([graph.edge_vectors for graph in graphs]),
            torch.cat([g.reverse + k for g, k in zip(graphs, firsts, strict=True)]),
            torch.cat([graph.electronic for graph in graphs]),
            [sum(sizes)],
        )


def virials_from_edge_gradient(
    gradient: Tensor, vectors: Tensor, index: Tensor, n_atoms: int
) -> Tensor:
    """Half of g outer r of every edge for its centre, half for its neighbour, (N, 3, 3)."""
    outer = 0.5 * gradient.unsqueeze(2) * vectors.unsqueeze(1)
    outer = 0.5 * (outer + outer.transpose(1, 2))
    virials = torch.zeros(n_atoms, 3, 3, dtype=gradient.dtype, device=gradient.device)
    return virials.index_add_(0, index[0], outer).index_add_(0, index[1], outer)
