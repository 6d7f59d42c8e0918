"""Exact invariance for any model: every atomic energy in the frames of its own atom."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_mlip.ase.engine import Engine, Output, virials_from_edge_gradient
from pet_mlip.ase.symmetrize.equivalence import Copies, Framed, find_copies
from pet_mlip.ase.symmetrize.fields import Bonds, Fields, make_domain, receptive_fields
from pet_mlip.ecse.closest_pairs import ClosestPairs
from pet_mlip.ecse.frames import Frames
from pet_mlip.ecse.hypers import ClosestPairsHypers
from pet_mlip.engine.derivatives import forces_from_edge_gradient
from pet_mlip.graph.chunks import split
from pet_mlip.graph.environment import build_environment
from pet_mlip.graph.graph import Graph, map_tensors, pad_edges, select_edges
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.graph.inputs import EdgeCutoffs

Ints = NDArray[np.int64]


class Plan(NamedTuple):
    """What has to be evaluated for a structure."""

    graph: Graph
    """On the host, with edges within the cutoff; the frames are functions of their vectors."""
    distances: Tensor
    """(E,)."""
    frames: Frames
    bonds: Bonds
    fields: Fields
    copies: Copies
    evaluated: Ints
    """Frames that are evaluated, (U,)."""


class Cost(NamedTuple):
    """What an evaluation costs, known before it is done."""

    frames: int
    """Frames of all atoms."""
    evaluations: int
    """Receptive fields to be evaluated, each in one frame: those that are not the same."""
    relative: float
    """Edges in them, over the edges of the structure: cost in evaluations of the plain model."""


class StructureAverage:
    """E = sum_i sum_f w_if E_i(X R_if) with the frames f of atom i, and its exact derivatives.

    Exact and size consistent for any model, since frames and weights are functions of the atom's
    own neighbours. Each E_i is evaluated from its receptive field alone, once per frame; frames in
    which fields look the same (crystals have many) are evaluated once.

    Args:
        engine: A plain exported model.
    """

    def __init__(self, engine: Engine) -> None:
        metadata = engine.model.metadata
        hypers = PETHypers(**metadata.hypers)
        self.engine = engine
        self.depth = metadata.interaction_range
        self.edge_cutoffs = EdgeCutoffs(hypers)
        self.ensemble = ClosestPairs(hypers.cutoff, ClosestPairsHypers())

    def __call__(self, graph: Graph, gradient: bool) -> Output:
        """Evaluate a graph; arguments as for `Engine`."""
        with torch.inference_mode(False), torch.enable_grad():
            plan = self.plan(graph)
            total = self._evaluate(plan, gradient)
            n_atoms = graph.species.shape[0]
            weight = plan.frames.weight.detach()
            energies = torch.zeros(n_atoms, dtype=torch.float64)
            energies = energies.index_add(0, plan.frames.atom, weight * total.energies)
            n_frames = torch.bincount(plan.frames.atom, minlength=n_atoms).numpy()
            if not gradient:
                return Output(energies.numpy(), n_frames, None, None)
            outputs = [plan.frames.weight, plan.frames.matrix, plan.distances]
            given = [total.energies, total.of_matrix, total.of_distances]
            kept = [(o, g) for o, g in zip(outputs, given, strict=True) if o.requires_grad]
            of_vectors = total.of_vectors
            if kept:
                through = torch.autograd.grad(
                    [o for o, _ in kept],
                    plan.graph.edge_vectors,
                    [g for _, g in kept],
                    allow_unused=True,
                    materialize_grads=True,
                )[0]
                of_vectors = of_vectors + through
            index = plan.graph.edge_index
            forces = forces_from_edge_gradient(of_vectors, index, n_atoms)
            vectors = plan.graph.edge_vectors.detach()
            virials = virials_from_edge_gradient(of_vectors, vectors, index, n_atoms)
        return Output(energies.numpy(), n_frames, forces.numpy(), virials.numpy())

    def cost(self, graph: Graph) -> Cost:
        """Tell what evaluating a graph will cost."""
        with torch.inference_mode(False):
            plan = self.plan(graph)
        owners = plan.frames.atom.numpy()[plan.evaluated]
        n_edges = sum_edges(plan.bonds, plan.fields, self.depth)[owners].sum()
        total = max(plan.bonds.pairs.shape[1], 1)
        return Cost(len(plan.frames.atom), len(plan.evaluated), float(n_edges) / total)

    def plan(self, graph: Graph) -> Plan:
        """Find the frames of a graph, and which of them are evaluated."""
        # Which receptive fields look alike is found out on the host.
        graph = map_tensors(graph, Tensor.cpu)
        distances = torch.linalg.vector_norm(graph.edge_vectors, dim=-1)
        graph = select_edges(graph, distances < self.engine.model.metadata.cutoff)
        vectors = graph.edge_vectors.clone().requires_grad_(True)
        graph = graph._replace(edge_vectors=vectors)
        pairs, n_atoms = graph.edge_index.numpy(), graph.species.shape[0]
        first = np.searchsorted(pairs[0], np.arange(n_atoms + 1))
        bonds = Bonds(pairs, graph.reverse.numpy(), first)
        fields = receptive_fields(bonds, self.depth)
        distances = torch.linalg.vector_norm(vectors, dim=-1)
        frames = self.frames(graph, distances)
        framed = Framed(
            torch.column_stack([graph.species, graph.electronic]).numpy(),
            bonds,
            fields,
            vectors.detach().numpy(),
            distances.detach().numpy(),
            frames.atom.numpy(),
            frames.matrix.detach().numpy(),
        )
        copies = find_copies(framed, self.depth)
        evaluated = np.flatnonzero(copies.original == np.arange(len(copies.original)))
        return Plan(graph, distances, frames, bonds, fields, copies, evaluated)

    def frames(self, graph: Graph, distances: Tensor) -> Frames:
        """Find the ensemble of every atom, differentiable in vectors and distances."""
        n_atoms = graph.species.shape[0]
        centre, neighbor = graph.edge_index[0], graph.edge_index[1]
        cutoffs = self.edge_cutoffs(distances, centre, neighbor, n_atoms)
        switch = self.edge_cutoffs.switch(distances, cutoffs)
        switch = self.edge_cutoffs.frame_switch(distances, cutoffs, switch)
        seen = torch.nonzero(distances.detach() < cutoffs.detach()).squeeze(1)
        padding = pad_edges(centre[seen], n_atoms)
        vectors = graph.edge_vectors[seen]
        frames: Frames = self.ensemble(
            build_environment(vectors, distances[seen], switch[seen], padding)
        )
        return frames

    def _evaluate(self, plan: Plan, gradient: bool) -> Totals:
        """Energies of all frames, and gradients summed over them, chunk by chunk."""
        total = Totals.zeros(len(plan.frames.atom), len(plan.distances))
        owners = plan.frames.atom.numpy()[plan.evaluated]
        tokens = sum_edges(plan.bonds, plan.fields, self.depth) + np.diff(plan.fields.first)
        sizes = torch.from_numpy(tokens[owners])
        for chunk in split(sizes, torch.arange(len(owners) + 1), self.engine.chunk_size):
            frames = plan.evaluated[chunk.atom_start : chunk.atom_end]
            self._evaluate_chunk(plan, frames, gradient, total)
        return total

    def _evaluate_chunk(self, plan: Plan, chunk: Ints, gradient: bool, total: Totals) -> None:
        """Add what some of the evaluated frames, and their copies, contribute to ``total``."""
        owners = plan.frames.atom.numpy()[chunk]
        domain = make_domain(plan.bonds, plan.fields, owners, self.depth)
        device = self.engine.model.device
        edge, frame = torch.from_numpy(domain.edge), torch.from_numpy(chunk[domain.field])
        vectors, matrix = plan.graph.edge_vectors.detach(), plan.frames.matrix.detach()
        turned = torch.einsum("ei,eij->ej", vectors[edge], matrix[frame])
        atoms = torch.from_numpy(domain.atom)
        graph = Graph(
            plan.graph.species[atoms].to(device),
            torch.from_numpy(domain.pairs).to(device),
            turned.to(device),
            torch.from_numpy(domain.reverse).to(device),
            plan.graph.electronic[atoms].to(device),
            domain.atoms_within,
        )
        distances = plan.distances.detach()[edge].to(device)
        energies, of_turned, of_distances, _ = self.engine.model.evaluate_domain(
            graph, distances, gradient, self.engine.chunk_size
        )
        place = np.full(len(plan.frames.atom), -1)
        place[chunk] = np.arange(len(chunk))
        of_original = place[plan.copies.original]
        mine = np.flatnonzero(of_original >= 0)
        total.energies[mine] = energies.cpu()[of_original[mine]]
        if not gradient:
            return
        of_turned, of_distances = of_turned.cpu(), of_distances.cpu()
        total.add(plan, frame, edge, of_turned, of_distances)
        copied = np.flatnonzero(of_original[plan.copies.frame] >= 0)
        if len(copied) == 0:
            return
        key = domain.field * plan.bonds.pairs.shape[1] + domain.edge
        order = np.argsort(key)
        wanted = of_original[plan.copies.frame[copied]] * plan.bonds.pairs.shape[1]
        wanted = wanted + plan.copies.source[copied]
        source = torch.from_numpy(order[np.searchsorted(key[order], wanted)])
        total.add(
            plan,
            torch.from_numpy(plan.copies.frame[copied]),
            torch.from_numpy(plan.copies.edge[copied]),
            of_turned[source],
            of_distances[source],
        )


class Totals(NamedTuple):
    """Energies of F frames; derivatives of sum w_if E_if at constant weights, summed in place."""

    energies: Tensor
    """(F,)."""
    of_matrix: Tensor
    """(F, 3, 3)."""
    of_vectors: Tensor
    """Through the rotated vectors at constant frames, (E, 3)."""
    of_distances: Tensor
    """(E,)."""

    @classmethod
    def zeros(cls, n_frames: int, n_edges: int) -> Totals:
        """Nothing so far."""
        shapes = [(n_frames,), (n_frames, 3, 3), (n_edges, 3), (n_edges,)]
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(
        self, plan: Plan, frame: Tensor, edge: Tensor, of_turned: Tensor, of_distance: Tensor
    ) -> None:
        """Add derivatives over the edges (D,) of the fields of some frames (D,)."""
        weight = plan.frames.weight.detach()[frame]
        matrix = plan.frames.matrix.detach()[frame]
        of_turned = weight[:, None] * of_turned
        self.of_vectors.index_add_(0, edge, torch.einsum("ej,eij->ei", of_turned, matrix))
        outer = plan.graph.edge_vectors.detach()[edge].unsqueeze(2) * of_turned.unsqueeze(1)
        self.of_matrix.index_add_(0, frame, outer)
        self.of_distances.index_add_(0, edge, weight * of_distance)


def sum_edges(bonds: Bonds, fields: Fields, depth: int) -> Ints:
    """Number of edges in the receptive field of each atom, (N,)."""
    degree = np.diff(bonds.first)[fields.atom] * (fields.hop < depth)
    total: Ints = np.concatenate([[0], np.cumsum(degree)])
    return total[fields.first[1:]] - total[fields.first[:-1]]
