"""The frames that a training step sees (docs/theory, section Training modes)."""

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames, random_frames, random_rotations, single_frames
from pet_mlip.model.graph import Graph
from pet_mlip.model.potential import Potential


def training_frames(
    potential: Potential,
    graph: Graph,
    structure: Tensor,
    generator: torch.Generator | None = None,
) -> list[Frames]:
    """Frames for each GNN layer, drawn as ``potential.symmetrization.train`` says.

    Args:
        potential: The model in training.
        graph: The batch; gradients reach its edge vectors through the frames of the ensemble.
        structure: Structure of each atom, (N,) int64.
        generator: CPU random generator.
    """
    layers = range(potential.num_layers)
    mode = potential.symmetrization.train
    device = structure.device
    n_atoms = structure.shape[0]
    if mode == "structure":
        n_structures = int(structure.max()) + 1
        frames = single_frames(random_rotations(n_structures, generator).to(device)[structure])
        return [frames for _ in layers]
    if mode == "environment":
        return [_to(random_frames(n_atoms, generator), device) for _ in layers]
    ensemble = potential.layer_frames(graph)
    if mode == "sample":
        return [sample_frames(ensemble, n_atoms, generator) for _ in layers]
    return [ensemble for _ in layers]


def sample_frames(frames: Frames, n_atoms: int, generator: torch.Generator | None) -> Frames:
    """One frame per atom, drawn with its weight, then counted once.

    The draw is not differentiated: a model that has learned the same energy in every frame has
    no gradient from the weights, and its score-function estimate would be mostly noise.
    """
    cumulative = torch.cumsum(frames.weight.detach(), dim=0)
    # Every atom's weights add up to one, so atom i's part of the sum is [i, i + 1].
    draw = torch.rand(n_atoms, dtype=torch.float64, generator=generator).to(cumulative.device)
    target = torch.arange(n_atoms, device=cumulative.device) + draw
    row = torch.searchsorted(cumulative, target).clamp(max=frames.atom.shape[0] - 1)
    # Round-off in the running sum can point into the neighbouring atom: stay in one's own rows.
    first = torch.searchsorted(frames.atom, torch.arange(n_atoms, device=row.device))
    last = torch.searchsorted(frames.atom, torch.arange(n_atoms, device=row.device), right=True)
    row = torch.maximum(torch.minimum(row, last - 1), first)
    return single_frames(frames.matrix[row])


def _to(frames: Frames, device: torch.device) -> Frames:
    return Frames(*(part.to(device) for part in frames))
