"""Blocks of frames: the pieces, small enough for the caches, that the layers are evaluated on."""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames, count_frames
from pet_mlip.model.graph import count_each
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


class Share(NamedTuple):
    """What a block is made of, and how large it is: all that the host has to know."""

    frames: Tensor
    """Index among all frames, (P,) int64."""
    width: int
    """Largest number of neighbours, M."""
    n_atoms: int
    n_edges: int
    last_layer: int


def split_frames(
    inputs: Inputs, n_neighbors: Tensor, n_frames: Tensor, total: int, block_size: int
) -> list[Share]:
    """Shares of all blocks.

    Atoms are sorted by their number of neighbours, so that little is padded, and those that fewer
    layers need come in blocks of their own.

    Args:
        inputs: The graph.
        n_neighbors: Edges of each centre, (N,) int64.
        n_frames: Frames of each centre, (N,) int64.
        total: Sum of these.
        block_size: Tokens of a block.
    """
    device = inputs.centre.device
    reach = inputs.reach.atoms
    n_layers = len(reach) - 1
    shares: list[Share] = []
    first_frame = n_frames.cumsum(0) - n_frames
    start = 0
    for step in range(n_layers):
        layer = n_layers - 1 - step
        end = reach[layer]
        if end <= start:
            continue
        order = start + torch.argsort(n_neighbors[start:end], stable=True)
        count = n_frames.index_select(0, order)
        n_rows = total if end - start == reach[0] else int(count.sum())
        atom = torch.arange(end - start, device=device)
        atom = torch.repeat_interleave(atom, count, output_size=n_rows)
        before = first_frame.index_select(0, order) - count.cumsum(0) + count
        of_shell = before.index_select(0, atom) + torch.arange(n_rows, device=device)
        width = n_neighbors.index_select(0, order).index_select(0, atom)
        block = torch.div((width + 1).cumsum(0) - 1, block_size, rounding_mode="floor")
        size = torch.bincount(block)
        # The first frame of each atom in each block.
        is_first = torch.ones_like(atom)
        is_first[1:] = ((atom[1:] != atom[:-1]) | (block[1:] != block[:-1])).to(torch.int64)
        widest = width.index_select(0, (size.cumsum(0) - 1).clamp(min=0))
        n_atoms = torch.zeros_like(size).index_add_(0, block, is_first)
        n_edges = torch.zeros_like(size).index_add_(0, block, is_first * width)
        facts: list[list[int]] = torch.stack([size, widest, n_atoms, n_edges]).tolist()
        done = 0
        for k in range(len(facts[0])):
            following = done + facts[0][k]
            if following > done:
                frames = of_shell[done:following]
                shares.append(Share(frames, facts[1][k], facts[2][k], facts[3][k], layer))
            done = following
        start = end
    return shares


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
    n_neighbors = count_each(inputs.centre, n_atoms)
    first_edge = n_neighbors.cumsum(0) - n_neighbors
    n_frames = count_frames(frames, n_atoms)
    switch = inputs.switch.detach()
    vectors = inputs.vectors.detach()
    present = switch > 0.0
    log_switch = torch.where(present, switch, torch.ones_like(switch)).log()
    log_switch = log_switch.masked_fill(~present, -float("inf")).to(dtype)

    blocks: list[Block] = []
    for share in split_frames(inputs, n_neighbors, n_frames, frames.atom.shape[0], block_size):
        atom = frames.atom.index_select(0, share.frames)
        n, n_rows, width, n_edges = share.n_atoms, atom.shape[0], share.width, share.n_edges
        owner = torch.zeros_like(atom)
        owner[1:] = (atom[1:] != atom[:-1]).to(torch.int64).cumsum(0)
        atoms = torch.zeros(n, dtype=torch.int64, device=device).scatter_(0, owner, atom)
        count, first = n_neighbors.index_select(0, atoms), first_edge.index_select(0, atoms)
        slot = torch.arange(width, device=device)
        padded = (first[:, None] + slot[None, :]).reshape(-1)
        places, edges = torch.arange(n_edges, device=device), padded
        empty = torch.zeros(0, width, 1, dtype=torch.bool, device=device)
        if n_edges < n * width:
            row = torch.arange(n, device=device)
            row = torch.repeat_interleave(row, count, output_size=n_edges)
            places = places + (row * width - (count.cumsum(0) - count).index_select(0, row))
            edges = padded.index_select(0, places)
            empty = (slot[None, :] >= count[:, None]).unsqueeze(2)
            # Edges of other atoms may be out of the layer's reach.
            padded = torch.where(empty.reshape(-1), edges[:1], padded)
        logs = log_switch.index_select(0, padded).reshape(n, width)
        if empty.shape[0] > 0:
            logs = logs.masked_fill(empty.squeeze(2), -float("inf"))
        center = torch.zeros(n, 1, dtype=dtype, device=device)
        of_places = vectors.index_select(0, padded).reshape(n, width, 3)
        rotated, matrix, weight = of_places, frames.matrix[:0], log_switch[:0]
        if not plain:
            matrix = frames.matrix.index_select(0, share.frames)
            weight = frames.weight.index_select(0, share.frames).to(dtype)
            # Rotated in float64: invariant before rounding, whatever the network's dtype.
            rotated = torch.bmm(of_places.index_select(0, owner), matrix)
        blocks.append(
            Block(
                atoms,
                share.frames,
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
                share.last_layer,
                n_rows * (width + 1),
            )
        )
    return blocks
