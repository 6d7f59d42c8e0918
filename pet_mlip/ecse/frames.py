"""Frame ensembles: for each atom, rotations with weights."""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.graph.graph import count_each


class Frames(NamedTuple):
    """The frames of N atoms, ordered by atom; every atom has at least one.

    Environments are evaluated with ``vectors @ matrix`` and the results averaged with the weights,
    which sum to one for each atom.
    """

    atom: Tensor
    """Atom of each frame, ascending, (P,) int64."""
    matrix: Tensor
    """Rotations, (P, 3, 3) float64; columns are the axes, zero columns project coordinates out."""
    weight: Tensor
    """Weight of each frame, (P,) float64."""


def single_frames(matrix: Tensor) -> Frames:
    """One frame of weight one per atom from matrices (N, 3, 3)."""
    n_atoms = matrix.shape[0]
    atom = torch.arange(n_atoms, device=matrix.device)
    return Frames(atom, matrix, torch.ones(n_atoms, dtype=matrix.dtype, device=matrix.device))


def identity_frames(n_atoms: int, device: torch.device) -> Frames:
    """The ensemble of the plain model: {(identity, 1)} for every atom."""
    eye = torch.eye(3, dtype=torch.float64, device=device)
    return single_frames(eye.expand(n_atoms, 3, 3))


def rotations_from_normal(gaussian: Tensor) -> Tensor:
    """Haar-random O(3) matrices (rotations and rotoreflections) from normal numbers (n, 3, 3)."""
    q, r = torch.linalg.qr(gaussian)
    # The signs make the QR factor Haar distributed (Mezzadri, Notices AMS 54, 592 (2007)).
    return q * torch.sign(torch.diagonal(r, dim1=1, dim2=2)).unsqueeze(1)


def count_frames(frames: Frames, n_atoms: int) -> Tensor:
    """Number of frames of each atom, (N,) int64."""
    return count_each(frames.atom, n_atoms)
