"""Energies and their gradient over the edge vectors, in one piece or in chunks."""

import torch
from torch import Tensor, nn

from pet_mlip.ecse.frames import count_frames
from pet_mlip.model.chunked import ChunkedPotential
from pet_mlip.model.inputs import Inputs
from pet_mlip.model.potential import Potential


class EnergyGradient(nn.Module):
    """Evaluates a `Potential`, in one piece where that fits the given bound."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.chunked = ChunkedPotential(potential)

    def forward(
        self,
        edge_vectors: Tensor,
        inputs: Inputs,
        weights: Tensor,
        compute_gradient: bool,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Atomic energies (N,), d(sum_i w_i E_i)/d(edge vectors) (E, 3), frames of the centres.

        Args:
            edge_vectors: What ``inputs`` were made from; requires grad if it is to be computed.
            inputs: The graph within the cutoff.
            weights: w_i of the N atoms or, in a domain, of its own atoms, float64.
            compute_gradient: Whether to compute it; zeros otherwise.
            chunk_size: Largest number of tokens (frames x (neighbours + 1), summed over atoms)
                evaluated at once; 0 for everything at once.
        """
        potential = self.chunked.potential
        n_atoms, n_edges = inputs.reach.atoms[0], inputs.reach.edges[0]
        in_chunks = chunk_size > 0 and n_atoms + n_edges > chunk_size
        if not in_chunks:
            environment = potential.environment(inputs)
            frames = potential.ensemble(environment)
            n_frames = count_frames(frames, n_atoms)
            n_tokens = (environment.padding.mask.sum(dim=1) + 1) * n_frames
            in_chunks = chunk_size > 0 and int(n_tokens.sum()) > chunk_size
            if not in_chunks:
                energies = potential.evaluate(inputs, environment, [frames] * potential.num_layers)
                gradient = torch.zeros_like(edge_vectors)
                if compute_gradient and energies.requires_grad:
                    total = (energies * weights).sum()
                    found = torch.autograd.grad([total], [edge_vectors], allow_unused=True)[0]
                    if found is not None:
                        gradient = found
                return energies.detach(), gradient, n_frames
        energies, of_vectors, of_switch, n_frames = self.chunked(
            inputs, weights, compute_gradient, chunk_size
        )
        gradient = torch.zeros_like(edge_vectors)
        if compute_gradient and inputs.vectors.requires_grad:
            outputs = [inputs.vectors, inputs.switch]
            given: list[Tensor | None] = [of_vectors, of_switch]
            if inputs.repulsion.requires_grad:
                outputs.append(inputs.repulsion)
                given.append(weights)
            found = torch.autograd.grad(outputs, [edge_vectors], given, allow_unused=True)[0]
            if found is not None:
                gradient = found
        return energies, gradient, n_frames
