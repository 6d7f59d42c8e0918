"""Blocks of frames: the pieces, small enough for the caches, that the layers are evaluated on."""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames
from pet_mlip.model.inputs import Inputs


class Block(NamedTuple):
    """P frames of n atoms with at most M neighbours, in a padded layout with T = M + 1 tokens.

    Frames of one atom follow each other; an atom with many frames may be spread over blocks.
    """

    atoms: Tensor
    """(n,) int64."""
    frames: Tensor
    """Index among all frames, (P,) int64."""
    owner: Tensor
    """Which of the atoms each frame belongs to, ascending, (P,) int64."""
    edges: Tensor
    """The edges out of the atoms, (e,) int64."""
    places: Tensor
    """Where each of them is in the flattened (n * M) layout, (e,) int64."""
    padded: Tensor
    """Edge in each place, (n * M) int64; empty places hold one of the edges."""
    empty: Tensor
    """True in empty places, (n, M, 1) bool, or nothing if none is empty."""
    vectors: Tensor
    """r_j - r_i of each place in Å, (n, M, 3) float64."""
    matrix: Tensor
    """Of each frame, (P, 3, 3) float64; nothing if coordinates are taken as they are."""
    weight: Tensor
    """Of each frame, (P,) in the network's dtype; nothing if each atom has one of weight 1."""
    rotated: Tensor
    """Neighbours in each frame, (P * M, 3) in the network's dtype."""
    log_switch: Tensor
    """log f of each token, that of the centre first, (n, T) in the network's dtype."""
    last_layer: int
    """Last layer that the atoms are centres in."""
    n_tokens: int
    """P * T."""


def split_frames(
    inputs: Inputs, n_neighbors: Tensor, n_frames: Tensor, block_size: int
) -> tuple[list[Tensor], list[int], list[int]]:
    """Frames of each block, its largest number of neighbours, and its last layer.

    Atoms are sorted by their number of neighbours, so that little is padded, and those that fewer
    layers need come in blocks of their own.

    Args:
        inputs: The graph.
        n_neighbors: Edges of each centre, (N,) int64.
        n_frames: Frames of each centre, (N,) int64.
        block_size: Tokens of a block.
    """
    device = inputs.centre.device
    reach = inputs.reach.atoms
    n_layers = len(reach) - 1
    frames: list[Tensor] = []
    widths: list[int] = []
    last_layers: list[int] = []
    first_frame = n_frames.cumsum(0) - n_frames
    start = 0
    for step in range(n_layers):
        layer = n_layers - 1 - step
        end = reach[layer]
        if end <= start:
            continue
        order = start + torch.argsort(n_neighbors[start:end], stable=True)
        count = n_frames.index_select(0, order)
        first = torch.repeat_interleave(first_frame.index_select(0, order), count)
        before = torch.repeat_interleave(count.cumsum(0) - count, count)
        of_shell = first + torch.arange(first.shape[0], device=device) - before
        width = torch.repeat_interleave(n_neighbors.index_select(0, order), count)
        block = torch.div((width + 1).cumsum(0) - 1, block_size, rounding_mode="floor")
        of_block = torch.bincount(block)
        sizes: list[int] = of_block.tolist()
        widest: list[int] = width.index_select(0, (of_block.cumsum(0) - 1).clamp(min=0)).tolist()
        done = 0
        for size, w in zip(sizes, widest):  # noqa: B905 (TorchScript)
            if size > 0:
                frames.append(of_shell[done : done + size])
                widths.append(w)
                last_layers.append(layer)
            done += size
        start = end
    return frames, widths, last_layers


def make_blocks(
    inputs: Inputs, frames: Frames, plain: bool, block_size: int, dtype: torch.dtype
) -> list[Block]:
    """All frames in blocks.

    Args:
        inputs: The graph; only its values are read.
        frames: Of its centres.
        plain: Whether each atom has one frame, the identity, of weight one.
        block_size: Tokens (neighbours + 1, summed over frames) of a block, roughly.
        dtype: Of the network.
    """
    device = inputs.centre.device
    n_atoms = inputs.reach.atoms[0]
    n_neighbors = torch.bincount(inputs.centre, minlength=n_atoms)
    first_edge = n_neighbors.cumsum(0) - n_neighbors
    n_frames = torch.bincount(frames.atom, minlength=n_atoms)
    switch = inputs.switch.detach()
    vectors = inputs.vectors.detach()
    present = switch > 0.0
    log_switch = torch.where(present, switch, torch.ones_like(switch)).log()
    log_switch = log_switch.masked_fill(~present, -float("inf")).to(dtype)

    blocks: list[Block] = []
    split = split_frames(inputs, n_neighbors, n_frames, block_size)
    for of_block, width, last_layer in zip(split[0], split[1], split[2]):  # noqa: B905
        atom = frames.atom.index_select(0, of_block)
        atoms, owner = torch.unique_consecutive(atom, return_inverse=True)
        n, n_rows = atoms.shape[0], atom.shape[0]
        count, first = n_neighbors.index_select(0, atoms), first_edge.index_select(0, atoms)
        slot = torch.arange(width, device=device)
        occupied = slot[None, :] < count[:, None]
        padded = (first[:, None] + slot[None, :]).reshape(-1)
        places = torch.nonzero(occupied.reshape(-1)).squeeze(1)
        edges = padded.index_select(0, places)
        if width > 0:
            # Edges of other atoms may be out of the layer's reach.
            padded = torch.where(occupied.reshape(-1), padded, edges[0])
        is_full = places.shape[0] == padded.shape[0]
        empty = occupied[:0].unsqueeze(2)
        logs = log_switch.index_select(0, padded).reshape(n, width)
        if not is_full:
            logs = logs.masked_fill(~occupied, -float("inf"))
            empty = (~occupied).unsqueeze(2)
        center = torch.zeros(n, 1, dtype=dtype, device=device)
        of_places = vectors.index_select(0, padded).reshape(n, width, 3)
        rotated, matrix, weight = of_places, frames.matrix[:0], log_switch[:0]
        if not plain:
            matrix = frames.matrix.index_select(0, of_block)
            weight = frames.weight.index_select(0, of_block).to(dtype)
            # Rotated in float64: invariant before rounding, whatever the network's dtype.
            rotated = torch.bmm(of_places.index_select(0, owner), matrix)
        blocks.append(
            Block(
                atoms,
                of_block,
                owner,
                edges,
                places,
                padded,
                empty,
                of_places,
                matrix,
                weight,
                rotated.reshape(-1, 3).to(dtype),
                torch.cat([center, logs], dim=1),
                last_layer,
                n_rows * (width + 1),
            )
        )
    return blocks
