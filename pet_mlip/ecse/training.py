"""The frames that a training step sees (docs/theory, section Training modes)."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames, rotations_from_normal, single_frames
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.ecse.random_numbers import combine, normal, uniform


class Trainable(Protocol):
    """A symmetrized model: a potential, or any other module."""

    symmetrization: SymmetrizationHypers
    num_layers: int


def training_frames(
    model: Trainable, ensemble: Callable[[], Frames], structure: Tensor, keys: Tensor
) -> list[Frames]:
    """Frames for each GNN layer, drawn as ``model.symmetrization.train`` says.

    Args:
        model: The model in training.
        ensemble: Finds the ensemble of every atom of the batch, for the modes that need it;
            gradients reach the edge vectors through its frames.
        structure: Structure of each atom, ascending, (N,) int64.
        keys: Random key of each structure, (S,) int64: equal keys, equal frames.
    """
    layers = range(model.num_layers)
    mode = model.symmetrization.train
    if mode == "structure":
        frames = single_frames(random_rotations(keys)[structure])
        return [frames for _ in layers]
    if mode == "full":
        whole = ensemble()
        return [whole for _ in layers]

    first_atom = torch.searchsorted(structure, torch.arange(len(keys), device=structure.device))
    place = torch.arange(len(structure), device=structure.device) - first_atom[structure]
    of_atoms = combine(keys[structure], place)
    of_layers = [combine(of_atoms, torch.full_like(place, layer)) for layer in layers]
    if mode == "environment":
        return [single_frames(random_rotations(of_layer)) for of_layer in of_layers]
    whole = ensemble()
    return [sample_frames(whole, uniform(of_layer, 1).squeeze(1)) for of_layer in of_layers]


def random_rotations(keys: Tensor) -> Tensor:
    """A Haar-random O(3) matrix for each key, (n, 3, 3) float64."""
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
