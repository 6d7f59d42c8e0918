"""Predictions in the declared inference mode, in memory that does not grow with the structures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pet_mlip.data.batch import Batch
from pet_mlip.export.module import ExportedModel
from pet_mlip.engine.derivatives import (
    Prediction,
    forces_from_edge_gradient,
    virial_from_edge_gradient,
)
from pet_mlip.engine.potential import Potential


class BoundedPredictor:
    """Evaluates a potential as an exported model does, chunk by chunk.

    Args:
        potential: Its weights are read now; later changes do not count.
        chunk_size: Most attention tokens whose activations are held at once.
        derivatives: Whether forces and virials are asked for; they are None otherwise.
    """

    def __init__(self, potential: Potential, chunk_size: int, derivatives: bool = True) -> None:
        self.model = ExportedModel(potential)
        self.chunk_size = chunk_size
        self.derivatives = derivatives

    def __call__(self, batch: Batch) -> Any:
        """Energies, forces and virials of the structures of a batch, as a `Prediction`."""
        graph, structure, n_structures = batch.graph, batch.structure, batch.n_structures
        with torch.enable_grad():
            atomic, gradient, _ = self.model(
                *graph, compute_gradient=self.derivatives, chunk_size=self.chunk_size
            )
        if not self.derivatives:
            return energies_only(atomic, structure, n_structures)
        vectors, edge_index = graph.edge_vectors.detach(), graph.edge_index
        return Prediction(
            energy=atomic.new_zeros(n_structures).index_add(0, structure, atomic),
            atomic_energies=atomic,
            forces=forces_from_edge_gradient(gradient, edge_index, structure.shape[0]),
            virial=virial_from_edge_gradient(
                gradient, vectors, edge_index, structure, n_structures
            ),
        )


def energies_only(atomic: Tensor, structure: Tensor, n_structures: int) -> Any:
    """A prediction without forces and virial, from atomic energies (N,)."""
    energy = atomic.new_zeros(n_structures).index_add(0, structure, atomic)
    return Prediction(energy, atomic, None, None)  # type: ignore[arg-type]
