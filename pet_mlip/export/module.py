"""The exported contract: tensors in, atomic energies and edge gradient out."""

import torch
from torch import Tensor, nn

from pet_mlip.ecse.frames import count_frames
from pet_mlip.model.chunked import ChunkedPotential
from pet_mlip.model.graph import Graph
from pet_mlip.model.potential import Potential


class ExportedModel(nn.Module):
    """What `model.pt` holds. Every tensor lives on the module's device.

    TorchScript cannot switch autograd on: call it with grad mode enabled, and never in inference
    mode, if the gradient is asked for (`pet_mlip.export.LoadedModel` sees to that); it raises
    RuntimeError otherwise.
    """

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.chunked = ChunkedPotential(potential)

    def forward(
        self,
        species: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        edge_shifts: Tensor,
        weights: Tensor | None = None,
        compute_gradient: bool = True,
        chunk_size: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies and their gradient.

        Args:
            species: Atomic numbers, (N,) int64; all known to the model.
            edge_index: Centre and neighbour of each directed edge, (2, E) int64.
            edge_vectors: r_j - r_i + shift @ cell in Å, (E, 3), evaluated in float64; edges beyond
                the cutoff are allowed.
            edge_shifts: Cell shifts, (E, 3) int64.
            weights: w_i of the energy to differentiate, (N,) float64; ones by default.
            compute_gradient: Whether to compute the gradient; zeros are returned otherwise.
            chunk_size: Largest number of attention tokens, frames x (neighbours + 1) summed over
                atoms, evaluated at once; 0 evaluates everything at once.

        Returns:
            Atomic energies E_i in eV, (N,) float64; d(sum_i w_i E_i)/d(edge_vectors) in eV/Å,
            (E, 3) float64; number of frames of each atom, (N,) int64.
        """
        if compute_gradient and not torch.is_grad_enabled():
            raise RuntimeError("the gradient was asked for, but autograd is switched off")
        n_atoms, n_edges = species.shape[0], edge_index.shape[1]
        graph = Graph(species, edge_index, edge_vectors.detach().to(torch.float64), edge_shifts)
        if weights is None:
            weights = torch.ones(n_atoms, dtype=torch.float64, device=species.device)
        if chunk_size > 0 and n_atoms + n_edges > chunk_size:
            return self.chunked(graph, weights, compute_gradient, chunk_size)

        potential = self.chunked.potential
        vectors = graph.edge_vectors.requires_grad_(compute_gradient)
        inputs = potential.prepare(Graph(species, edge_index, vectors, edge_shifts))
        environment = potential.environment(inputs.vectors, inputs.centre, n_atoms)
        frames = potential.ensemble(environment)
        n_frames = count_frames(frames, n_atoms)
        n_tokens = (environment.padding.mask.sum(dim=1) + 1) * n_frames
        if chunk_size > 0 and int(n_tokens.sum()) > chunk_size:
            return self.chunked(graph, weights, compute_gradient, chunk_size)
        energies = potential.evaluate(inputs, environment, [frames] * potential.num_layers)
        gradient = torch.zeros_like(graph.edge_vectors)
        if compute_gradient and energies.requires_grad:
            total = (energies * weights).sum()
            found = torch.autograd.grad([total], [vectors], allow_unused=True)[0]
            if found is not None:
                gradient = found
        return energies.detach(), gradient, n_frames
