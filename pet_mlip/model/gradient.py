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
        leaves: list[Tensor],
        inputs: Inputs,
        weights: Tensor,
        compute_gradient: bool,
        chunk_size: int,
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Atomic energies (N,), the gradient of sum_i w_i E_i, frames of the centres.

        Args:
            leaves: What ``inputs`` were made from, and the gradient is taken over; they require
                grad if it is to be computed.
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
                total = [(energies * weights).sum()]
                one: list[Tensor | None] = [None]
                return energies.detach(), chain(total, one, leaves, compute_gradient), n_frames
        energies, geometry, n_frames = self.chunked(inputs, weights, compute_gradient, chunk_size)
        outputs = [inputs.vectors, inputs.distance, inputs.switch, inputs.repulsion]
        given: list[Tensor | None] = [geometry.vectors, geometry.distance, geometry.switch, weights]
        return energies, chain(outputs, given, leaves, compute_gradient), n_frames


def chain(
    outputs: list[Tensor], given: list[Tensor | None], leaves: list[Tensor], compute: bool
) -> list[Tensor]:
    """The given gradient over the outputs, taken back to the leaves; zeros where there is none."""
    gradient = [torch.zeros_like(leaf) for leaf in leaves]
    kept: list[Tensor] = []
    kept_given: list[Tensor | None] = []
    for output, of_output in zip(outputs, given):  # noqa: B905 (TorchScript)
        if output.requires_grad:
            kept.append(output)
            kept_given.append(of_output)
    if compute and len(kept) > 0:
        found = torch.autograd.grad(kept, leaves, kept_given, allow_unused=True)
        for k, of_leaf in enumerate(found):
            if of_leaf is not None:
                gradient[k] = of_leaf
    return gradient
