"""The frames that a training step sees (docs/theory, section Training modes)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames, rotations_from_normal, single_frames
from pet_mlip.ecse.random_numbers import combine, normal, uniform

Mode = Literal["full", "structure", "environment", "sample"]
"""The whole ensemble, one random O(3) matrix per structure or per atom, or one frame per atom,
drawn from the ensemble with its weight."""


def training_frames(
    mode: Mode, ensemble: Callable[[], Frames], structure: Tensor, keys: Tensor
) -> Frames:
    """Draw the frames of a batch.

    Args:
        mode: How.
        ensemble: Finds the ensemble of every atom of the batch, for the modes that need it;
            gradients reach the edge vectors through its frames.
        structure: Structure of each atom, ascending, (N,) int64.
        keys: Random key of each structure, (S,) int64: equal keys, equal frames.
    """
    if mode == "structure":
        return random_frames(structure, keys)
    if mode == "full":
        return ensemble()
    first_atom = torch.searchsorted(structure, torch.arange(len(keys), device=structure.device))
    place = torch.arange(len(structure), device=structure.device) - first_atom[structure]
    of_atoms = combine(keys[structure], place)
    if mode == "environment":
        return single_frames(random_rotations(of_atoms))
    return sample_frames(ensemble(), uniform(of_atoms, 1).squeeze(1))


def random_frames(structure: Tensor, keys: Tensor) -> Frames:
    """Draw one O(3) matrix for all atoms of a structure.

    Args:
        structure: Structure of each atom, (N,) int64.
        keys: Random key of each structure, (S,) int64.
    """
    return single_frames(random_rotations(keys)[structure])


def random_rotations(keys: Tensor) -> Tensor:
    """Draw a Haar-random O(3) matrix for each key, (n, 3, 3) float64."""
    return rotations_from_normal(normal(keys, 9).reshape(-1, 3, 3))


def sample_frames(frames: Frames, draw: Tensor) -> Frames:
    """One frame per atom, drawn with its weight, then counted once.

    The draw is not differentiated: a model that has learned the same energy in every frame has
    no gradient from the weights, and its score-function estimate would be mostly noise.

    Args:
        frames: The ensemble of each atom.
        draw: A uniform random number in [0, 1) for each atom, (N,) float64.
    """
    n_atoms = draw.shape[0]
    cumulative = torch.cumsum(frames.weight.detach(), dim=0)
    # Every atom's weights add up to one, so atom i's part of the sum is [i, i + 1].
    target = torch.arange(n_atoms, device=cumulative.device) + draw
    row = torch.searchsorted(cumulative, target).clamp(max=frames.atom.shape[0] - 1)
    # Round-off in the running sum can point into the neighbouring atom: stay in one's own rows.
    first = torch.searchsorted(frames.atom, torch.arange(n_atoms, device=row.device))
    last = torch.searchsorted(frames.atom, torch.arange(n_atoms, device=row.device), right=True)
    row = torch.maximum(torch.minimum(row, last - 1), first)
    return single_frames(frames.matrix[row])
