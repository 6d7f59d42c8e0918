"""Energies and their gradient over the edge vectors, in one piece or in chunks."""

import torch
from torch import Tensor, nn

from pet_mlip.ecse.frames import count_frames
from pet_mlip.model.chunked import ChunkedPotential
from pet_mlip.model.potential import Inputs, Potential


class EnergyGradient(nn.Module):
    """Evaluates a `Potential`, in one piece where that fits the given bound."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.chunked = ChunkedPotential(potential)

    def forward(
        self, inputs: Inputs, weights: Tensor, compute_gradient: bool, chunk_size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Atomic energies (N,), d(sum_i w_i E_i)/d(edge vectors) (E, 3), frames of the centres.

        Args:
            inputs: The graph within the cutoff.
            weights: w_i of the N atoms or, in a domain, of its own atoms, float64.
            compute_gradient: Whether to compute it; zeros otherwise.
            chunk_size: Largest number of tokens (frames x (neighbours + 1), summed over atoms)
                evaluated at once; 0 for everything at once.
        """
        potential = self.chunked.potential
        n_atoms, n_edges = inputs.reach.atoms[0], inputs.reach.edges[0]
        if chunk_size > 0 and n_atoms + n_edges > chunk_size:
            return self.chunked(inputs, weights, compute_gradient, chunk_size)
        vectors = inputs.vectors.detach().requires_grad_(compute_gradient)
        inputs = Inputs(
            inputs.edges,
            inputs.species,
            inputs.centre,
            inputs.neighbor_species,
            inputs.reverse,
            vectors,
            inputs.reach,
        )
        environment = potential.environment(vectors, inputs.centre, n_atoms)
        frames = potential.ensemble(environment)
        n_frames = count_frames(frames, n_atoms)
        n_tokens = (environment.padding.mask.sum(dim=1) + 1) * n_frames
        if chunk_size > 0 and int(n_tokens.sum()) > chunk_size:
            return self.chunked(inputs, weights, compute_gradient, chunk_size)
        energies = potential.evaluate(inputs, environment, [frames] * potential.num_layers)
        gradient = torch.zeros_like(vectors)
        if compute_gradient and energies.requires_grad:
            total = (energies * weights).sum()
            found = torch.autograd.grad([total], [vectors], allow_unused=True)[0]
            if found is not None:
                gradient = found
        return energies.detach(), gradient, n_frames
