"""Forces, virial and structure energies from the gradient over edge vectors."""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.graph import Graph


class Prediction(NamedTuple):
    """What a potential says about S structures of N atoms, float64."""

    energy: Tensor
    """(S,) eV."""
    atomic_energies: Tensor
    """(N,) eV."""
    forces: Tensor | None
    """(N, 3) eV/Å; None if not asked for."""
    virial: Tensor | None
    """dE/dstrain = V * stress, symmetric, (S, 3, 3) eV."""
    results: dict[str, Tensor]
    """Others by name, of atoms (N, ...) or of structures (S, ...), as they are declared."""


def forces_from_edge_gradient(gradient: Tensor, edge_index: Tensor, n_atoms: int) -> Tensor:
    """F_i = sum of g over edges out of i minus sum over edges into i, (N, 3).

    Args:
        gradient: g = dE/d(edge vector), (E, 3).
        edge_index: Centre and neighbour, (2, E).
        n_atoms: Number of atoms.
    """
    forces = torch.zeros(n_atoms, 3, dtype=gradient.dtype, device=gradient.device)
    forces = forces.index_add(0, edge_index[0], gradient)
    return forces.index_add(0, edge_index[1], -gradient)


def virial_from_edge_gradient(
    gradient: Tensor,
    edge_vectors: Tensor,
    edge_index: Tensor,
    structure: Tensor,
    n_structures: int,
) -> Tensor:
    """dE/dstrain = sum of g outer r over the edges, symmetrised, (S, 3, 3)."""
    outer = gradient.unsqueeze(2) * edge_vectors.unsqueeze(1)
    outer = 0.5 * (outer + outer.transpose(1, 2))
    virial = torch.zeros(n_structures, 3, 3, dtype=gradient.dtype, device=gradient.device)
    return virial.index_add(0, structure[edge_index[0]], outer)


def predict(
    potential: Potential,
    graph: Graph,
    structure: Tensor,
    n_structures: int,
    frames: Frames | None = None,
    *,
    derivatives: bool = True,
    chunk_size: int = 0,
    training: bool = False,
) -> Prediction:
    """Energies, forces and virials of the structures of a batch.

    Args:
        potential: The model.
        graph: Atoms and edges.
        structure: Structure of each atom, (N,) int64.
        n_structures: S.
        frames: Of every atom; by default the ensemble's.
        derivatives: Whether to compute forces and virials.
        chunk_size: Largest number of tokens whose activations are held at once; 0 for all, as in
            training.
        training: Whether the results can be differentiated over the weights of the network.
    """
    with torch.enable_grad():
        vectors = graph.edge_vectors.detach().requires_grad_(True)
        inputs = potential.preparation(graph._replace(edge_vectors=vectors))
        weights = torch.ones_like(inputs.repulsion.detach())
        found = potential.evaluate(
            [vectors],
            inputs,
            weights,
            derivatives,
            chunk_size,
            frames,
            training,
        )
    energy = sum_atoms(found.energies, structure, n_structures)
    declared = potential.pet_hypers.results
    results = {
        name: value if declared[name].per_atom else sum_atoms(value, structure, n_structures)
        for name, value in found.results.items()
    }
    if not derivatives:
        return Prediction(energy, found.energies, None, None, results)
    vectors, gradient = vectors.detach(), found.gradient[0]
    forces = forces_from_edge_gradient(gradient, graph.edge_index, structure.shape[0])
    virial = virial_from_edge_gradient(gradient, vectors, graph.edge_index, structure, n_structures)
    return Prediction(energy, found.energies, forces, virial, results)


def sum_atoms(values: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Sum values (N, ...) over the atoms of each structure, (S, ...)."""
    total = values.new_zeros(n_structures, *values.shape[1:])
    return total.index_add(0, structure, values)
